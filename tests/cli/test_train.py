"""`sparsefx train`, and what is left of it after kill -9."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import sparsefx
from sparsefx.__main__ import main
from sparsefx.runtime.latency.record import Record
from sparsefx.training import MaskSet
from sparsefx.training.recipes.checkpoint import read_checkpoint
from sparsefx.training.recipes.data.digits import load_digits
from sparsefx.training.recipes.nets import build_net
from sparsefx.training.recipes.trained import accuracy

FLAGS = ["--method", "RigL", "--epochs", "2", "--checkpoint-steps", "3", "--threads", "1", "--quiet"]


@pytest.mark.ci
def test_killed_and_resumed_it_ends_in_the_same_masks(tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert main(["train", "-o", str(whole), *FLAGS]) == 0
    process = subprocess.Popen([sys.executable, "-m", "sparsefx", "train", "-o", str(killed), *FLAGS])
    checkpoint, deadline = killed / "checkpoint.pt", time.monotonic() + 120
    while not checkpoint.exists():
        assert process.poll() is None and time.monotonic() < deadline, "it ended before there was a checkpoint"
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    assert process.wait(60) == -signal.SIGKILL
    reached = read_checkpoint(checkpoint)
    assert (reached["epoch"], reached["batch"]) < (3, 0), "the kill came in the middle"
    assert not (killed / "masks.safetensors").exists()

    assert main(["train", "-o", str(killed), "--resume", "--threads", "1", "--quiet"]) == 0
    assert MaskSet.load(killed / "masks.safetensors").equals(MaskSet.load(whole / "masks.safetensors"))
    one, other = (load_file(folder / "weights.safetensors") for folder in (whole, killed))
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
    assert (killed / "history.json").read_text() == (whole / "history.json").read_text()


@pytest.mark.ci
def test_on_to_the_engine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    flags = [
        "--preset",
        "digits-chase",
        "--epochs",
        "2",
        "--sparsity",
        "0.8",
        "--set",
        "criterion=ws",
        "--threads",
        "1",
    ]
    assert main(["train", "-o", str(run), *flags, "--threads", "1", "--plot", "--compile", "--json"]) == 0
    captured = capsys.readouterr()
    assert "epoch 2/2: loss" in captured.err and "80.00% zeros" in captured.err
    found = json.loads(captured.out)
    assert found["config"]["options"] == {
        "channel_sparsity": 0.5,
        "minimum_width": 0.5,
        "prune_skip": True,
        "criterion": "ws",
        "sparsity": 0.8,
    }
    totals = found["report"]["totals"]
    assert totals["channels_after"] <= 0.55 * totals["channels_before"], "half the channels, residual sums included"
    names = {path.name for path in run.iterdir()}
    assert names == {
        "checkpoint.pt",
        "epochs.json",
        "weights.safetensors",
        "masks.safetensors",
        "history.json",
        "history.png",
        "model.sfx",
    }
    assert accuracy(sparsefx.load(run / "model.sfx"), load_digits()) == found["epochs"][-1]["accuracy"]
    assert 0 < found["flops"]["inference_share"] < 0.6 and 0 < found["flops"]["training_share"] < 0.6
    assert len(json.loads((run / "history.json").read_text())) > 2


def in_proportion(record: Record) -> Record:
    """Times that the machine has no part in: a nanosecond for every product of widths."""
    nodes = tuple(replace(timed, seconds=1e-9 * timed.node.width[0] * timed.node.width[1]) for timed in record.nodes)
    return replace(record, nodes=nodes, whole=sum(timed.seconds for timed in nodes), calibration=1e-3)


@pytest.mark.ci
def test_a_latency_budget_is_told_beside_the_engine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    task, table = load_digits(), tmp_path / "table"
    images = next(iter(task.test_batches(4)))[0]
    net = build_net("small_resnet", task.image_shape, task.classes)
    measured = sparsefx.profile(net, (images,), threads=1, grid=(1.0, 0.1), tight=10.0)
    sparsefx.LatencyTable(measured.setting, map(in_proportion, measured.records), measured.header).save(table)
    flags = ["--method", "ChannelIEE", "--epochs", "1", "--set", f"costs={table}", "--set", "budget=0.8", "--quiet"]
    assert main(["train", "-o", str(tmp_path / "run"), *flags, "--compile", "--json"]) == 0
    latency = json.loads(capsys.readouterr().out)["latency"]
    assert 0 < latency["table_ms"] <= latency["budget_ms"] and latency["engine_ms"] > 0
    manifest = json.loads((tmp_path / "run" / "model.sfx" / "manifest.json").read_text())
    assert manifest["settings"]["threads"] == 1, "the table's threads, where none are given"


@pytest.mark.ci
def test_a_dense_training_and_its_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ("--method", "none", "--epochs", "1", "--threads", "1", "--precision", "bfloat16")
    assert main(["train", "-o", str(tmp_path / "run"), *flags]) == 0
    captured = capsys.readouterr()
    assert "Accuracy on 359 test images" in captured.out and "Zero weights" not in captured.out
    assert f"In {tmp_path / 'run'}: weights.safetensors" in " ".join(captured.out.split())


def test_presets_are_listed_with_their_source(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--list-presets"]) == 0
    assert "chase-cifar100-vgg19        Chase, Table 9" in capsys.readouterr().out
    assert main(["train", "--list-presets", "--json"]) == 0
    presets = json.loads(capsys.readouterr().out)
    assert presets["chase-cifar100-vgg19"]["settings"]["options"]["channel_interval"] == 8000


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "say where weights, masks and checkpoints go: -o FOLDER"),
        (["-o", "run", "--method", "Lottery"], "unknown method 'Lottery'"),
        (["-o", "run", "--set", "gamma"], "--set takes NAME=VALUE, found 'gamma'"),
        (["-o", "run", "--set", "gamma=much"], "SRigL cannot work with the options {'gamma': 'much'}"),
        (["-o", "run", "--preset", "best"], "unknown preset 'best'"),
        (["-o", "run", "--resume"], "there is no checkpoint"),
        (["-o", "run", "--data", "cifar10"], "the data cifar10 are not in the package"),
    ],
)
def test_what_makes_no_sense_is_refused(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    flags: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", *flags]) == 2
    assert message in capsys.readouterr().err


def test_a_folder_with_a_training_is_not_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["train", "-o", str(tmp_path / "run"), "--epochs", "1", "--method", "Random", "--threads", "1", "--quiet"]
    flags += ["--sparsity", "0.8"]
    assert main(flags) == 0
    before = MaskSet.load(tmp_path / "run" / "masks.safetensors")
    assert main(flags) == 2
    assert "holds a training already; resume it (--resume), or choose another folder" in capsys.readouterr().err
    assert main([*flags, "--resume"]) == 0, "the flags of the first time may be given again"
    assert main([*flags, "--resume", "--seed", "3"]) == 2
    assert "has seed 0, asked is 3" in capsys.readouterr().err
    assert main([*flags, "--resume", "--sparsity", "0.5"]) == 2
    assert "--resume takes the method's options from the checkpoint; drop --sparsity" in capsys.readouterr().err
    assert MaskSet.load(tmp_path / "run" / "masks.safetensors").equals(before)
