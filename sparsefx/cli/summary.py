"""What a compilation came to, for the terminal: figures before and after, and a line for every other question."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparsefx.cli.output import console, print_tidily
from sparsefx.compiler.report_text import count_text, evaluation_lines, latency_lines, threads_text

if TYPE_CHECKING:
    from torch import nn
    from torch.export import ExportedProgram

    from sparsefx.runtime.targets import BuildSettings

_MEBI = 2**20
_REASONS = 3  # for useless channels that stay; the others are in the bundle's report


@dataclass(frozen=True)
class Saved:
    """A bundle on the disk: where, what its engine's files take, and what the model's tensors took; in bytes."""

    path: str
    file_bytes: int
    model_bytes: int


def saved_as(path: str, model: nn.Module | ExportedProgram) -> Saved:
    """What was written to `path` for a model."""
    tensors = {id(t): t.numel() * t.element_size() for t in (*model.parameters(), *model.buffers())}
    return Saved(path, sum(file.stat().st_size for file in Path(path).glob("model.*")), sum(tensors.values()))


def print_summary(report: Mapping[str, Any], settings: BuildSettings, saved: Saved) -> None:
    """`report` as Report.to_dict has it."""
    from rich.table import Table

    out = console()
    out.print(f"Compiled {report['model']} into {saved.path}", style="bold")
    figures = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0))
    figures.add_column("", min_width=28)
    for heading in ("before", "after", "share"):
        figures.add_column(heading, justify="right")
    for row in _figures(report["totals"], saved):
        figures.add_row(*row)
    facts = Table(box=None, pad_edge=False, show_header=False, padding=(0, 3, 0, 0))
    facts.add_column("", style="bold", no_wrap=True)
    facts.add_column("", overflow="fold")
    last = ""
    for label, text in _facts(report, settings, saved):
        facts.add_row("" if label == last else label, text)
        last = label
    print_tidily(out, "", figures, "", facts)


def _figures(totals: Mapping[str, int], saved: Saved) -> Iterator[tuple[str, ...]]:
    rows = (("parameters", "parameters"), ("multiply-accumulates", "macs"), ("channels of layers", "channels"))
    for name, key in rows:
        before, after = totals[f"{key}_before"], totals[f"{key}_after"]
        yield name, count_text(before), count_text(after), _share(before, after)
    sizes = (f"{size / _MEBI:.2f} MiB" for size in (saved.model_bytes, saved.file_bytes))
    yield "tensors, engine's file", *sizes, _share(saved.model_bytes, saved.file_bytes)


def _share(before: float, after: float) -> str:
    return f"{after / before:.1%}" if before else ""


def _facts(report: Mapping[str, Any], settings: BuildSettings, saved: Saved) -> Iterator[tuple[str, str]]:
    yield "exactness", _exactness(report["verification"])
    yield from (("engine", text) for text in _engine(report, settings))
    yield "layers", _layers(report)
    yield from (("choice", text) for text in _choices(report))
    yield from (("kept", text) for text in _kept(report))
    notes = [*report["notes"], *((report["choice"] or {}).get("notes", ()))]
    yield from (("note", note) for note in notes)
    yield from (("measured", text) for text in latency_lines(report["latency"]))
    yield from (("evaluated", text) for text in evaluation_lines(report["evaluation"]))
    yield "next", f"sparsefx bench {saved.path}      its latency and memory"
    yield "next", f"sparsefx inspect {saved.path}    every layer"
    yield "next", f"sparsefx report {saved.path} -o report.html    a page"


def _exactness(verification: Mapping[str, Any] | None) -> str:
    if verification is None:
        return "not verified: nothing is known about it; `sparsefx verify` compares the bundle with the model"
    worst = max(verification["outputs"], key=lambda check: check["max_error"] / check["bound"])
    outputs = len(verification["outputs"])
    which = f"output {worst['name']}: " if outputs > 1 else ""
    return (
        f"verified on {verification['samples']} batches; {which}largest error {worst['max_error']:.1e} standard "
        f"deviations of the output over inputs, allowed {worst['bound']:.1e}, the model's own rounding "
        f"{worst['eager']:.1e}"
    )


def _engine(report: Mapping[str, Any], settings: BuildSettings) -> Iterator[str]:
    threads = report["engine"].get("threads")
    states = report["states"]
    done = [name for name, state in states.items() if state["done"]]
    yield f"{settings.target}, {settings.precision}" + (f", {threads_text(threads)}" if threads else "")
    yield f"{', '.join(done) or 'nothing was done with it'} here"
    reasons: dict[str, list[str]] = {}
    for name, state in states.items():
        if not state["done"]:
            reasons.setdefault(state["detail"], []).append(name)
    yield from (f"not {', '.join(names)}: {reason}" for reason, names in reasons.items())


def _layers(report: Mapping[str, Any]) -> str:
    layers = report["layers"]
    gone = sum(layer["shape_after"] is None for layer in layers)
    smaller = sum(layer["shape_after"] not in (None, layer["shape_before"]) for layer in layers)
    forms = Counter(choice["representation"] for choice in (report["choice"] or {}).get("layers", ()))
    sparse = ", ".join(f"{count} {form}" for form, count in sorted(forms.items()))
    return f"{len(layers)}: {smaller} smaller, {gone} gone" + (f"; of the sparse ones {sparse}" if sparse else "")


def _choices(report: Mapping[str, Any]) -> Iterator[str]:
    """What whole engines took, where a choice rests on that."""
    for key, first, chosen, of in (
        ("choice", "dense_ms", "chosen_ms", "condensed layers where they are faster"),
        ("widths", "exact_ms", "kept_ms", "wider layers"),
        ("thinner", "full_ms", "thin_ms", "thinner layers"),
    ):
        found = report[key]
        if found is not None and found[first] is not None:
            ratio = found[first] / found[chosen]
            outcome = "" if found.get("taken", True) else ", so not taken"
            yield f"{of}: {found[chosen]:.3f} ms, without {found[first]:.3f} ms ({ratio:.2f}x){outcome}"


def _kept(report: Mapping[str, Any]) -> Iterator[str]:
    reasons = Counter[str]()
    for layer in report["layers"]:
        reasons.update(layer["stays"])
    for reason, count in reasons.most_common(_REASONS):
        yield f"{count} useless channels: {reason}"
    for operator, nodes in report["unknown_operators"].items():
        yield f"all channels at {operator} ({len(nodes)} calls), for which there is no rule"
