"""What a mask update did."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class MaskUpdate:
    """One mask update, counted over all sparsified layers.

    drop_fraction     share of the active weights that was up for exchange
    dropped, grown    weights that left and joined the mask (one that was dropped and regrown at once did neither)
    iou               |old and new| / |old or new|
    nonzeros          weights in the mask after the update
    amenable          share of channels whose UMM fell by more than 20% since the start (Chase, section 2.2)
    active_channels   output channels with a weight in the mask
    removed_channels  channels removed for good so far
    """

    step: int
    drop_fraction: float
    dropped: int
    grown: int
    iou: float
    nonzeros: int
    amenable: float
    active_channels: int
    removed_channels: int = 0


@dataclass(frozen=True)
class MaskChange:
    """How two sets of masks with the same names differ."""

    dropped: int
    grown: int
    kept: int

    @classmethod
    def between(cls, old: Mapping[str, Tensor], new: Mapping[str, Tensor]) -> MaskChange:
        kept = sum(int((mask & new[name]).sum()) for name, mask in old.items())
        before = sum(int(mask.sum()) for mask in old.values())
        after = sum(int(mask.sum()) for mask in new.values())
        return cls(before - kept, after - kept, kept)

    @property
    def iou(self) -> float:
        """Intersection over union; 1 where both are empty."""
        union = self.kept + self.dropped + self.grown
        return self.kept / union if union else 1.0
