"""The front of the compiler: a model and its masks become a captured graph and a reference."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.fx import GraphModule

from ..passes.capture import capture
from ..passes.describe import describe
from ..passes.fold_constants import FoldConstants
from ..passes.patterns import apply_patterns
from ..passes.signature import Signature
from ..training.masks import MaskSet
from ..training.model_weights import weights_of
from .check_arguments import check_finite, training_note
from .masked_model import MaskedModel
from .sampling import Sample

Model = nn.Module | ExportedProgram | GraphModule
Masks = MaskSet | str | os.PathLike[str] | None


@dataclass(frozen=True)
class Captured:
    """A captured graph with masks applied."""

    graph: GraphModule
    signature: Signature
    state: Mapping[str, Tensor]  # the module's masked weights
    notes: list[str]  # what the user should know
    batches: bool  # whether inputs of any batch size may be tried
    masks: MaskSet | None

    def reference(self, model: Model) -> MaskedModel:
        return MaskedModel(model, self.state, self.graph, self.signature)

    def describe_masks(self) -> dict[str, Any] | None:
        """How the masks were made, as JSON; None where the zeros in the weights are the mask."""
        if self.masks is None:
            return None
        made = {key: getattr(self.masks, key) for key in ("method", "step", "settings", "versions")}
        return {**made, "parameters": len(self.masks), "density": self.masks.density()}


def capture_masked(
    model: Model,
    example: Sample,
    masks: Masks,
    dynamic_batch: bool,
    dynamic_shapes: Any,
    *,
    fold: bool = True,
) -> Captured:
    """Capture a model and apply its masks (a MaskSet, its file, or none). Raises CaptureError and MaskError.

    Without `fold` expressions of parameters stay what the model computes from them.
    """
    mask_set = masks if isinstance(masks, MaskSet) or masks is None else MaskSet.load(masks)
    patterns = _patterns(model, mask_set)
    graph = capture(model, example.args, example.kwargs, dynamic_batch=dynamic_batch, dynamic_shapes=dynamic_shapes)
    unread = apply_patterns(graph, patterns)
    notes = [*training_note(model), *check_finite(graph)]
    if fold:
        FoldConstants()(graph)  # expressions of parameters become parameters, by which layers are then known
    state = mask_set.masked_state(model) if mask_set is not None and isinstance(model, nn.Module) else {}
    batches = dynamic_batch and dynamic_shapes is None and not isinstance(model, ExportedProgram)
    notes += [f"the mask of {name} has no effect: the model does not read it" for name in unread]
    return Captured(graph, describe(graph), state, notes, batches, mask_set)


def _patterns(model: Model, masks: MaskSet | None) -> dict[str, Tensor]:
    """Masks by the names that the model itself has for its parameters, checked against their shapes."""
    if masks is None:
        return {}
    if isinstance(model, ExportedProgram):
        masks.check(model.state_dict)
        return dict(masks.items())
    masks.check(model)
    weights = weights_of(model)
    by_tensor = {id(weights[name].stored): mask for name, mask in masks.items()}
    return {w.own_name: by_tensor[id(w.stored)] for w in weights.values() if id(w.stored) in by_tensor}
