"""What `sparsefx train` does: a sparse training with checkpoints, and on to the engine."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from sparsefx.cli.exit_codes import OK
from sparsefx.cli.output import show
from sparsefx.cli.progress import bar, stages
from sparsefx.compiler.bundle import load
from sparsefx.compiler.compile import compile
from sparsefx.compiler.report_text import report_text
from sparsefx.passes.errors import SparsefxError
from sparsefx.runtime.files import write_whole
from sparsefx.runtime.latency.measure import measure
from sparsefx.runtime.latency.table import LatencyTable
from sparsefx.training.allocation.table import TableCosts
from sparsefx.training.channel_method import ChannelMethod
from sparsefx.training.flops import layer_macs, theoretical_flops
from sparsefx.training.masks import MaskSet
from sparsefx.training.plots import plot_history
from sparsefx.training.recipes.checkpoint import CHECKPOINT, read_checkpoint, write_weights
from sparsefx.training.recipes.config import TrainConfig
from sparsefx.training.recipes.presets import PRESETS, preset_config
from sparsefx.training.recipes.run import run as run_training
from sparsefx.training.recipes.trained import EpochLog, Trained
from sparsefx.training.sparsifier import Sparsifier

_FLAGS = (
    "method", "data", "folder", "net", "epochs", "batch_size", "learning_rate", "precision", "seed", "checkpoint_steps",
)  # fmt: skip

_SMALL = ("digits", "textures")  # their networks lose more to waiting for a second core than it gives

_SECONDS = 1.0  # of timing the engine at the end


def run(arguments: Namespace) -> int:
    if arguments.list_presets:
        presets = {name: {"source": p.source, "settings": dict(p.settings)} for name, p in PRESETS.items()}
        show(arguments.json, presets, _presets_text())
        return OK
    if arguments.output is None:
        raise SparsefxError("say where weights, masks and checkpoints go: -o FOLDER")
    folder = Path(arguments.output)
    config = _resumed_config(folder, arguments) if arguments.resume else _config(arguments)
    with _made(folder):
        trained = _train(config, folder, arguments)
    masks = trained.masks
    written = _write(folder, trained, masks, plot=arguments.plot)
    result: dict[str, Any] = {"config": config.to_dict(), "epochs": [asdict(entry) for entry in trained.log]}
    table = _latency_table(trained.sparsifier)
    images, _ = next(iter(trained.task.test_batches(1 if table is None else table.setting.batch)))
    threads = arguments.threads if arguments.threads or table is None else table.setting.threads
    if trained.sparsifier is not None and masks is not None:
        result["flops"] = _flops(trained.model, trained.sparsifier, masks, images[:1])
    if arguments.compile:
        with stages(arguments.quiet) as announce:
            announce("compile and verify")
            compiled = compile(trained.model, (images,), masks=masks, threads=threads)
            compiled.save(folder / "model.sfx")
        result["report"] = compiled.report.to_dict()
        if table is not None:
            result["latency"] = _latency(trained.sparsifier, folder / "model.sfx", images, threads)
        written.append("model.sfx")
    show(arguments.json, result, _text(folder, trained, written, result))
    return OK


@contextmanager
def _made(folder: Path) -> Iterator[None]:
    """The folder is there; one made here goes again where an error left nothing in it."""
    fresh = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        if fresh and not any(folder.iterdir()):
            folder.rmdir()
        raise


def _config(arguments: Namespace) -> TrainConfig:
    """A preset, or the defaults, with what the flags change."""
    changes = {name: value for name in _FLAGS if (value := getattr(arguments, name)) is not None}
    if changes.get("method") == "none":
        changes["method"] = None
    options = dict(_option(text) for text in arguments.set or [])
    if arguments.sparsity is not None:
        options["sparsity"] = arguments.sparsity
    if arguments.preset is not None:
        return preset_config(arguments.preset, {**changes, "options": options})
    return TrainConfig.from_dict({**changes, "options": options})


def _resumed_config(folder: Path, arguments: Namespace) -> TrainConfig:
    """The settings of the checkpoint. The flags of the first time may be given again; what contradicts is refused."""
    config = TrainConfig.from_dict(read_checkpoint(folder / CHECKPOINT)["config"])
    if _config(arguments).to_dict() == config.to_dict():
        return config
    for name in _FLAGS:
        asked, found = getattr(arguments, name), getattr(config, name)
        if asked is not None and asked != (found or "none"):
            raise SparsefxError(
                f"the training in {folder} has {name} {found!r}, asked is {asked!r}; resume it with the settings "
                "it was started with, or choose another folder"
            )
    given = next((name for name in ("preset", "set", "sparsity") if getattr(arguments, name) is not None), None)
    if given is not None:
        raise SparsefxError(f"--resume takes the method's options from the checkpoint; drop --{given}")
    return config


def _option(text: str) -> tuple[str, Any]:
    """NAME=VALUE, the value as JSON or else as text."""
    name, equals, value = text.partition("=")
    if not equals:
        raise SparsefxError(f"--set takes NAME=VALUE, found {text!r}")
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        return name, value


def _train(config: TrainConfig, folder: Path, arguments: Namespace) -> Trained:
    with bar(f"training {config.net} on {config.data}, {config.method or 'dense'}", arguments.quiet) as progress:
        return run_training(
            config,
            folder=folder,
            resume=arguments.resume,
            threads=arguments.threads or (1 if config.data in _SMALL else None),
            on_step=progress.update,
            on_epoch=lambda entry: progress.say(_epoch_text(entry, config.epochs)),
        )


def _epoch_text(entry: EpochLog, epochs: int) -> str:
    text = f"epoch {entry.epoch}/{epochs}: loss {entry.loss:.4f}, accuracy {entry.accuracy:.2%}"
    return text if entry.active_channels is None else f"{text}, {entry.sparsity:.2%} zeros"


def _write(folder: Path, trained: Trained, masks: MaskSet | None, *, plot: bool) -> list[str]:
    """Weights, masks and what their updates did; the names of the files."""
    write_weights(folder / "weights.safetensors", trained.model)
    write_whole(folder / "epochs.json", json.dumps([asdict(entry) for entry in trained.log], indent=1).encode())
    sparsifier = trained.sparsifier
    if sparsifier is None or masks is None:
        return ["weights.safetensors", "epochs.json"]
    masks.save(folder / "masks.safetensors")
    updates = [asdict(update) for update in sparsifier.history]
    write_whole(folder / "history.json", json.dumps(updates, indent=1).encode())
    written = ["weights.safetensors", "epochs.json", "masks.safetensors", "history.json"]
    if plot and updates:
        plot_history(sparsifier.history, folder / "history.png", size=sparsifier.size)
        written.append("history.png")
    return written


def _flops(model: nn.Module, sparsifier: Sparsifier, masks: MaskSet, images: Tensor) -> dict[str, float]:
    """Of one inference, and of the whole training for one sample a step; each as a share of the dense network's too."""
    macs = layer_macs(model, (images,))
    inference, dense = (
        theoretical_flops(macs, {name: masks.density(name) for name in masks}),
        theoretical_flops(macs, {}),
    )
    training = sparsifier.training_flops(macs)
    return {
        "inference": inference,
        "inference_share": inference / dense,
        "training": training,
        "training_share": training / (3 * dense * sparsifier.step_count),
    }


