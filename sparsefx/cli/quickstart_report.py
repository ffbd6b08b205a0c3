"""The page that `sparsefx quickstart` leaves: the bundle's report with all that the run measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from sparsefx.compiler.bench import BenchRow
from sparsefx.compiler.compare_bundles import compare_bundles
from sparsefx.compiler.figures import DENSE, Evaluation
from sparsefx.compiler.reporting.page import report_page
from sparsefx.compiler.reporting.read import read_page
from sparsefx.compiler.reporting.training import training_charts
from sparsefx.runtime.files import write_whole
from sparsefx.runtime.onnxruntime.session import available_threads
from sparsefx.training.recipes.trained import Trained

ACCURACY = "accuracy on the test digits"
_NOTE = "dense is a network of the same form, trained as long without masks"


def write_report(
    file: Path, bundles: Sequence[Path], trained: Sequence[Trained], rows: Sequence[BenchRow], threads: int | None
) -> None:
    """Draw the page; bundles and trainings are the dense and the sparse one, `rows` what the benchmark found."""
    (dense, sparse), page = trained, read_page(bundles[1])
    layers = compare_bundles(*bundles, threads=threads or available_threads(), seconds=0)
    latency = replace(layers, engines=tuple(row.engine_time() for row in rows))
    evaluation = page.report["evaluation"]
    results = {DENSE: {ACCURACY: dense.accuracy}, **evaluation["results"]}
    assert sparse.sparsifier is not None
    charts = training_charts(
        [asdict(update) for update in sparse.sparsifier.history],
        [asdict(epoch) for epoch in sparse.log],
        {DENSE: [asdict(epoch) for epoch in dense.log]},
    )
    measured = {"latency": asdict(latency), "evaluation": asdict(Evaluation(results, (_NOTE,)))}
    page = replace(page, report={**page.report, **measured}, training=charts)
    write_whole(file, report_page(page).encode())
