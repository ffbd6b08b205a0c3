"""A report, as plain data, in words for the terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from .reporting.numbers import many

_HEADER = ("layer", "operator", "weight before", "weight after", "MACs before", "MACs after", "useless but kept")


def report_text(report: Mapping[str, Any]) -> str:
    """A table of the layers that changed, totals, and what the reader should know; `report` as Report.to_dict."""
    layers = report["layers"]
    changed = [x for x in layers if x["shape_before"] != x["shape_after"] or x["stays"]]
    lines = [f"{report['model']}: {len(layers)} layers, {len(changed)} listed (changed, or with useless channels kept)"]
    lines += _table([_HEADER, *map(_row, changed)]) if changed else []
    lines += ["", *_totals(report["totals"])]
    reasons = Counter[str]()
    for layer in layers:
        reasons.update(layer["stays"])
    if reasons:
        lines += ["", "Channels that the masks made useless and that stay:"]
        lines += [f"  {count:6d}  {reason}" for reason, count in reasons.most_common()]
    for operator, nodes in report["unknown_operators"].items():
        lines.append(f"No rule for {operator} ({len(nodes)} calls): all channels it touches were kept")
    lines += [f"Note: {note}" for note in report["notes"]]
    lines += verification_lines(report["verification"])
    lines += state_lines(report.get("states"))
    lines += size_lines(report["engine"])
    lines += width_lines(report.get("widths"))
    lines += thin_lines(report.get("thinner"))
    lines += choice_lines(report.get("choice"))
    lines += latency_lines(report.get("latency"))
    lines += evaluation_lines(report.get("evaluation"))
    if report["seconds"]:
        lines.append("Time: " + ", ".join(f"{name} {seconds:.1f} s" for name, seconds in report["seconds"].items()))
    return "\n".join(lines)


def _row(layer: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        layer["name"],
        layer["operator"],
        shape_text(layer["shape_before"]),
        "gone" if layer["shape_after"] is None else shape_text(layer["shape_after"]),
        count_text(layer["macs_before"]),
        count_text(layer["macs_after"]),
        str(sum(layer["stays"].values()) or ""),
    )


def _table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    left = 2  # columns of words in front of those of numbers
    text = [
        "  ".join(
            c.ljust(w) if i < left else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    return [text[0], "-" * len(text[0]), *text[1:]]


def _totals(totals: Mapping[str, int]) -> list[str]:
    names = {
        "parameters": "parameters",
        "macs": "multiply-accumulates per sample",
        "channels": "output channels of layers",
    }
    return [_change(text, totals[f"{key}_before"], totals[f"{key}_after"]) for key, text in names.items()]


def _change(what: str, before: int, after: int) -> str:
    share = f" ({after / before:.1%})" if before else ""
    return f"{what}: {count_text(before)} -> {count_text(after)}{share}"


def verification_lines(verification: Mapping[str, Any] | None) -> list[str]:
    """What a verification found, a line per output."""
    if verification is None:
        return ["Not verified."]
    outputs = verification["outputs"]
    return [
        f"Verified on {verification['samples']} random or given batches: "
        + (f"output {check['name']!r}: " if len(outputs) > 1 else "")
        + f"largest error {check['max_error']:.1e}, mean {check['mean_error']:.1e} "
        f"(bound {check['bound']:.1e}, the model's own rounding {check['eager']:.1e}; "
        "unit: the output's standard deviation over inputs)"
        for check in outputs
    ]


def state_lines(states: Mapping[str, Mapping[str, Any]] | None) -> list[str]:
    """How far the engine came here: what was done, and, a line each, what was not and why."""
    if not states:
        return []
    done = [state for state, found in states.items() if found["done"]]
    missing: dict[str, list[str]] = {}
    for state, found in states.items():
        if not found["done"]:
            missing.setdefault(found["detail"], []).append(state)
    lines = [f"  not done here: {', '.join(names)} ({reason})" for reason, names in missing.items()]
    return [f"Engine: {', '.join(done) or 'nothing was done'}", *lines]


def size_lines(engine: Mapping[str, Any]) -> list[str]:
    """What an engine takes and for which sizes it was built, where its builder told."""
    if "engine_bytes" not in engine:
        return []
    memory = ", ".join(f"{what} {count_text(size)}B" for what, size in engine["memory"].items())
    sizes = [f"{name} {s['least']} to {s['most']} (tuned for {s['typical']})" for name, s in engine["sizes"].items()]
    sparse = engine["two_four"]
    use = "used" if sparse["sparse_tensor_cores"] else f"not used by {engine['builder']}"
    return [
        f"  file {count_text(engine['engine_bytes'])}B; on the device: {memory or 'not told'}",
        *([f"  sizes: {', '.join(sizes)}"] if sizes else []),
        *([f"  condensed layers run by {engine['condensed_layers']}"] if engine["condensed_layers"] else []),
        *([f"  2:4 sparse weights, {use}: {', '.join(sparse['layers'])}"] if sparse["layers"] else []),
    ]


def width_lines(widths: Mapping[str, Any] | None) -> list[str]:
    """Which channels that could go stay for speed, a line per group that shares them."""
    if widths is None or not widths["groups"]:
        return [] if widths is None else ["No layer would be faster wider."]
    rows = [("layers", "", "outputs needed", "outputs kept", "ms", "ms kept")]
    for group in widths["groups"]:
        first, more = group["layers"][0], len(group["layers"]) - 1
        times = ("" if group[key] is None else f"{group[key]:.3f}" for key in ("exact_ms", "kept_ms"))
        rows.append((first, f"and {more} more" if more else "", str(group["exact"]), str(group["kept"]), *times))
    outcome = "taken" if widths["taken"] else "not taken"
    by_table = widths["groups"][0]["kept_ms"] is not None
    of = " (the table's figures are of the layers that read or write a group)" if by_table else ""
    return [
        "",
        *_table(rows),
        f"Wider layers are {outcome}: the engine as a whole {widths['kept_ms']:.3f} ms with them, "
        f"{widths['exact_ms']:.3f} ms without{of}",
    ]


def thin_lines(thinner: Mapping[str, Any] | None) -> list[str]:
    """Which layers need fewer channels than they stand between, a line for each that was considered."""
    if thinner is None or not thinner["layers"]:
        return [] if thinner is None else ["No layer would be faster with fewer channels, by the latency table."]
    rows = [("layer", "side", "channels", "needed", "ms", "ms thin", "of it moving")]
    for layer in thinner["layers"]:
        times = (f"{layer[key]:.3f}" for key in ("full_ms", "thin_ms", "moving_ms"))
        rows.append((layer["layer"], layer["side"], str(layer["full"]), str(layer["kept"]), *times))
    lines = ["", *_table(rows)]
    if thinner["full_ms"] is None:
        return [*lines, "None of these layers is faster thin, once its channels are gathered or put back."]
    count, outcome = sum(layer["taken"] for layer in thinner["layers"]), "taken" if thinner["taken"] else "not taken"
    return [
        *lines,
        f"{count} of these layers thin are {outcome}: the engine as a whole {thinner['thin_ms']:.3f} ms with them, "
        f"{thinner['full_ms']:.3f} ms without (the table's figures are of the layer alone)",
    ]


def choice_lines(choice: Mapping[str, Any] | None) -> list[str]:
    """How sparse layers are executed, a line per layer that was measured or condensed."""
    if choice is None or not choice["layers"]:
        return []
    rows = [("sparse layer", "executed", "non-zeros", "dense us", "condensed us")]
    for layer in choice["layers"]:
        times = ("" if layer[key] is None else f"{layer[key]:.0f}" for key in ("dense_us", "condensed_us"))
        rows.append((layer["layer"], layer["representation"], f"{layer['density']:.1%}", *times))
    lines = ["", *_table(rows)]
    if choice["dense_ms"] is not None:
        dense, chosen = choice["dense_ms"], choice["chosen_ms"]
        lines.append(
            f"The engine as a whole: {chosen:.3f} ms, with all layers dense {dense:.3f} ms ({dense / chosen:.2f}x), "
            f"{threads_text(choice['threads'])}, {choice['processor']}"
        )
    return [*lines, *(f"Note: {note}" for note in choice["notes"])]


def latency_lines(latency: Mapping[str, Any] | None) -> list[str]:
    """The engine beside the dense one, where they were timed."""
    if latency is None:
        return []
    lines = [
        f"Latency of the {engine['name']} engine: median {engine['median_ms']:.3f} ms, middle half "
        f"{engine['spread_ms']:.3f} ms, 99th percentile {engine['p99_ms']:.3f} ms ({engine['ratio']:.2f}x of dense)"
        for engine in latency["engines"]
    ]
    return lines + [f"Note: {note}" for note in latency["notes"]]


def evaluation_lines(evaluation: Mapping[str, Any] | None) -> list[str]:
    """What the user's evaluation returned, a line per figure."""
    if evaluation is None:
        return []
    results = evaluation["results"]
    names = dict.fromkeys(name for found in results.values() for name in found)
    lines = [
        f"Evaluation, {name}: "
        + ", ".join(f"{model} {found[name]:.6g}" for model, found in results.items() if name in found)
        for name in names
    ]
    return lines + [f"Note: {note}" for note in evaluation["notes"]]


def threads_text(threads: int | None) -> str:
    """As a setting has it: None is all that are available."""
    return "all threads" if threads is None else many(threads, "thread")


def shape_text(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))


def count_text(number: float) -> str:
    """1234567 as 1.23 M."""
    for unit in ("", " K", " M", " G"):
        if abs(number) < 1000 or unit == " G":
            return f"{number:.3g}{unit}" if unit else str(int(number))
        number /= 1000
    return str(number)
