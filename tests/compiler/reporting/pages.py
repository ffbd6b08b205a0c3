"""Pages that the tests share: of reports made up, large ones and empty ones among them."""

from __future__ import annotations

from typing import Any

from sparsefx.compiler.reporting.charts import Chart, Line, Mark
from sparsefx.compiler.reporting.data import PageData

HOSTILE = "<script>alert('x')</script> & \"quotes\" `|` ${a} 日本語"
LONG = "encoder.layers.encoder_layer_11.self_attention." + "very_long_name_without_a_break" * 4


def layer(name: str, before: int = 64, after: int | None = 32, **changes: Any) -> dict[str, Any]:
    """A convolution with 3x3 windows that reads 16 channels; None after: it is gone."""
    found: dict[str, Any] = {
        "name": name,
        "node": "conv2d",
        "operator": "conv2d",
        "shape_before": (before, 16, 3, 3),
        "shape_after": None if after is None else (after, 16, 3, 3),
        "parameters_before": before * 144,
        "parameters_after": (after or 0) * 144,
        "macs_before": before * 144 * 49,
        "macs_after": (after or 0) * 144 * 49,
        "outputs_before": before,
        "nonzeros_before": before * 36,
        "nonzeros_after": (after or 0) * 72,
        "kept_outputs": tuple(range(after or 0)),
        "kept_inputs": tuple(range(16)),
        "stays": {},
    }
    return found | changes


def report(layers: list[dict[str, Any]], **changes: Any) -> dict[str, Any]:
    """A report on these layers with nothing measured."""
    totals = {
        f"{what}_{when}": sum(x[f"{what}_{when}"] for x in layers)
        for what in ("parameters", "macs")
        for when in ("before", "after")
    }
    totals |= {
        "channels_before": sum(x["outputs_before"] for x in layers),
        "channels_after": sum(len(x["kept_outputs"]) for x in layers),
    }
    empty = {
        "model": "Net",
        "layers": layers,
        "totals": totals,
        "unknown_operators": {},
        "steps": [],
        "groups": [],
        "engine_layers": [x["name"] for x in layers if x["shape_after"]],
        "notes": [],
        "seconds": {},
        "engine": {},
        "states": {},
        **dict.fromkeys(("choice", "widths", "thinner", "verification", "masks", "latency", "evaluation")),
    }
    return empty | changes


def page(found: dict[str, Any], **changes: Any) -> PageData:
    settings = {"target": "onnxruntime:cpu", "precision": "fp32", "threads": 2}
    return PageData(found, settings, **{"name": "A network", "file_bytes": 123_456, **changes})


def nothing() -> PageData:
    """A page of a model without layers, where nothing was measured."""
    return page(report([]), file_bytes=None)


def everything(layers: int = 8) -> PageData:
    """A page with all there can be, some names of which mean harm."""
    names = [HOSTILE, LONG, *(f"layer{i}.conv" for i in range(layers - 2))]
    rows = [layer(name, 64 * (1 + i % 7), None if i == 3 else 32 * (1 + i % 7)) for i, name in enumerate(names)]
    rows[0]["stays"] = {f"tied to {HOSTILE}": 5}
    found = report(
        rows,
        unknown_operators={"custom::op": [f"node_{i}" for i in range(9)]},
        steps=[{"name": "RemoveChannels", "modified": True, "seconds": 0.25}],
        groups=[{"producers": names, "consumers": names[1:], "channels": 32, "pinned": ["an output of the model"]}],
        notes=[HOSTILE, "a second note"],
        seconds={"capture": 1.5},
        states={"built": {"done": True, "detail": ""}, "ran": {"done": False, "detail": "no device"}},
        choice=_choice(names),
        widths=_widths(names),
        thinner=_thinner(names),
        verification=_verification(),
        masks={"method": "SRigL", "step": 700, "settings": {"sparsity": 0.9}, "parameters": 8, "density": 0.1},
        latency=_latency(rows),
        evaluation={
            "results": {"dense": {"top-1": 0.7613}, "masked": {"top-1": 0.7521}, "compiled": {"top-1": 0.7522}},
            "notes": [HOSTILE],
        },
    )
    lines = (Line("a", [1, 2, 3], [0.5, None, 0.7]), Line("b", [1, 2, 3], [0.1, 0.2, float("nan")]))
    marks = (Mark("before: 3", 3), Mark("after: 2", 2))
    charts = [Chart(HOSTILE if i == 0 else f"Chart {i}", "step", "share", lines, marks) for i in range(9)]
    return page(
        found, name=HOSTILE, created="2026-01-02T03:04:05+00:00", versions={"torch": "2.13.0"},
        staircases=tuple(charts), training=tuple(charts[:3]),
    )  # fmt: skip


def _verification() -> dict[str, Any]:
    good = {"max_error": 1.2e-6, "mean_error": 1e-7, "eager": 2e-6, "bound": 1e-4, "scale": 0.5, "varies": 0.9}
    return {"samples": 5, "tolerance": 1e-4, "outputs": [{"name": "logits", **good}, {"name": HOSTILE, **good}]}


def _choice(names: list[str]) -> dict[str, Any]:
    row = {"layer": names[0], "density": 0.1, "representation": "condensed", "dense_us": 80.0, "condensed_us": 21.5}
    other = {"layer": names[2], "density": 0.2, "representation": "dense", "dense_us": None, "condensed_us": None}
    whole = {"asked": "measured", "threads": 2, "processor": "a processor", "dense_ms": 9.5, "chosen_ms": 7.25}
    return {**whole, "layers": [row, other], "notes": ["a note on the choice"]}


def _widths(names: list[str]) -> dict[str, Any]:
    group = {"layers": names[:3], "exact": 27, "kept": 32, "exact_ms": None, "kept_ms": None}
    return {"taken": False, "groups": [group], "exact_ms": 7.0, "kept_ms": 7.5}


def _thinner(names: list[str]) -> dict[str, Any]:
    one = {"layer": names[4], "side": "inputs", "full": 64, "kept": 48, "taken": True}
    return {
        "taken": True,
        "layers": [{**one, "full_ms": 0.5, "thin_ms": 0.4, "moving_ms": 0.05}],
        "full_ms": 7.3,
        "thin_ms": 7.1,
    }


def _latency(rows: list[dict[str, Any]]) -> dict[str, Any]:
    times = [
        {"name": x["name"], "dense_ms": 0.1 * (i + 1), "compiled_ms": None if x["shape_after"] is None else 0.03}
        for i, x in enumerate(rows)
    ]
    engine = {"median_ms": 9.0, "p99_ms": 9.9, "spread_ms": 0.2, "runs": 321, "ratio": 1.0, "file_bytes": 234_567}
    return {
        "engines": [{"name": "dense", **engine}, {"name": "compiled", **engine, "median_ms": 6.0, "ratio": 0.667}],
        "layers": times,
        "rest": {"name": "everything else", "dense_ms": 0.7, "compiled_ms": 0.9},
        "sizes": {"batch": 1},
        "threads": 2,
        "device": "a processor",
        "notes": [],
    }
