"""Random networks under random masks: the slim module is the masked module, to 1e-9 in float64."""

from __future__ import annotations

from collections import Counter

import pytest

import sparsefx
from tests.helpers import TOLERANCE, worst_error
from tests.randomnets.check import drawn_masks, unmasked, varies
from tests.randomnets.draw import Draw
from tests.randomnets.net import build

_REFUSED = "its forward depends on sizes"  # a forward that cannot be followed may be refused


def check(seed: int) -> str:
    """What came of one net: exact and smaller, exact, refused, rejected (hardly depends on its input), or a failure."""
    draw = Draw.seeded(seed)
    built = build(draw)
    for _ in drawn_masks(draw, built, unmasked(built)):
        if varies(built):
            break
    else:
        return "rejected"
    try:
        small, _masks = sparsefx.slim(built.net, built.make_inputs(2), verify=False)
    except sparsefx.VerificationError as error:
        return "refused" if _REFUSED in str(error) else f"seed {seed}: {error}"
    worst = worst_error(small, built.net, built.make_inputs)
    if not worst <= TOLERANCE:
        return f"seed {seed}: error {worst:.3g} of the deviation over inputs"
    config = small.config
    return "smaller" if config["parameters_after"] < config["parameters_before"] else "exact"


def assert_exact(nets: int) -> None:
    outcomes = Counter(check(seed) for seed in range(nets))
    known = ("smaller", "exact", "refused", "rejected")
    failures = [outcome for outcome in outcomes if outcome not in known]
    assert not failures, "\n".join(failures)
    assert outcomes["smaller"] >= 0.3 * nets, outcomes  # in many of these nets literals tie everything
    assert outcomes["refused"] <= 0.1 * nets, outcomes


@pytest.mark.ci
def test_random_nets_are_exact() -> None:
    assert_exact(5)


@pytest.mark.long
def test_many_random_nets_are_exact() -> None:
    assert_exact(300)
