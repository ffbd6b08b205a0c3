"""Checkpoints of other training codes as weights and masks; recognised by content, and nothing is ever unpickled."""

from __future__ import annotations

from .checkpoint import Checkpoint
from .read import read_checkpoint

__all__ = ["Checkpoint", "read_checkpoint"]
