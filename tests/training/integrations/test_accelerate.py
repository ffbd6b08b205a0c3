"""Sparsifiers through Accelerate's `prepare`: accumulation, bfloat16, save_state and load_state, trackers."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from sparsefx.passes.errors import SparsefxError
from sparsefx.training import MaskSet

from .task import STEPS_AN_EPOCH, assert_on_masks, assert_same, loader, rigl, small_net

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of its own imports
    accelerate = pytest.importorskip("accelerate", reason="needs accelerate")
from sparsefx.training.integrations.accelerate import log_sparsifier, save_masks

pytestmark = pytest.mark.filterwarnings("ignore")
EPOCHS = 2


class Run:
    """A training as Accelerate's guide writes it."""

    def __init__(self, *, accumulate: int = 1, precision: str = "no") -> None:
        self.accelerator = accelerate.Accelerator(
            cpu=True,
            gradient_accumulation_steps=accumulate,
            mixed_precision=precision,
            step_scheduler_with_optimizer=False,
        )
        net = small_net()
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
        self.inner = rigl(net, optimizer, EPOCHS * STEPS_AN_EPOCH // accumulate)
        self.net, self.sparsifier, self.loader = self.accelerator.prepare(net, self.inner, loader())

    def epoch(self) -> None:
        for images, labels in self.loader:
            with self.accelerator.accumulate(self.net):
                loss = F.cross_entropy(self.net(images), labels)
                self.accelerator.backward(loss)
                self.sparsifier.step()
                self.sparsifier.zero_grad()


@pytest.fixture(autouse=True)
def _fresh_state() -> Any:
    yield
    accelerate.state.AcceleratorState._reset_state(reset_partial_state=True)
    accelerate.state.GradientState._reset_state()


def test_it_trains_as_a_loop_written_by_hand() -> None:
    run = Run(accumulate=2)
    for _ in range(EPOCHS):
        run.epoch()
    net = small_net()
    sparsifier = rigl(net, torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9), EPOCHS * STEPS_AN_EPOCH // 2)
    for _ in range(EPOCHS):
        for i, (images, labels) in enumerate(loader()):
            (F.cross_entropy(net(images), labels) / 2).backward()
            if i % 2 == 1:
                sparsifier.step()
                sparsifier.zero_grad()
    assert run.inner.step_count == sparsifier.step_count == EPOCHS * STEPS_AN_EPOCH // 2
    assert_on_masks(run.net, run.inner)
    assert_same(run.accelerator.unwrap_model(run.net), net)


def test_bfloat16() -> None:
    run = Run(precision="bf16")
    run.epoch()
    assert_on_masks(run.accelerator.unwrap_model(run.net), run.inner)


def test_a_resumed_run_equals_one_that_was_not_stopped(tmp_path: Path) -> None:
    whole = Run()
    whole.epoch()
    whole.accelerator.save_state(str(tmp_path))
    whole.epoch()
    resumed = Run()
    _spoil(resumed.net)
    resumed.accelerator.load_state(str(tmp_path))
    resumed.epoch()
    assert resumed.inner.step_count == whole.inner.step_count
    assert_same(resumed.net, whole.net)
    assert resumed.inner.masks().equals(whole.inner.masks()) and resumed.inner.history == whole.inner.history


def _spoil(net: nn.Module) -> None:
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.zero_()


def test_figures_and_masks(tmp_path: Path) -> None:
    run = Run()
    run.epoch()
    found = log_sparsifier(run.accelerator, run.sparsifier, step=run.inner.step_count)
    assert found["sparsifier/nonzeros"] == run.inner.nonzeros
    assert found["sparsifier/iou"] == run.inner.history[-1].iou
    save_masks(run.accelerator, run.sparsifier, tmp_path / "masks.safetensors")
    assert MaskSet.load(tmp_path / "masks.safetensors").equals(run.inner.masks())


def test_an_ordinary_optimizer_is_refused() -> None:
    run = Run()
    plain = run.accelerator.prepare_optimizer(torch.optim.SGD(run.net.parameters(), lr=0.1))
    with pytest.raises(SparsefxError, match=r"found 0 \(the optimizers: SGD\)"):
        log_sparsifier(run.accelerator, plain)
