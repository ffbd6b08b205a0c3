"""Random networks under random masks: the rewritten graph is the masked module's function, to 1e-9 in float64.

Seeds are fixed, so a run is repeatable. More of them:
`pytest -m "not long" tests/passes/test_random_graphs.py tests/compiler/test_random_engines.py --nets 5000`.
A failure names its seed; `python -m tests.randomnets.shrink SEED` looks for a small net that fails the same way.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.randomnets.check import Outcome, check_any_size, check_net
from tests.randomnets.draw import Draw
from tests.randomnets.report import recorded

CHUNK = 25  # nets per test: enough for the share of nets with removals to be steady
LEAST_REMOVED = 0.6
_ANY_SIZE = 20

Record = Callable[[str, object], None]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "chunk" in metafunc.fixturenames:
        chunks = range(-(-metafunc.config.getoption("--nets") // CHUNK))
        metafunc.parametrize("chunk", [pytest.param(c, marks=[pytest.mark.ci] if c else []) for c in chunks])


def test_rewritten_nets_are_exact(chunk: int, record_property: Record) -> None:
    """Exact, idempotent, and with something removed often enough."""
    outcome = _outcome(check_net, range(chunk * CHUNK, (chunk + 1) * CHUNK), CHUNK)
    record_property(*recorded(outcome))
    assert not outcome.failures, "\n".join(outcome.failures)
    assert outcome.nets >= CHUNK, "too many masks were rejected"
    assert outcome.removed >= LEAST_REMOVED * outcome.nets


@pytest.mark.ci
def test_fully_convolutional_nets_are_exact_at_any_size(record_property: Record) -> None:
    """Height and width dynamic too: what holds for one size must hold for all."""
    outcome = _outcome(check_any_size, range(10 * _ANY_SIZE), _ANY_SIZE)
    record_property(*recorded(outcome))
    assert not outcome.failures, "\n".join(outcome.failures)
    assert outcome.nets >= _ANY_SIZE
    assert outcome.removed >= LEAST_REMOVED * outcome.nets


def _outcome(check: Callable[[Draw, str], Outcome], seeds: range, nets: int) -> Outcome:
    """Check nets until there are enough of them."""
    outcome = Outcome()
    for seed in seeds:
        outcome.add(check(Draw.seeded(seed), f"seed {seed}"))
        if outcome.nets >= nets:
            break
    return outcome


@pytest.mark.ci
@settings(max_examples=15, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_nets_drawn_by_hypothesis_are_exact(data: st.DataObject) -> None:
    """The same nets with hypothesis making the choices: it finds other corners, and shrinks what fails."""
    outcome = check_net(Draw(lambda low, high: data.draw(st.integers(low, high))), "hypothesis")
    assert not outcome.failures, "\n".join(outcome.failures)
