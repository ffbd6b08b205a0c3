"""What a training did, as charts: the panels of sparsefx.training.plots, and the curves of its epochs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...passes.errors import SparsefxError
from .charts import Chart, Line

HISTORY, EPOCHS = "history.json", "epochs.json"


def training_charts(
    history: Sequence[Mapping[str, Any]],
    epochs: Sequence[Mapping[str, Any]],
    others: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
) -> tuple[Chart, ...]:
    """Charts of the epochs (EpochLog) and the mask updates (MaskUpdate) of a training, as plain data.

    `others` are the epochs of other trainings, by what they are called, drawn beside.
    """
    return (*_epoch_charts({"": epochs, **(others or {})}), *_mask_charts(history))


def read_training(folder: Path) -> tuple[Chart, ...]:
    """Charts of the folder that `sparsefx train` leaves. Raises SparsefxError where there is no history in it."""
    history, epochs = _read(folder / HISTORY), _read(folder / EPOCHS)
    if history is None and epochs is None:
        raise SparsefxError(f"{folder} has neither {HISTORY} nor {EPOCHS}; expected the folder of `sparsefx train`")
    try:
        return training_charts(history or [], epochs or [])
    except (KeyError, TypeError) as error:
        raise SparsefxError(f"the history in {folder} is not that of `sparsefx train`: {error!r}") from error


def _read(file: Path) -> list[dict[str, Any]] | None:
    if not file.is_file():
        return None
    try:
        found = json.loads(file.read_text())
    except (ValueError, OSError) as error:
        raise SparsefxError(f"{file} cannot be read: {error}") from error
    if not isinstance(found, list):
        raise SparsefxError(f"{file} is no list of what happened in turn; expected what `sparsefx train` wrote")
    return found


def _epoch_charts(trainings: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[Chart]:
    trainings = {name: epochs for name, epochs in trainings.items() if epochs}
    if not trainings:
        return []
    several = len(trainings) > 1

    def lines(key: str) -> tuple[Line, ...]:
        return tuple(
            Line(name or ("sparse" if several else ""), [e["epoch"] for e in epochs], [e[key] for e in epochs])
            for name, epochs in trainings.items()
        )

    return [
        Chart("Accuracy on the test data", "epoch", "accuracy", lines("accuracy"), percent=True),
        Chart("Loss in training", "epoch", "mean loss", lines("loss"), zero=True),
    ]


def _mask_charts(history: Sequence[Mapping[str, Any]]) -> list[Chart]:
    if not history:
        return []
    from ...training.history import MaskUpdate
    from ...training.plots import PANELS

    updates = [MaskUpdate(**update) for update in history]
    steps = [update.step for update in updates]
    charts = [Chart("Non-zeros", "step", "weights in the mask", (Line("", steps, [u.nonzeros for u in updates]),))]
    for panel in PANELS:
        lines = tuple(Line(line.label, steps, [line.value(u) for u in updates]) for line in panel.lines)
        charts.append(Chart(panel.title, "step", panel.axis, lines, percent=panel.is_share))
    return charts
