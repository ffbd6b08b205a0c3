"""Random networks under random masks through ONNX Runtime: the engine is the masked module's function."""

from __future__ import annotations

import pytest

from tests.randomnets.draw import Draw
from tests.randomnets.engines import EngineOutcome, check_engine

CHUNK = 15  # nets per test
SHARE = 10  # of the nets that --nets asks for, one in so many
LEAST_REMOVED = 0.6
MOST_REFUSED = 0.25  # ONNX has no form of some operators, and some nets are too unsteady to compare


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    metafunc.parametrize("chunk", range(-(-metafunc.config.getoption("--nets") // (SHARE * CHUNK))))


@pytest.mark.ci
def test_engines_of_random_nets_are_exact(chunk: int) -> None:
    """What is refused is refused for a stated reason."""
    outcome = EngineOutcome()
    for seed in range(10_000 + 100 * chunk, 10_100 + 100 * chunk):
        check_engine(Draw.seeded(seed), f"seed {seed}", outcome)
        if outcome.nets >= CHUNK:
            break
    assert not outcome.failures, "\n".join(outcome.failures)
    assert outcome.nets >= CHUNK, str(outcome.refused)
    assert outcome.removed >= LEAST_REMOVED * outcome.nets
    tried = {reason: n for reason, n in outcome.refused.items() if not reason.startswith(("mask: ", "net: "))}
    assert sum(tried.values()) <= MOST_REFUSED * outcome.nets, str(tried)
