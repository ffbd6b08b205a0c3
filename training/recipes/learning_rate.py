"""Learning-rate schedules by the name that a config gives them."""

from __future__ import annotations

from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, LRScheduler, MultiStepLR, OneCycleLR, SequentialLR

from .config import TrainConfig


def learning_rate_schedule(optimizer: Optimizer, config: TrainConfig, steps_per_epoch: int) -> LRScheduler:
    """The schedule that a config names; to be stepped after every training step."""
    total = config.epochs * steps_per_epoch
    if config.schedule == "one_cycle":
        return OneCycleLR(optimizer, config.learning_rate, total_steps=total, pct_start=0.2)
    if config.schedule == "steps":
        return MultiStepLR(optimizer, [epoch * steps_per_epoch for epoch in config.milestones], 1 / config.decay)
    warmup = round(config.warmup_epochs * steps_per_epoch)
    cosine = CosineAnnealingLR(optimizer, max(1, total - warmup))
    if not warmup:
        return cosine
    return SequentialLR(optimizer, [LinearLR(optimizer, 1 / warmup, total_iters=warmup), cosine], [warmup])
