"""What mask updates did: the figures by which the papers judge the exploration of masks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from .amenable import channel_magnitudes, channel_sparsities, fallen_share, risen_share
from .packed_mask import PackedMask
from .sparse_layer import SparseLayer


@dataclass(frozen=True)
class MaskUpdate:
    """One mask update, counted over all sparsified layers.

    drop_fraction     share of the active weights that was up for exchange
    dropped, grown    weights that left and joined the mask (one that was dropped and regrown at once did neither)
    survived          share of the weights grown by the last update that grew any which are in the mask after this
                      one (growth survival rate, IEE, section 4.4); None where nothing had been grown
    iou               |old and new| / |old or new|
    nonzeros          weights in the mask after the update
    amenable          share of channels whose UMM fell by more than 20% since the start (Chase, section 2.2)
    sparser           share of channels whose weight sparsity rose by more than 20% (the same by WS)
    active_channels   output channels with a weight in the mask
    removed_channels  channels removed for good so far
    """

    step: int
    drop_fraction: float
    dropped: int
    grown: int
    survived: float | None
    iou: float
    nonzeros: int
    amenable: float
    sparser: float
    active_channels: int
    removed_channels: int = 0


class MaskRecorder:
    """Collects a MaskUpdate per update; keeps one bit per weight to know later what has been grown."""

    def __init__(self, layers: Mapping[str, SparseLayer]) -> None:
        self._layers = layers
        self._first_magnitudes = self._channels(channel_magnitudes)
        self._first_sparsities = self._channels(channel_sparsities)
        self._grown: dict[str, PackedMask] = {}
        self.updates: list[MaskUpdate] = []

    def record(self, step: int, old: Mapping[str, Tensor], drop_fraction: float, removed_channels: int) -> None:
        """The change from the `old` masks to those of the layers now."""
        new = {name: layer.mask for name, layer in self._layers.items()}
        kept = sum(int((mask & new[name]).sum()) for name, mask in old.items())
        dropped = sum(int(mask.sum()) for mask in old.values()) - kept
        nonzeros = sum(int(mask.sum()) for mask in new.values())
        union = dropped + nonzeros
        self.updates.append(
            MaskUpdate(
                step=step,
                drop_fraction=drop_fraction,
                dropped=dropped,
                grown=nonzeros - kept,
                survived=self._survived(new),
                iou=kept / union if union else 1.0,
                nonzeros=nonzeros,
                amenable=fallen_share(self._first_magnitudes, self._channels(channel_magnitudes)),
                sparser=risen_share(self._first_sparsities, self._channels(channel_sparsities)),
                active_channels=sum(layer.active_channels for layer in self._layers.values()),
                removed_channels=removed_channels,
            )
        )
        if nonzeros > kept:
            self._grown = {name: PackedMask.pack(mask & ~old[name]) for name, mask in new.items()}

    def state(self) -> dict[str, Any]:
        """What resuming needs; tensors, numbers and strings only."""
        return {
            "updates": [asdict(update) for update in self.updates],
            "first_magnitudes": self._first_magnitudes,
            "first_sparsities": self._first_sparsities,
            "grown": {name: mask.unpack() for name, mask in self._grown.items()},
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.updates = [MaskUpdate(**update) for update in state["updates"]]
        self._first_magnitudes = dict(state["first_magnitudes"])
        self._first_sparsities = dict(state["first_sparsities"])
        self._grown = {name: PackedMask.pack(mask) for name, mask in state["grown"].items()}

    def _channels(self, figure: Callable[[SparseLayer], Tensor]) -> dict[str, Tensor]:
        return {name: figure(layer) for name, layer in self._layers.items()}

    def _survived(self, new: Mapping[str, Tensor]) -> float | None:
        grown = sum(mask.nonzeros for mask in self._grown.values())
        if not grown:
            return None
        alive = sum(int((mask.unpack() & new[name].cpu()).sum()) for name, mask in self._grown.items())
        return alive / grown
