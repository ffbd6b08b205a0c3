"""The user's own evaluation: dense, masked and compiled."""

from __future__ import annotations

from ..data import PageData
from ..markup import Html, element
from ..tables import Column, table
from .section import missing, section

_KINDS = ("dense", "masked", "compiled")


def evaluation(data: PageData) -> Html:
    found = data.report.get("evaluation")
    if found is None:
        text = "Not evaluated on data of yours. A function from a model to a number, or a dict of numbers, does it:"
        return section("evaluation", "Evaluation", missing(text, "sparsefx.compile(..., evaluate=accuracy)"))
    results, kinds = found["results"], [kind for kind in _KINDS if kind in found["results"]]
    names = list(dict.fromkeys(name for kind in kinds for name in results[kind]))
    rows = [[name, *(_figure(results[kind].get(name)) for kind in kinds)] for name in names]
    columns = [Column("Figure"), *(Column(kind, number=True) for kind in kinds)]
    notes = [element("li", note) for note in found["notes"]]
    content = [table("What the evaluation returned", columns, rows)] if rows else []
    return section("evaluation", "Evaluation", *content, element("ul", *notes) if notes else None)


def _figure(value: float | None) -> str:
    return "—" if value is None else f"{value:.6g}"
