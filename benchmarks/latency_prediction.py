"""What latency tables foretell beside what engines take: dense networks and random channel prunings.

    python -m benchmarks.latency_prediction [MODEL ...] [--threads N] [--prunings N] [--time-limit S]

For each model a table is profiled in this process; then every channel group keeps a random 30 to 100% of its channels
(widths that the profiler did not measure: checked), three prunings a model. The engines are those that the compiler's
own lowering makes of the cut graphs; they, the dense one and the calibration engine run in turn. `error` is that of the
table's prediction to the median in that run, corrected for the machine's drift where the calibration engine saw one;
`raw` without that. `--prunings 20` also gives Spearman's rank correlation. Results of other models in the file stay.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

import sparsefx
import tests.torchvision_shim  # noqa: F401 - torchvision imports only after this
from benchmarks.results_file import RESULTS, write_results
from sparsefx.passes.describe import describe
from sparsefx.runtime.latency.in_context import timed_runs
from sparsefx.runtime.latency.measure import measure
from sparsefx.runtime.latency.prepared import prepared_with
from sparsefx.runtime.latency.table import LatencyTable
from sparsefx.runtime.latency.undisturbed import TimedRuns
from sparsefx.runtime.latency.widths import WidthSpace
from sparsefx.runtime.onnxruntime.calibration import calibration_engine
from sparsefx.runtime.onnxruntime.lower import lower_to_onnx
from sparsefx.runtime.onnxruntime.session import OnnxRuntimeSession

_MODELS = ("resnet18", "resnet50", "mobilenet_v2", "vgg16", "vit_b_16")
_LEAST_KEPT = 0.3
_ROUNDS = 24

Row = dict[str, Any]
Widths = dict[str, int]


def predict_and_measure(name: str, threads: int, prunings: int, time_limit: float | None) -> Row:
    """Profile one model, foretell its prunings, and then measure them."""
    import torchvision

    torch.manual_seed(0)
    model = torchvision.models.get_model(name, weights=None).eval()
    example = torch.randn(1, 3, 224, 224)
    with tempfile.TemporaryDirectory() as folder:
        path, start = Path(folder) / "table", time.perf_counter()
        graph = prepared_with(model, (example,))
        settings: dict[str, Any] = {"threads": threads, "path": path, "time_limit": time_limit}
        table = sparsefx.profile(graph, (example,), **settings)
        seconds, start = time.perf_counter() - start, time.perf_counter()
        size, reused = path.stat().st_size, None
        if time_limit is None:  # the whole table is there: nothing is measured again
            again = sparsefx.profile(graph, (example,), **settings)
            assert len(again.records) == len(table.records)
            reused = time.perf_counter() - start
        space = WidthSpace(graph)
        cases = _cases(space, table, prunings)
        foretold, extrapolated = dict[str, float](), dict[str, int]()
        for case, widths in cases.items():
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                foretold[case] = table.predict_widths(graph, widths, outside="warn")
            extrapolated[case] = sum("extrapolated" in str(warning.message) for warning in caught)
        measured, calibration, from_graph = _measure(space, cases, example, table, Path(folder))
    drift = table.drift(calibration)
    rows = {c: _row(foretold[c], measured[c], drift, from_graph.get(c), extrapolated[c]) for c in cases}
    errors = [abs(row["error"]) for row in rows.values()]
    return {
        "model": name,
        "threads": threads,
        "networks_profiled": len(table.records),
        "profiling_seconds": seconds,
        "second_run_seconds": reused,
        "table_bytes": size,
        "median_spread": float(np.median([r.spread for r in table.records])),
        "worst_spread": max(r.spread for r in table.records),
        "sum_over_whole": [float(x) for x in np.percentile(table.accuracy(), [0, 50, 100])],
        "drift": drift,
        "calibration_over_tables": calibration / table.speed,
        "worst_error": max(errors),
        "spearman": _spearman(foretold, measured) if prunings >= 20 else None,
        "cases": rows,
    }


def _row(foretold: float, measured: TimedRuns, drift: float, from_graph: float | None, extrapolated: int) -> Row:
    taken = measured.median * 1e3
    return {
        "predicted_ms": foretold,
        "measured_ms": taken,
        "uncertainty": measured.uncertainty,
        "error": foretold * drift / taken - 1,
        "raw": foretold / taken - 1,
        "predicted_from_graph_ms": from_graph,
        "extrapolated_operators": extrapolated,
    }


def _cases(space: WidthSpace, table: LatencyTable, prunings: int) -> dict[str, Widths]:
    random = np.random.default_rng(1)
    profiled = [record.widths for record in table.records]
    cases = {"dense": {g.name: g.full for g in space.groups}}
    for number in range(prunings):
        shares = random.uniform(_LEAST_KEPT, 1.0, len(space.groups))
        widths = {g.name: max(1, round(g.full * s)) for g, s in zip(space.groups, shares, strict=True)}
        assert widths not in profiled
        cases[f"pruning {number + 1}"] = widths
    return cases


def _measure(
    space: WidthSpace, cases: dict[str, Widths], example: torch.Tensor, table: LatencyTable, folder: Path
) -> tuple[dict[str, TimedRuns], float, dict[str, float]]:
    """Every case's engine and the calibration engine in turn; and what the table says of the first pruned graph."""
    threads, signature = table.setting.threads, describe(space.graph_module)
    calibration = TimedRuns(calibration_engine(threads, folder), threads, repeat=2)
    contenders, from_graph = dict[str, TimedRuns](), dict[str, float]()
    for number, (case, widths) in enumerate(cases.items()):
        graph = space.cut(widths) if number else space.graph_module
        here = folder / str(number)
        here.mkdir()
        session = OnnxRuntimeSession(lower_to_onnx(graph, signature, here), threads)
        contenders[case] = timed_runs(_runner(session, example), table.setting)
        if number == 1:
            from_graph[case] = table.predict(graph, outside="warn")
    everything = {**contenders, "calibration": calibration}
    measure(everything, seconds=0, least_runs=2, warm_up=0)
    for runs in everything.values():
        runs.forget()
    measure(everything, seconds=0, least_runs=_ROUNDS, warm_up=0)
    return contenders, calibration.median, from_graph


