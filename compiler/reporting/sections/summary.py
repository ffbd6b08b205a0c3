"""The first screen: size, work, latency, exactness, evaluation, each in one figure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..data import PageData
from ..markup import Html, element, join
from ..numbers import TIMES, count, error, many, milliseconds, percent, share_of, size
from .section import section


def summary(data: PageData) -> Html:
    totals = data.report["totals"]
    cards = [
        _change("Multiply-accumulates", totals["macs_before"], totals["macs_after"], "of one sample"),
        _change("Parameters", totals["parameters_before"], totals["parameters_after"], "numbers that the graph holds"),
        _file(data),
        _latency(data.report.get("latency")),
        _exactness(data.report["verification"]),
        _evaluation(data.report.get("evaluation")),
    ]
    return section("summary", "Summary", element("dl", *cards, class_="cards"), _facts(data))


def _card(name: str, figure: str, *lines: str, good: bool = True) -> Html:
    more = [element("dd", line, class_="more") for line in lines]
    return element("div", element("dt", name), element("dd", figure, class_="figure" if good else "no"), *more)


def _change(name: str, before: int, after: int, what: str) -> Html:
    return _card(name, share_of(after, before), f"{count(before)} → {count(after)}, {what}")


def _file(data: PageData) -> Html:
    engines = {engine["name"]: engine for engine in (data.report.get("latency") or {}).get("engines", ())}
    if data.file_bytes is None:
        return _card("Engine file", "no engine", "the target torch stops at the graph", good=False)
    if "dense" in engines:
        before = engines["dense"]["file_bytes"]
        return _card("Engine file", share_of(data.file_bytes, before), f"{size(before)} → {size(data.file_bytes)}")
    return _card("Engine file", size(data.file_bytes), "the dense engine's was not measured")


def _latency(latency: Mapping[str, Any] | None) -> Html:
    if latency is None or not latency["engines"]:
        return _card("Latency", "not measured", "see Latency", good=False)
    dense, compiled = latency["engines"]
    return _card(
        "Latency",
        f"{1 / compiled['ratio']:.2f}{TIMES} as fast",
        f"{milliseconds(dense['median_ms'])} → {milliseconds(compiled['median_ms'])} in the median",
        f"middle half of the runs within {milliseconds(dense['spread_ms'])} and {milliseconds(compiled['spread_ms'])}",
    )


def _exactness(verification: Mapping[str, Any] | None) -> Html:
    if verification is None:
        return _card("Exactness", "not verified", "compile without verify=False", good=False)
    worst = max(verification["outputs"], key=lambda check: check["max_error"] / check["bound"])
    passed = all(check["max_error"] <= check["bound"] for check in verification["outputs"])
    return _card(
        "Exactness",
        "passed" if passed else "failed",
        f"largest error {error(worst['max_error'])}, bound {error(worst['bound'])}",
        f"in standard deviations of the output, {many(verification['samples'], 'sample')}",
        good=passed,
    )


def _evaluation(evaluation: Mapping[str, Any] | None) -> Html:
    if evaluation is None or not evaluation["results"]:
        return _card("Your evaluation", "not given", "compile(..., evaluate=...)", good=False)
    results = evaluation["results"]
    name = next(iter(next(iter(results.values()))))
    figures = [f"{kind} {found[name]:.4g}" for kind, found in results.items() if name in found]
    last = results.get("compiled", {}).get(name)
    return _card(name, "not evaluated" if last is None else f"{last:.4g}", ", ".join(figures), good=last is not None)


def _facts(data: PageData) -> Html:
    settings, latency = data.settings, data.report.get("latency")
    threads = settings.get("threads")
    facts = {
        "Model": data.report["model"],
        "Target": f"{settings['target']}, {settings['precision']}",
        "Threads": "all available" if threads is None else str(threads),
        "Measured on": latency["device"] if latency else None,
        "Masks": _masks(data.report.get("masks")),
        "Made": data.created,
    }
    pairs = [join(element("dt", name), element("dd", text)) for name, text in facts.items() if text]
    return element("dl", *pairs, class_="facts")


def _masks(masks: Mapping[str, Any] | None) -> str | None:
    if masks is None:
        return "the zeros in the weights"
    step = "" if masks["step"] is None else f", step {masks['step']}"
    return (
        f"method {masks['method']}{step}: {percent(masks['density'])} of the weights in "
        f"{many(masks['parameters'], 'tensor')} are left"
    )
