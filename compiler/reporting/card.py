"""A model card: YAML metadata as model hubs read it, the report's figures, and how to load the bundle."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from .data import PageData
from .numbers import error, many, milliseconds, share_of, size


def model_card(data: PageData) -> str:
    """Markdown with YAML metadata in front. What was not measured is not in it."""
    metadata = {
        "library_name": "sparsefx",
        "tags": ["sparse", "pruning", "sparsefx", *(["onnx"] if "onnxruntime" in data.settings["target"] else [])],
        "sparsefx": figures(data),
    }
    return "\n".join(["---", *_yaml(metadata), "---", "", *_body(data), ""])


def figures(data: PageData) -> dict[str, Any]:
    """The report's figures as the metadata has them: plain numbers, nothing rounded."""
    report = data.report
    found: dict[str, Any] = {
        "model": report["model"],
        "target": data.settings["target"],
        "precision": data.settings["precision"],
        **{key: report["totals"][key] for key in _TOTALS},
    }
    if data.file_bytes is not None:
        found["file_bytes"] = data.file_bytes
    if masks := report.get("masks"):
        found["masks"] = {key: masks[key] for key in ("method", "step", "density")}
    if report["verification"] is not None:
        outputs = report["verification"]["outputs"]
        found["exactness"] = [{key: check[key] for key in ("name", "max_error", "bound")} for check in outputs]
    if (latency := report.get("latency")) and latency["engines"]:
        found["latency"] = {"device": latency["device"], "threads": latency["threads"], "sizes": dict(latency["sizes"])}
        for engine in latency["engines"]:
            found["latency"][engine["name"]] = {key: engine[key] for key in _TIMES}
    if evaluation := report.get("evaluation"):
        found["evaluation"] = {kind: dict(results) for kind, results in evaluation["results"].items()}
    return found


SIGNATURE = "Compiled by sparsefx"  # tells a card from somebody's own README
_TIMES = ("median_ms", "p99_ms", "spread_ms", "ratio")
_TOTALS = ("parameters_before", "parameters_after", "macs_before", "macs_after")


def _body(data: PageData) -> list[str]:
    totals, report = data.report["totals"], data.report
    lines = [
        f"# {_plain(data.name)}",
        "",
        f"{SIGNATURE}: the channels that the masks make useless are gone, and the engine computes the same "
        "function as the masked model.",
        "",
        "| | before | after | |",
        "|---|---|---|---|",
        _row("Parameters", totals["parameters_before"], totals["parameters_after"]),
        _row("Multiply-accumulates of one sample", totals["macs_before"], totals["macs_after"]),
    ]
    latency = report.get("latency")
    if latency and latency["engines"]:
        lines.append(_latency(latency))
    if data.file_bytes is not None:
        lines.append(f"| Engine file | | {size(data.file_bytes)} | |")
    return [*lines, "", *_exactness(report["verification"]), *_evaluation(report.get("evaluation")), *_loading(data)]


def _row(name: str, before: int, after: int) -> str:
    return f"| {name} | {before} | {after} | {share_of(after, before)} |"


def _latency(latency: Mapping[str, Any]) -> str:
    where = ", ".join(["Latency", many(latency["threads"], "thread"), _plain(latency["device"])])
    times = [f"{milliseconds(e['median_ms'])} (middle half {milliseconds(e['spread_ms'])})" for e in latency["engines"]]
    return f"| {where} | {' | '.join(times)} | {latency['engines'][1]['ratio']:.3f}x |"


def _exactness(verification: Mapping[str, Any] | None) -> list[str]:
    if verification is None:
        return ["Not verified.", ""]
    lines = [
        f"- output {_plain(check['name'])}: largest error {error(check['max_error'])}, bound {error(check['bound'])}, "
        "in standard deviations of the output over inputs"
        for check in verification["outputs"]
    ]
    return [f"Verified against the masked model in float64, on {verification['samples']} batches:", "", *lines, ""]


def _evaluation(evaluation: Mapping[str, Any] | None) -> list[str]:
    if evaluation is None or not evaluation["results"]:
        return []
    results = evaluation["results"]
    names = dict.fromkeys(name for found in results.values() for name in found)
    rows = [
        f"| {_plain(name)} | " + " | ".join(f"{f[name]:.6g}" if name in f else "" for f in results.values()) + " |"
        for name in names
    ]
    return ["| Evaluation | " + " | ".join(results) + " |", "|---" * (len(results) + 1) + "|", *rows, "",
            *(f"Note: {_plain(note)}" for note in evaluation["notes"]), *[""] * bool(evaluation["notes"])]  # fmt: skip


def _loading(data: PageData) -> list[str]:
    if data.file_bytes is None:
        return []
    return [
        "## How to load it",
        "",
        "```python",
        "import sparsefx",
        "",
        f"engine = sparsefx.load({json.dumps(data.name if data.name.endswith('.sfx') else 'model.sfx')})",
        "y = engine(x)  # torch in, torch out; NumPy in, NumPy out",
        "```",
    ]


def _plain(text: str) -> str:
    """Text that Markdown takes as it is, in a table's cell too."""
    return "".join(f"\\{c}" if c in "\\`*_{}[]<>|#" else c for c in text.replace("\n", " "))


def _yaml(value: Mapping[str, Any], indent: str = "") -> list[str]:
    """A mapping as YAML in blocks; what is no mapping stands in a line."""
    lines = []
    for key, item in value.items():
        if isinstance(item, Mapping) and item:
            lines += [f"{indent}{_key(key)}:", *_yaml(item, indent + "  ")]
        else:
            lines.append(f"{indent}{_key(key)}: {_inline(item)}")
    return lines


def _inline(value: Any) -> str:
    """JSON, which is YAML too, but for texts that cannot be printed, and numbers that YAML 1.1 takes for texts."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_key(key)}: {_inline(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_inline, value)) + "]"
    if isinstance(value, str):
        return json.dumps("".join(c for c in value if c.isprintable()), ensure_ascii=False)
    text = json.dumps(value)
    return text.replace("e", ".0e") if isinstance(value, float) and "." not in text else text


def _key(key: str) -> str:
    return key if key.isidentifier() and key.isascii() and key.lower() not in _WORDS else _inline(key)


_WORDS = ("y", "n", "yes", "no", "on", "off", "true", "false", "null")  # YAML 1.1 takes them for something else