def _runner(session: OnnxRuntimeSession, example: torch.Tensor) -> Callable[[], object]:
    inputs = [example.numpy()]
    return lambda: session.run(inputs)


def _spearman(foretold: dict[str, float], measured: dict[str, TimedRuns]) -> float:
    """Rank correlation over the prunings."""
    names = [case for case in foretold if case != "dense"]
    ranks = [np.argsort(np.argsort([v[n] for n in names])) for v in (foretold, {n: measured[n].median for n in names})]
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])


def _kept(threads: int, models: list[str]) -> list[Row]:
    """Rows of an earlier run for other models or threads."""
    path = RESULTS / "latency_prediction.json"
    rows: list[Row] = json.loads(path.read_text())["figures"] if path.exists() else []
    return [row for row in rows if (row["model"], row["threads"]) not in [(m, threads) for m in models]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=list(_MODELS))
    parser.add_argument("--threads", type=int, default=1, help="several sessions' waiting threads disturb each other")
    parser.add_argument("--prunings", type=int, default=3)
    parser.add_argument("--time-limit", type=float)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    rows = _kept(options.threads, options.models)
    for name in options.models:
        row = predict_and_measure(name, options.threads, options.prunings, options.time_limit)
        rows.append(row)
        print(
            f"{name}, {row['threads']} threads: {row['networks_profiled']} networks in "
            f"{row['profiling_seconds']:.0f} s, worst error {row['worst_error']:.1%}, Spearman {row['spearman']}"
        )
        for case, figures in row["cases"].items():
            print(
                f"  {case:12s} {figures['predicted_ms']:8.2f} ms predicted, {figures['measured_ms']:8.2f} ms measured, "
                f"error {figures['error']:+6.1%}, raw {figures['raw']:+6.1%}",
                flush=True,
            )
        write_results("latency_prediction", sorted(rows, key=lambda r: (r["threads"], r["model"])))


if __name__ == "__main__":
    main()
