"""What every importer returns."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ..masks import MaskSet


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """Weights (and buffers) on the CPU by the names that the model has for them, their masks, and the layout in words.

    Weights are as they were saved: where a mask is 0, a weight may still be another number, and the mask wins.
    """

    weights: dict[str, Tensor]
    masks: MaskSet
    source: str

    @property
    def carries_masks(self) -> bool:
        """Whether the masks were saved beside the weights, and are not just their zeros."""
        return self.masks.method != "zeros"
