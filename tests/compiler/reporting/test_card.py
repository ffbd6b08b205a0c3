"""Model cards: metadata that a YAML reader understands, with the report's own figures."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sparsefx.compiler.reporting.card import figures, model_card
from sparsefx.compiler.reporting.data import PageData

from .pages import HOSTILE, everything, layer, nothing, page, report

yaml = pytest.importorskip("yaml", reason="metadata is read with PyYAML: not installed")


def metadata(data: PageData) -> dict[str, Any]:
    empty, front, _ = model_card(data).split("---\n", 2)
    assert empty == ""
    found: dict[str, Any] = yaml.safe_load(front)
    return found


@pytest.mark.parametrize("make", [everything, nothing])
def test_metadata_are_the_figures_of_the_report(make: Any) -> None:
    data = make()
    found = metadata(data)
    assert found["library_name"] == "sparsefx" and {"sparse", "sparsefx", "onnx"} <= set(found["tags"])
    assert found["sparsefx"] == json.loads(json.dumps(figures(data)))


def test_figures_are_not_rounded() -> None:
    data = everything()
    found = metadata(data)["sparsefx"]
    totals = data.report["totals"]
    wanted = {key: value for key, value in totals.items() if "channels" not in key}
    assert {key: found[key] for key in totals if key in found} == wanted
    assert found["exactness"][1] == {"name": HOSTILE, "max_error": 1.2e-6, "bound": 1e-4}
    assert found["latency"]["compiled"] == {"median_ms": 6.0, "p99_ms": 9.9, "spread_ms": 0.2, "ratio": 0.667}
    assert found["evaluation"] == data.report["evaluation"]["results"]
    assert found["masks"] == {"method": "SRigL", "step": 700, "density": 0.1}
    assert found["file_bytes"] == 123_456


def test_what_was_not_measured_is_not_in_it() -> None:
    assert not {"latency", "evaluation", "exactness", "masks", "file_bytes"} & metadata(nothing())["sparsefx"].keys()
    card = model_card(nothing())
    assert "Latency" not in card and "sparsefx.load" not in card and "Not verified." in card


@pytest.mark.parametrize("value", [1e-06, 1e16, 1.5e-07, 0.1, 3, -2.0, 123456789.25])
def test_numbers_are_numbers_to_yaml_1_1(value: float) -> None:
    data = page(report([layer("a")], evaluation={"results": {"compiled": {"figure": value}}, "notes": []}))
    found = metadata(data)["sparsefx"]["evaluation"]["compiled"]["figure"]
    assert found == value and isinstance(found, type(value))


NAMES = ["no", "Yes", "null", "a: b", "- x", "#1", "top-1", "1", "", "日本", "tab\tand\x07bell"]


@pytest.mark.parametrize("name", NAMES)
def test_any_name_of_a_figure_is_a_text_to_yaml(name: str) -> None:
    data = page(report([layer("a")], evaluation={"results": {"compiled": {name: 1.0}}, "notes": []}))
    expected = "".join(c for c in name if c.isprintable())
    assert metadata(data)["sparsefx"]["evaluation"]["compiled"] == {expected: 1.0}


def test_the_text_says_the_same_and_how_to_load() -> None:
    data = everything()
    body = model_card(data).split("---\n", 2)[2]
    totals = data.report["totals"]
    assert f"| Parameters | {totals['parameters_before']} | {totals['parameters_after']} |" in body
    assert "| 9 ms (middle half 0.2 ms) | 6 ms (middle half 0.2 ms) | 0.667x |" in body
    assert "largest error 1.2e-06, bound 1.0e-04" in body
    assert "| top-1 | 0.7613 | 0.7521 | 0.7522 |" in body
    assert 'engine = sparsefx.load("model.sfx")' in body
    assert "<" not in body.replace("\\<", "")
