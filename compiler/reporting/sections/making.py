"""What else is to be known: notes, the passes, the time they took, versions."""

from __future__ import annotations

from ..data import PageData
from ..markup import Html, element
from ..tables import Column, folded, table
from .section import paragraph, section

_STEPS = (Column("Pass"), Column("Changed the graph"), Column("Seconds", number=True))
_STAGES = (Column("Stage"), Column("Seconds", number=True))
_VERSIONS = (Column("Software"), Column("Version"))


def notes(data: PageData) -> Html:
    found = data.report["notes"]
    content = element("ul", *(element("li", note) for note in found)) if found else paragraph("None.")
    return section("notes", "Notes", content)


def making(data: PageData) -> Html:
    stages = [[name, f"{seconds:.1f}"] for name, seconds in data.report["seconds"].items()]
    steps = [[s["name"], "yes" if s["modified"] else "no", f"{s['seconds']:.2f}"] for s in data.report["steps"]]
    versions = [[name, version] for name, version in data.versions.items()]
    return section(
        "making",
        "How it was made",
        table("Time of the compilation", _STAGES, stages) if stages else None,
        folded(f"{len(steps)} passes in order", table("Passes in order", _STEPS, steps), rows=len(steps), most=0)
        if steps
        else None,
        folded("Versions", table("Versions", _VERSIONS, versions), rows=1, most=0) if versions else None,
    )
