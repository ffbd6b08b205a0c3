"""What training has cost: passes over every layer, at the density they had."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass
class TrainingWork:
    """A training step makes three passes over a layer: forward, backward to its input, backward to its weights.

    A method says which of them are dense, the others are as sparse as the mask at the time (Evci et al. 2020,
    appendix H; IEE, appendix 3). `sparse` sums the non-zeros over the sparse passes, by layer.
    """

    steps: int = 0
    dense: int = 0
    sparse: dict[str, int] = field(default_factory=dict)
    _since: int = 0

    def count(self, dense: int) -> None:
        """One step, `dense` of whose three passes were dense."""
        self.steps += 1
        self.dense += dense
        self._since += 3 - dense

    def settle(self, nonzeros: Mapping[str, int]) -> None:
        """Book the steps since the last call at these non-zeros by layer; to be called before masks change."""
        if self._since:
            self.sparse = {name: self.sparse.get(name, 0) + self._since * count for name, count in nonzeros.items()}
            self._since = 0

    def flops(self, macs: Mapping[str, int], sizes: Mapping[str, int]) -> float:
        """FLOPs of all steps for one sample a step, two a multiply-accumulate; call `settle` first.

        `macs` are those of one dense forward pass by weight name (see flops.layer_macs), `sizes` the weights of the
        sparsified layers; a layer that is not sparsified counts in full.
        """
        passes = {name: self.dense + self.sparse.get(name, 0) / size for name, size in sizes.items()}
        return 2 * sum(count * passes.get(name, 3 * self.steps) for name, count in macs.items())
