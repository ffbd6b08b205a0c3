"""Charts that come with a page: staircases of a latency table, and what training did."""

from __future__ import annotations

from ..charts import Chart, chart_figure
from ..data import PageData
from ..markup import Html, element
from ..numbers import many
from .section import missing, paragraph, section

_TABLE = "sparsefx report model.sfx --latency-table model.latency -o report.html"
_RUN = "sparsefx report run/model.sfx --training run -o report.html"
_FIRST = 6  # staircases that stand open: those of the layers that take longest


def staircases(data: PageData) -> Html:
    title = "Staircases"
    if not data.staircases:
        text = "No latency table was given. One shows what every layer takes at other widths:"
        return section("staircases", title, missing(text, _TABLE))
    text = (
        "What layers take over their output channels, by the latency table, with all inputs and with those that are "
        "left; the layers that take longest first. Vertical lines: the output channels before and after."
    )
    first, more = data.staircases[:_FIRST], data.staircases[_FIRST:]
    content = [paragraph(text), _charts("staircase", first)]
    if more:
        rest = _charts("more", more)
        content.append(element("details", element("summary", many(len(more), "more layer")), rest))
    return section("staircases", title, *content)


def training(data: PageData) -> Html:
    title = "Training"
    masks = data.report.get("masks")
    how = None
    if masks is not None and masks["settings"]:
        settings = ", ".join(f"{name} {value}" for name, value in masks["settings"].items() if value not in (None, []))
        how = paragraph(f"The masks were made by {masks['method']}: {settings}.")
    if not data.training:
        text = "No history of a training was given. That of sparsefx train is in its folder:"
        return section("training", title, how, missing(text, _RUN))
    return section("training", title, how, _charts("training", data.training))


def _charts(key: str, charts: tuple[Chart, ...]) -> Html:
    return element("div", *(chart_figure(chart, f"{key}-{i}") for i, chart in enumerate(charts)), class_="charts")
