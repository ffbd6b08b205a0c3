"""The page as a whole: its sections in order, its style, and nothing from anywhere else."""

from __future__ import annotations

from pathlib import Path

from .data import PageData
from .markup import Html, element, join, void
from .sections.channels import channels
from .sections.curves import staircases, training
from .sections.decisions import decisions
from .sections.density import density
from .sections.evaluation import evaluation
from .sections.exactness import exactness
from .sections.latency import latency
from .sections.making import making, notes
from .sections.network import network
from .sections.summary import summary

_STYLE = Path(__file__).with_name("style.css")
_CONTENT_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"

SECTIONS = {
    "summary": ("Summary", summary),
    "exactness": ("Exactness", exactness),
    "evaluation": ("Evaluation", evaluation),
    "latency": ("Latency", latency),
    "network": ("Network", network),
    "channels": ("Channels", channels),
    "density": ("Density", density),
    "decisions": ("Decisions", decisions),
    "staircases": ("Staircases", staircases),
    "training": ("Training", training),
    "notes": ("Notes", notes),
    "making": ("Making", making),
}


def report_page(data: PageData) -> str:
    """One HTML document that asks no other for anything: no scripts, no pictures, no fonts, no network."""
    title = f"{data.name}: sparsefx report"
    head = element(
        "head",
        void("meta", charset="utf-8"),
        void("meta", name="viewport", content="width=device-width, initial-scale=1"),
        void("meta", name="color-scheme", content="light dark"),
        Html(f'<meta http-equiv="Content-Security-Policy" content="{_CONTENT_POLICY}"/>'),
        element("title", title),
        element("style", Html(_STYLE.read_text())),
    )
    links = [element("li", element("a", name, href=f"#{key}")) for key, (name, _) in SECTIONS.items()]
    body = element(
        "body",
        element("header", element("p", "sparsefx report", class_="kind"), element("h1", data.name)),
        element("nav", element("ul", *links), aria_label="Sections"),
        element("main", *(draw(data) for _, draw in SECTIONS.values())),
    )
    return "<!DOCTYPE html>\n" + join(element("html", head, body, lang="en")) + "\n"
