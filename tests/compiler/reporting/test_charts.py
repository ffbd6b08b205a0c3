"""Line charts: ticks, scales, gaps, and the table that says the same."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Any
from xml.etree import ElementTree

import pytest

from sparsefx.compiler.reporting.charts import Chart, Line, Mark, chart_figure, ticks


def drawn(*lines: Line, **changes: Any) -> Any:
    return ElementTree.fromstring(chart_figure(Chart("Title", "step", "share", lines, **changes), "key"))


@pytest.mark.parametrize(
    ("low", "high"), [(0, 1), (0, 100), (3, 2048), (-5, 5), (0.731, 0.764), (1e-4, 3e-4), (0, 7e6), (999, 1001)]
)
def test_ticks_are_round_few_and_inside(low: float, high: float) -> None:
    found = ticks(low, high)
    assert 2 <= len(found) <= 5
    assert low - 1e-9 <= found[0] and found[-1] <= high + 1e-9
    steps = {round((b - a) / (found[1] - found[0]), 6) for a, b in pairwise(found)}
    assert steps == {1.0}
    assert re.fullmatch(r"(1|2|2\.5|5)(0*)", f"{float(f'{found[1] - found[0]:e}'.split('e')[0]):g}")


@pytest.mark.parametrize(("low", "high"), [(1, 2), (1, 3), (1, 10), (10, 180), (0, 999)])
def test_what_is_counted_has_whole_ticks(low: float, high: float) -> None:
    found = ticks(low, high, whole=True)
    assert 1 <= len(found) <= 5 and all(tick == int(tick) for tick in found)


def test_a_higher_value_stands_higher_and_a_later_one_to_the_right() -> None:
    path = drawn(Line("a", [1, 2, 3], [0.2, 0.8, 0.5])).find(".//path").get("d")
    places = [tuple(map(float, p.split())) for p in re.findall(r"[ML]([\d. ]+)", path)]
    assert [x for x, _ in places] == sorted(x for x, _ in places)
    assert places[1][1] < places[2][1] < places[0][1]


def test_what_is_unknown_is_a_gap() -> None:
    path = drawn(Line("a", [1, 2, 3, 4], [0.2, None, float("nan"), 0.5])).find(".//path").get("d")
    assert path.count("M") == 2 and "L" not in path


def test_steps_run_level() -> None:
    path = drawn(Line("a", [1, 2, 3], [1.0, 2.0, 3.0]), steps=True).find(".//path").get("d")
    assert re.fullmatch(r"M\S+ \S+(H\S+V\S+?){2}", path)


@pytest.mark.parametrize("values", [[0.5], [0.5, 0.5], [0.0, 0.0], [1.0, 1.0], [-3.0, -3.0]])
def test_constants_and_single_points_are_drawn(values: list[float]) -> None:
    found = drawn(Line("a", list(range(len(values))), values), percent=True)
    assert "nan" not in ElementTree.tostring(found, encoding="unicode")
    for circle in found.iter("circle"):
        assert 0 <= float(circle.get("cx")) <= 340 and 0 <= float(circle.get("cy")) <= 190


def test_a_chart_without_points_says_so() -> None:
    found = drawn(Line("a", [1, 2], [None, None]))
    assert found.find("svg") is None and "Nothing happened yet." in "".join(found.itertext())


def test_shares_stay_below_all_of_it() -> None:
    found = drawn(Line("a", [1, 2], [0.98, 1.0]), percent=True)
    labels = [t.text for t in found.iter("text") if t.text.endswith("%")]
    assert max(float(label.rstrip("%")) for label in labels) == 100


def test_the_table_has_the_figures_and_not_too_many() -> None:
    line, other = Line("a", range(1000), [i / 1000 for i in range(1000)]), Line("b", [999], [0.25])
    rows = drawn(line, other).findall(".//tbody/tr")
    assert 20 <= len(rows) <= 26
    assert ["".join(cell.itertext()) for cell in rows[-1]] == ["999", "0.999", "0.25"]
    assert ["".join(cell.itertext()) for cell in rows[0]] == ["0", "0", ""]


def test_marks_are_drawn_inside_and_named() -> None:
    found = drawn(Line("a", [1, 9], [1.0, 2.0]), marks=(Mark("before: 12", 12), Mark("after: 3", 3)))
    marks = [line for line in found.iter("line") if "mark" in line.get("class")]
    assert len(marks) == 2 and all(46 <= float(m.get("x1")) <= 330 for m in marks)
    assert [li[0].tail for li in found.find("ul")] == ["a", "before: 12", "after: 3"]
    assert "1 at 1, 2 at 9" in found.find(".//desc").text
