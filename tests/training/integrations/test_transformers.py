"""Sparsifiers as the optimizer of transformers' Trainer."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sparsefx.passes.errors import SparsefxError
from sparsefx.training import MaskSet

from .task import IMAGES, STEPS_AN_EPOCH, assert_on_masks, assert_same, digits, rigl, small_net

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of its own imports
    transformers = pytest.importorskip("transformers", reason="needs transformers")
    pytest.importorskip("accelerate", reason="needs accelerate")
from sparsefx.training.integrations.transformers import SparsifierCallback

pytestmark = pytest.mark.filterwarnings("ignore")
STEPS = 2 * STEPS_AN_EPOCH


class WithLoss(nn.Module):
    """The Trainer wants the loss from the model."""

    def __init__(self) -> None:
        super().__init__()
        self.net = small_net()

    def forward(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        logits = self.net(images)
        return {"loss": F.cross_entropy(logits, labels), "logits": logits}


class Training:
    def __init__(self, folder: Path, masks: Path | None = None, *, sparse: bool = True, stop_at: int = STEPS) -> None:
        self.model = WithLoss()
        optimizer: Any = torch.optim.SGD(self.model.net.parameters(), lr=0.1, momentum=0.9)
        self.sparsifier = rigl(self.model.net, optimizer, STEPS) if sparse else optimizer
        schedule = torch.optim.lr_scheduler.LambdaLR(self.sparsifier, lambda step: 1 - step / (2 * STEPS))
        arguments = transformers.TrainingArguments(
            output_dir=str(folder), max_steps=stop_at, per_device_train_batch_size=16, use_cpu=True, report_to=[],
            save_steps=STEPS_AN_EPOCH, logging_steps=1, disable_tqdm=True, seed=0, dataloader_pin_memory=False,
        )  # fmt: skip
        rows = [{"images": image, "labels": label} for image, label in digits()]
        assert len(rows) == IMAGES
        self.trainer = transformers.Trainer(
            model=self.model, args=arguments, train_dataset=rows, optimizers=(self.sparsifier, schedule),
            callbacks=[SparsifierCallback(masks=masks)],
        )  # fmt: skip


def test_the_trainer_trains_a_sparsifier_and_goes_on(tmp_path: Path) -> None:
    masks = tmp_path / "masks.safetensors"
    whole = Training(tmp_path / "whole", masks)
    whole.trainer.train()
    assert whole.sparsifier.step_count == STEPS
    assert_on_masks(whole.model.net, whole.sparsifier)
    assert MaskSet.load(masks).equals(whole.sparsifier.masks())
    logged = [entry["sparsifier/nonzeros"] for entry in whole.trainer.state.log_history]
    assert logged and logged[-1] == whole.sparsifier.nonzeros

    resumed = Training(tmp_path / "whole")
    resumed.trainer.train(resume_from_checkpoint=str(tmp_path / "whole" / f"checkpoint-{STEPS_AN_EPOCH}"))
    assert resumed.sparsifier.step_count == STEPS
    assert_same(resumed.model, whole.model)
    assert resumed.sparsifier.masks().equals(whole.sparsifier.masks())


def test_an_ordinary_optimizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SparsefxError, match=r"found 0 \(the optimizers: SGD\)"):
        Training(tmp_path, sparse=False).trainer.train()
