"""Pages in Chromium: narrow and wide, light and dark, with as much on them as there can be."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from sparsefx.compiler.reporting.data import PageData
from sparsefx.compiler.reporting.page import SECTIONS, report_page
from tests.browser import browser, shown

from .pages import HOSTILE, everything, nothing

PAGES = {"everything": everything, "large": lambda: everything(140), "nothing": nothing}
LEAST_CONTRAST = 4.5  # of text (WCAG 2, level AA)

_CONTRAST = """() => {
  const luminance = (c) => {
    const [r, g, b] = c.match(/[\\d.]+/g).slice(0, 3).map(Number).map((v) => v / 255)
      .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (e) => {
    for (; e; e = e.parentElement) {
      const c = getComputedStyle(e).backgroundColor;
      if (!c.endsWith(", 0)") && c !== "transparent") return c;
    }
    return getComputedStyle(document.body).backgroundColor;
  };
  const found = [];
  for (const e of document.querySelectorAll("body *")) {
    if (![...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim())) continue;
    if (!e.getClientRects().length) continue;
    const style = getComputedStyle(e), svg = e.namespaceURI.endsWith("svg");
    if (svg && e.tagName !== "text") continue;
    const [a, b] = [luminance(svg ? style.fill : style.color), luminance(behind(e))].sort((x, y) => y - x);
    found.push([(a + 0.05) / (b + 0.05), e.tagName, e.textContent.trim().slice(0, 30)]);
  }
  return found.sort((x, y) => x[0] - y[0])[0];
}"""


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with browser() as opened:
        yield opened


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    return {name: _written(folder / f"{name}.html", make()) for name, make in PAGES.items()}


def _written(file: Path, data: PageData) -> Path:
    file.write_text(report_page(data), encoding="utf-8")
    return file


@pytest.mark.parametrize(
    ("name", "width", "scheme"),
    [
        *(("everything", width, scheme) for width in (360, 1400) for scheme in ("light", "dark")),
        ("large", 360, "dark"),
        ("large", 1400, "light"),
        ("nothing", 360, "light"),
        ("nothing", 1400, "dark"),
    ],
)
def test_pages_fit_are_silent_and_can_be_read(
    name: str, width: int, scheme: str, chromium: Any, files: dict[str, Path]
) -> None:
    with shown(chromium, files[name], width=width, scheme=scheme) as found:
        for details in found.page.query_selector_all("details"):
            details.evaluate("e => { e.open = true }")
        assert found.overflow == 0
        for key in SECTIONS:
            assert found.page.locator(f"section#{key} > h2").is_visible()
        contrast, tag, text = found.page.evaluate(_CONTRAST)
        assert contrast >= LEAST_CONTRAST, (tag, text)
        assert found.complaints == [] and found.requests == []


def test_pages_fit_at_widths_between(chromium: Any, files: dict[str, Path]) -> None:
    with shown(chromium, files["everything"]) as found:
        for width in (320, 600, 768, 961, 1100, 2000):
            found.page.set_viewport_size({"width": width, "height": 900})
            assert found.overflow == 0, width


def test_light_and_dark_differ(chromium: Any, files: dict[str, Path]) -> None:
    papers = []
    for scheme in ("light", "dark"):
        with shown(chromium, files["everything"], scheme=scheme) as found:
            papers.append(found.page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert papers == ["rgb(255, 255, 255)", "rgb(20, 24, 29)"]


def test_nothing_in_a_table_is_cut_off(chromium: Any, files: dict[str, Path]) -> None:
    for width in (360, 1400):
        with shown(chromium, files["everything"], width=width) as found:
            cut = found.page.evaluate(
                "[...document.querySelectorAll('td, th, dd, figcaption')].filter(e => e.getClientRects().length && "
                "e.scrollWidth > e.clientWidth + 1 && e.closest('thead') === null).map(e => e.textContent)"
            )
            assert cut == []


def test_names_do_no_harm_and_headings_tell_where_one_is(chromium: Any, files: dict[str, Path]) -> None:
    with shown(chromium, files["everything"]) as found:
        assert found.page.locator("h1").inner_text() == HOSTILE
        assert found.page.evaluate("document.scripts.length") == 0
        levels = found.page.evaluate("[...document.querySelectorAll('h1, h2, h3')].map(e => Number(e.tagName[1]))")
        assert levels[0] == 1 and all(b - a <= 1 for a, b in pairwise(levels))
        first = found.page.get_by_role("img", name="Widths of the network")
        assert first.is_visible()
        tables = found.page.get_by_role("table").count()
    with shown(chromium, files["everything"], width=360) as found:
        assert found.page.get_by_role("table").count() == tables, "tables drawn as cards are tables still"