def _latency_table(sparsifier: Sparsifier | None) -> LatencyTable | None:
    """The table that a channel method spent."""
    costs = sparsifier.costs if isinstance(sparsifier, ChannelMethod) else None
    return costs.table if isinstance(costs, TableCosts) else None


def _latency(sparsifier: Any, bundle: Path, images: Tensor, threads: int | None) -> dict[str, float]:
    """Milliseconds: the budget, what the masks cost by the table, and what the engine takes."""
    last = sparsifier.budget_history[-1]
    engine = load(bundle, threads)
    arrays = engine.check([images])
    taken = measure({"engine": lambda: engine.session.run(arrays)}, seconds=_SECONDS)["engine"]
    return {"budget_ms": sparsifier.budget.total, "table_ms": last.cost, "engine_ms": 1e3 * taken.median}


def _text(folder: Path, trained: Trained, written: list[str], result: dict[str, Any]) -> str:
    last = trained.log[-1]
    lines = [f"Accuracy on {trained.task.test_size} test images: {last.accuracy:.2%}"]
    if trained.sparsifier is not None:
        dense = [f"{name} ({reason})" for name, reason in trained.sparsifier.dense_layers.items()]
        flops = result["flops"]
        lines.append(f"Zero weights: {last.sparsity:.2%}; output channels left with a weight: {last.active_channels}")
        lines.append(f"Dense: {', '.join(dense) or 'nothing'}")
        shares = f"inference {flops['inference_share']:.1%} of dense, training {flops['training_share']:.1%}"
        lines.append(f"FLOPs where every zero is skipped: {shares}")
    if "latency" in result:
        ms = result["latency"]
        lines.append(
            f"Latency: {ms['table_ms']:.3f} ms by the table (budget {ms['budget_ms']:.3f}), "
            f"the engine takes {ms['engine_ms']:.3f} ms"
        )
    if "report" in result:
        lines = [report_text(result["report"]), "", *lines]
    return "\n".join([*lines, f"In {folder}: {', '.join(written)}"])


def _presets_text() -> str:
    width = max(map(len, PRESETS))
    return "\n".join(f"{name:{width}s}  {preset.source}" for name, preset in PRESETS.items())
