"""A training from its settings to weights and masks."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import tests.torchvision_shim  # noqa: F401 - torchvision imports only after this
from sparsefx.passes.errors import SparsefxError
from sparsefx.training.recipes.checkpoint import CHECKPOINT, read_checkpoint, write_checkpoint
from sparsefx.training.recipes.config import METHODS, TrainConfig, method_options
from sparsefx.training.recipes.data.digits import load_digits
from sparsefx.training.recipes.data.task import ImageTask, TensorTask
from sparsefx.training.recipes.learning_rate import learning_rate_schedule
from sparsefx.training.recipes.nets import NETS, build_net
from sparsefx.training.recipes.presets import PRESETS, preset_config
from sparsefx.training.recipes.run import run
from sparsefx.training.recipes.trained import EpochLog, Trained, accuracy


def few(train: int = 96, test: int = 40) -> ImageTask:
    task = load_digits()
    return TensorTask(
        task.train_images[:train], task.train_labels[:train], task.test_images[:test], task.test_labels[:test], 10
    )


SMALL = TrainConfig(epochs=3, batch_size=16, checkpoint_steps=4, options={"update_interval": 3})


def same(a: Trained, b: Trained) -> bool:
    states = zip(a.model.state_dict().values(), b.model.state_dict().values(), strict=True)
    assert a.masks is not None and b.masks is not None
    return a.masks.equals(b.masks) and a.log == b.log and all(torch.equal(x, y) for x, y in states)


def test_a_short_run_on_digits_is_sparse_accurate_and_leaves_no_trace() -> None:
    random, threads = torch.get_rng_state(), torch.get_num_threads()
    shares: list[float] = []
    epochs: list[EpochLog] = []
    trained = run(TrainConfig(epochs=3), threads=1, on_step=shares.append, on_epoch=epochs.append)
    assert torch.equal(torch.get_rng_state(), random) and torch.get_num_threads() == threads
    assert shares[-1] == 1.0 and shares == sorted(shares) and len(shares) == 3 * 23
    assert [entry.epoch for entry in epochs] == [1, 2, 3] and epochs[-1].loss < epochs[0].loss
    assert not trained.model.training and trained.accuracy > 0.9
    assert trained.masks is not None and trained.masks.method == "SRigL"
    assert trained.masks.density() == pytest.approx(0.1, abs=1e-3)


class StopHereError(Exception):
    """The training is cut off here."""


@pytest.mark.parametrize("method", ["SRigL", "Chase", "IEE", "GraNet", None])
@pytest.mark.parametrize("moment", [pytest.param(5, marks=pytest.mark.ci), 12, pytest.param(17, marks=pytest.mark.ci)])
def test_a_resumed_training_ends_in_the_same_bits(tmp_path: Path, method: str | None, moment: int) -> None:
    options = {"IEE": {"stages": (2, 2, 2)}, None: {}}.get(method, {"update_interval": 3})
    config = replace(SMALL, method=method, options=options)
    whole = run(config, task=few(), threads=1)

    def stop(share: float) -> None:
        if round(share * 18) == moment:
            raise StopHereError

    with pytest.raises(StopHereError):
        run(config, task=few(), threads=1, folder=tmp_path / "run", on_step=stop)
    resumed = run(config, task=few(), threads=1, folder=tmp_path / "run", resume=True)
    if method is None:
        assert resumed.log == whole.log and resumed.masks is None
    else:
        assert same(resumed, whole)


@pytest.mark.ci
def test_bfloat16(tmp_path: Path) -> None:
    config = replace(SMALL, precision="bfloat16", method="RigL")
    whole = run(config, task=few(), threads=1)

    def stop(share: float) -> None:
        if share > 0.4:
            raise StopHereError

    with pytest.raises(StopHereError):
        run(config, task=few(), threads=1, folder=tmp_path / "run", on_step=stop)
    resumed = run(config, task=few(), threads=1, folder=tmp_path / "run", resume=True)
    assert same(resumed, whole) and all(p.dtype == torch.float32 for p in whole.model.parameters())
    exact = run(replace(config, precision="float32"), task=few(), threads=1)
    assert whole.log != exact.log  # it did compute in another precision
    assert whole.log[0].loss == pytest.approx(exact.log[0].loss, rel=0.1)


def test_a_finished_training_resumes_to_itself(tmp_path: Path) -> None:
    whole = run(SMALL, task=few(), threads=1, folder=tmp_path)
    again = run(SMALL, task=few(), threads=1, folder=tmp_path, resume=True)
    assert same(whole, again)


def test_checkpoints_that_do_not_fit(tmp_path: Path) -> None:
    with pytest.raises(SparsefxError, match=r"there is no checkpoint .*checkpoint.pt; start the training without"):
        run(SMALL, task=few(), folder=tmp_path, resume=True)
    run(replace(SMALL, epochs=1), task=few(), threads=1, folder=tmp_path)
    with pytest.raises(SparsefxError, match="holds a training already; resume it"):
        run(SMALL, task=few(), folder=tmp_path)
    with pytest.raises(SparsefxError, match="has epochs 1, asked is 3; resume it with the settings"):
        run(SMALL, task=few(), folder=tmp_path, resume=True)
    path = tmp_path / CHECKPOINT
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SparsefxError, match="is no readable checkpoint"):
        read_checkpoint(path)
    torch.save({"weights": torch.zeros(1)}, path)
    with pytest.raises(SparsefxError, match="is no checkpoint of `sparsefx train`"):
        read_checkpoint(path)
    write_checkpoint(path, {"schema": 9})
    with pytest.raises(SparsefxError, match="has schema 9, this sparsefx reads up to 1"):
        read_checkpoint(path)
    write_checkpoint(path, {"config": {}})
    with pytest.raises(SparsefxError, match=r"lacks \['batch', 'epoch'"):
        read_checkpoint(path)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_trains(method: str) -> None:
    trained = run(TrainConfig(method=method, epochs=2, batch_size=16), task=few(), threads=1)
    assert trained.masks is not None and trained.masks.method == method
    assert trained.masks.density() < 0.9


def learning_rates(config: TrainConfig, steps_per_epoch: int = 5) -> list[float]:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=config.learning_rate)
    schedule, seen = learning_rate_schedule(optimizer, config, steps_per_epoch), []
    for _ in range(config.epochs * steps_per_epoch):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return seen


def test_learning_rates() -> None:
    config = replace(SMALL, epochs=4, learning_rate=0.2)
    cosine = learning_rates(replace(config, schedule="cosine"))
    assert cosine == pytest.approx([0.1 * (1 + math.cos(math.pi * step / 20)) for step in range(20)])
    steps = learning_rates(replace(config, schedule="steps", milestones=(1, 3), decay=2.0))
    assert steps == pytest.approx([0.2] * 5 + [0.1] * 10 + [0.05] * 5)
    warm = learning_rates(replace(config, schedule="cosine", warmup_epochs=1.0))
    assert warm[:6] == pytest.approx([0.04, 0.072, 0.104, 0.136, 0.168, 0.2]) and warm[-1] < 0.01
    cycle = learning_rates(config)
    assert max(cycle) == pytest.approx(0.2, rel=0.02) and cycle[0] < 0.01 and cycle[-1] < 0.001


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_a_config_and_says_its_source(name: str) -> None:
    config = preset_config(name, {})
    assert PRESETS[name].source
    assert TrainConfig.from_dict(config.to_dict()) == TrainConfig.from_dict(config.to_dict())
    assert preset_config(name, {"seed": 5, "options": {"sparsity": 0.8}}).options["sparsity"] == 0.8


def test_settings_that_make_no_sense() -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        ({"method": "Lottery"}, "unknown method 'Lottery'; known are SET, RigL"),
        ({"data": "mnist"}, "unknown data 'mnist'; known are digits, textures"),
        ({"schedule": "flat"}, "unknown schedule 'flat'; known are one_cycle, cosine, steps"),
        (
            {"precision": "float16"},
            r"unknown precision 'float16' \(did you mean bfloat16\?\); known are float32",
        ),
        ({"epochs": 0}, "epochs must be at least 1, found 0"),
        ({"learning_rate": 0.0}, "learning_rate must be positive"),
        (
            {"options": {"gama": 0.3}},
            r"SRigL has no option gama \(did you mean gamma\?\); it takes sparsity, gamma",
        ),
        ({"batchsize": 3}, r"there is no setting batchsize \(did you mean batch_size\?\); known are method, options"),
    ]
    for settings, message in cases:
        with pytest.raises(SparsefxError, match=message):
            TrainConfig.from_dict(settings)
    with pytest.raises(SparsefxError, match="unknown preset 'best'; known are digits-srigl"):
        preset_config("best", {})
    with pytest.raises(SparsefxError, match="the data cifar10 are not in the package; say where they are"):
        run(TrainConfig(data="cifar10"))
    assert "distribution" in method_options("RigL") and "distribution" not in method_options("SNIP")
    assert {"costs", "latency_budget"} <= set(method_options("HALP"))
    assert "criterion" in method_options("Chase") and "loss_fn" not in method_options("GraSP")


@pytest.mark.parametrize("name", [*NETS, "mobilenet_v3_small"])
def test_every_network_takes_small_images(name: str) -> None:
    model = build_net(name, (3, 32, 32), 7).eval()
    with torch.no_grad():
        assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 7)


def test_a_torchvision_that_cannot_be_imported_is_told_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> None:
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr("importlib.import_module", broken)
    with pytest.raises(SparsefxError, match=r"nms does not exist; install the torchvision that belongs to torch 2\."):
        build_net("resnet18", (3, 32, 32), 7)


def test_networks_from_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mynets.py").write_text(
        "from torch import nn\ndef make(n): return nn.Linear(3, n)\ndef no(n): return n\n"
    )
    monkeypatch.chdir(tmp_path)
    assert isinstance(build_net("mynets:make", (3, 8, 8), 4), nn.Linear)
    with pytest.raises(SparsefxError, match=r"mynets:no must return a torch.nn.Module, found int"):
        build_net("mynets:no", (3, 8, 8), 4)
    with pytest.raises(SparsefxError, match=r"cannot build nowhere:make for 4 classes: No module named 'nowhere'"):
        build_net("nowhere:make", (3, 8, 8), 4)
    with pytest.raises(SparsefxError, match=r"unknown network 'resnet' \(did you mean resnet50\?\); known are small"):
        build_net("resnet", (3, 8, 8), 4)


def test_accuracy_of_anything_callable() -> None:
    task = load_digits()

    def right(images: Tensor) -> Tensor:
        return torch.nn.functional.one_hot(task.test_labels, 10)

    def in_numpy(images: Tensor) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
        logits = np.zeros((len(images), 10))
        logits[:, 3] = 1.0
        return logits

    assert accuracy(right, task) == 1.0
    assert accuracy(in_numpy, task) == pytest.approx(float((task.test_labels == 3).float().mean()))
