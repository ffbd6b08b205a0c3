"""What the random nets covered, summed over all tests and workers and printed at the end of a run."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from .check import Outcome

PROPERTY = "randomnets"  # the user property under which a test hands over its outcome
_PER_LINE = 5


def recorded(outcome: Outcome) -> tuple[str, dict[str, Any]]:
    """An outcome as a user property, which travels between the processes of pytest-xdist."""
    return PROPERTY, {k: dict(v) if isinstance(v, Counter) else v for k, v in vars(outcome).items()}


def total(reports: list[Any]) -> Outcome:
    """The sum of what the given test reports hold."""
    result = Outcome()
    for report in reports:
        for name, value in getattr(report, "user_properties", ()):
            if name == PROPERTY:
                result.add(Outcome(**{k: Counter(v) if isinstance(v, dict) else v for k, v in value.items()}))
    return result


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Counts per step, operator and sparsity pattern, and the share of nets of which something was removed."""
    reports = [r for key in ("passed", "failed") for r in terminalreporter.stats.get(key, [])]
    outcome = total([r for r in reports if getattr(r, "when", None) == "call"])
    if not outcome.nets:
        return
    terminalreporter.section("random nets")
    terminalreporter.line(
        f"{outcome.nets} nets compared, {outcome.removed / outcome.nets:.0%} with something removed, "
        f"{outcome.constant} of them wholly zero; {outcome.rejected} masks rejected (output hardly varies)"
    )
    for title in ("passes", "masks", "steps", "operators"):
        _table(terminalreporter, title, getattr(outcome, title))


def _table(terminalreporter: pytest.TerminalReporter, title: str, counts: Counter[str]) -> None:
    terminalreporter.line(f"{title} ({len(counts)} kinds):")
    entries = [f"{name.removeprefix('aten::')} {count}" for name, count in sorted(counts.items())]
    for i in range(0, len(entries), _PER_LINE):
        terminalreporter.line("  " + ", ".join(entries[i : i + _PER_LINE]))
