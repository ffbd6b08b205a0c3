"""The page as a document: well formed, complete, its figures those of the report, and nothing asked of anybody."""

from __future__ import annotations

import re
from typing import Any
from xml.etree import ElementTree

import pytest

from sparsefx.compiler.reporting.data import PageData
from sparsefx.compiler.reporting.page import SECTIONS, report_page

from .pages import HOSTILE, LONG, everything, layer, nothing, page, report

PAGES = {"everything": everything, "nothing": nothing, "plain": lambda: page(report([layer("conv1"), layer("conv2")]))}


def tree(data: PageData) -> Any:
    return ElementTree.fromstring(report_page(data).removeprefix("<!DOCTYPE html>\n"))


def text_of(data: PageData, section: str) -> str:
    """All words of a section."""
    return " ".join(" ".join(tree(data).find(f".//section[@id='{section}']").itertext()).split())


@pytest.mark.parametrize("name", PAGES)
def test_pages_are_well_formed_and_have_every_section(name: str) -> None:
    root = tree(PAGES[name]())
    assert [found.get("id") for found in root.iter("section")] == list(SECTIONS)
    assert [a.get("href") for a in root.find(".//nav").iter("a")] == [f"#{key}" for key in SECTIONS]
    ids = [element.get("id") for element in root.iter() if element.get("id")]
    assert len(ids) == len(set(ids))
    for element in root.iter():
        for key in (element.get("aria-labelledby") or "").split():
            assert key in ids


@pytest.mark.parametrize("name", PAGES)
def test_pages_ask_nobody_for_anything(name: str) -> None:
    text = report_page(PAGES[name]())
    root = tree(PAGES[name]())
    assert not [e.tag for e in root.iter() if e.tag in ("script", "link", "img", "iframe", "object", "base")]
    assert not [e for e in root.iter() for key in e.attrib if key == "src" or key.startswith("on")]
    assert not re.search(r"url\(|@import|https?:", text)


@pytest.mark.parametrize("name", PAGES)
def test_there_is_no_chart_without_points_and_no_table_without_rows(name: str) -> None:
    root = tree(PAGES[name]())
    for svg in root.iter("svg"):
        assert svg.find(".//rect[@class='before']") is not None or svg.find(".//path").get("d")
        assert svg.find("title").text and svg.find("desc").text
    for body in root.iter("tbody"):
        assert len(body)


def test_names_are_text_wherever_they_stand() -> None:
    text = report_page(everything())
    assert "<script" not in text and "&lt;script&gt;" in text
    root = tree(everything())
    assert root.find(".//h1").text == HOSTILE == root.find(".//title").text.removesuffix(": sparsefx report")
    headings = [th.text for th in root.find(".//section[@id='network']").iter("th") if th.get("scope") == "row"]
    assert headings[:2] == [HOSTILE, LONG]


def test_the_figures_of_the_report_stand_on_the_page() -> None:
    data = everything()
    totals = data.report["totals"]
    summary = text_of(data, "summary")
    for what in ("macs", "parameters"):
        assert f"{totals[f'{what}_after'] / totals[f'{what}_before']:.1%}" in summary
    for found in ("1.50\u00d7 as fast", "9 ms → 6 ms", "passed", "0.7522", "SRigL, step 700", "229.1 KiB → 120.6 KiB"):
        assert found in summary
    assert "1.2e-06" in text_of(data, "exactness") and "not done here: ran (no device)" in text_of(data, "exactness")
    assert "0.7613 0.7521 0.7522" in text_of(data, "evaluation")
    latency = text_of(data, "latency")
    for found in ("321", "0.1 ms 30 µs condensed", "0.5 ms 30 µs dense, 48 of 64 inputs", "0.6 ms 30 µs dense layer4"):
        assert found in latency
    assert "0.4 ms gone" in latency and latency.endswith("everything else 0.7 ms 0.9 ms")
    channels = text_of(data, "channels")
    assert "custom::op 9 node_0" in channels and "and 3 more" in channels and "an output of the model" in channels
    assert "25.0% 50.0%" in text_of(data, "density") and "25.0% gone" in text_of(data, "density")
    decisions = text_of(data, "decisions")
    for found in ("7.25 ms, with all layers dense 9.5 ms", "not taken", "21.5 µs", "a note on the choice", "50 µs yes"):
        assert found in decisions
    assert "sparsity 0.9" in text_of(data, "training") and "a second note" in text_of(data, "notes")
    assert "torch 2.13.0" in text_of(data, "making")


def test_what_was_not_measured_is_said_to_be_so() -> None:
    data = page(report([layer("conv1")]))
    expected = {
        "summary": ("not measured", "not verified", "not given", "the zeros in the weights"),
        "exactness": ("Not verified",),
        "evaluation": ("Not evaluated", "evaluate="),
        "latency": ("Not measured", "compare=True", "--dense"),
        "decisions": ("No layer was sparse enough", 'widths="measured"', "latency_table="),
        "staircases": ("No latency table was given",),
        "training": ("No history of a training was given",),
        "notes": ("None.",),
    }
    for section, texts in expected.items():
        for text in texts:
            assert text in text_of(data, section), (section, text)


def test_a_comparison_that_could_not_be_made_says_why() -> None:
    empty: dict[str, Any] = {"engines": [], "layers": [], "rest": None, "sizes": {}, "threads": None, "device": None}
    data = page(report([layer("conv1")], latency={**empty, "notes": ["no engine here"]}))
    assert "Not measured." in text_of(data, "latency") and "no engine here" in text_of(data, "latency")
    assert "not measured" in text_of(data, "summary")


def test_a_failed_verification_does_not_look_like_one_that_passed() -> None:
    check = {"name": "y", "max_error": 2e-3, "mean_error": 1e-3, "eager": 0.0, "bound": 1e-4, "scale": 1, "varies": 1}
    data = page(report([layer("conv1")], verification={"samples": 2, "tolerance": 1e-4, "outputs": [check]}))
    assert "failed" in text_of(data, "summary") and "passed" not in text_of(data, "summary")
    assert "failed" in text_of(data, "exactness")


def test_long_tables_are_folded() -> None:
    def folded(layers: int) -> list[bool]:
        sections = tree(page(report([layer(f"conv{i}") for i in range(layers)])))
        return [d.get("open") is None for d in sections.find(".//section[@id='network']").iter("details")]

    assert folded(40) == [False] and folded(41) == [True]
