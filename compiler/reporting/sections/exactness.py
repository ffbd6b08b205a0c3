"""How far the engine is from the masked model, and how far it came here."""

from __future__ import annotations

from ...report_text import size_lines, state_lines
from ..data import PageData
from ..markup import Html, element
from ..numbers import error, percent
from ..tables import Column, table
from .section import missing, paragraph, section

_COLUMNS = (
    Column("Output"),
    Column("Largest error", number=True),
    Column("Mean error", number=True),
    Column("Bound", number=True),
    Column("The model's own rounding", number=True),
    Column("Varies with the input", number=True),
    Column("Result"),
)


def exactness(data: PageData) -> Html:
    verification = data.report["verification"]
    if verification is None:
        return section(
            "exactness",
            "Exactness",
            missing("Not verified: the engine was compiled with verify=False."),
            *_states(data),
        )
    rows = [
        [
            check["name"],
            error(check["max_error"]),
            error(check["mean_error"]),
            error(check["bound"]),
            error(check["eager"]),
            percent(check["varies"]),
            "passed" if check["max_error"] <= check["bound"] else "failed",
        ]
        for check in verification["outputs"]
    ]
    text = (
        f"Against the masked model in float64, on {verification['samples']} random or given batches. The unit is the "
        "output's standard deviation over inputs; the bound is the tolerance "
        f"{error(verification['tolerance'])}, or three times the error that the model makes in its own precision."
    )
    return section(
        "exactness", "Exactness", paragraph(text), table("Errors of every output", _COLUMNS, rows), *_states(data)
    )


def _states(data: PageData) -> list[Html]:
    lines = [*state_lines(data.report.get("states")), *size_lines(data.report["engine"])]
    return [element("ul", *(element("li", line.strip()) for line in lines))] if lines else []
