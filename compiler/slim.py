"""`sparsefx.slim`: the user's own module with smaller parameters, to be trained on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.fx import GraphModule
from torch.utils import _pytree as pytree

from ..passes.capture import capture
from ..passes.channels.rules import OperatorRule
from ..passes.errors import CaptureError, MaskError
from ..training.masks import MaskSet
from ..training.model_weights import weights_of
from .prepare import Masks, capture_masked
from .sampling import Sample, as_samples, samples_for_verification
from .slimming.build import build, copy_module
from .slimming.check import check_outputs, check_training
from .slimming.config import attach, make_config, rebuild_slim
from .slimming.remap import remap_masks
from .slimming.settle import settle

__all__ = ["rebuild_slim", "slim"]


def slim(
    model: nn.Module,
    example_inputs: tuple[Any, ...],
    masks: Masks = None,
    *,
    kwargs: Mapping[str, Any] | None = None,
    dynamic_batch: bool = True,
    dynamic_shapes: Any = None,
    fixed_sizes: bool = False,
    rules: Mapping[str, OperatorRule] | None = None,
    verify: bool = True,
    verify_inputs: Any = None,
    tolerance: float | None = None,
) -> tuple[nn.Module, MaskSet]:
    """A copy of `model`, of the same module classes, without the channels that its masks make useless; and its masks.

    In evaluation mode the copy computes what the masked model computes: constants of removed channels go into biases
    (which layers without one are given), and through padded convolutions into kept channels of zero weights. In
    training mode BatchNorm uses the batch's statistics, and the constants are those of the evaluation mode. The model
    is left as it is. `masks` is a MaskSet or its file; without one the zeros in the weights are the mask. The masks
    that come back fit the copy; method, step and settings are kept.

    The copy has its configuration as `config` (as `slim_config` where the class has a `config` of its own): plain JSON,
    from which `sparsefx.rebuild_slim(full_size_model, config)` builds it again for `load_state_dict`.

    Channels whose constants vary over positions stay, so that images may have other sizes; with `fixed_sizes` they go
    too, and the copy is exact at the example's sizes only. `kwargs`, `dynamic_batch`, `dynamic_shapes`, `rules`,
    `verify` and `verify_inputs` as in `compile`. `tolerance` is in standard deviations of the output: 1e-9 for models
    in float64 unless given, else 1e-4.

    Channels also stay where `forward` fixes their number; the configuration says where, as `kept_for_forward`.
    Raises CaptureError, MaskError, and VerificationError where forward fixes sizes in a way that cannot be kept, where
    an output differs, or where the copy fails in training mode and the model does not.
    """
    if not isinstance(model, nn.Module):
        raise CaptureError(
            f"slim returns a module of the model's own classes, so it wants a torch.nn.Module; found a "
            f'{type(model).__name__}. Use sparsefx.compile(..., target="torch").graph_module'
        )
    full, example = _on_cpu(model), _sample_on_cpu(example_inputs, kwargs)
    mask_set = _mask_set(full, masks)
    masked = capture_masked(full, example, mask_set, dynamic_batch, dynamic_shapes, fold=False)

    def recapture(module: nn.Module) -> GraphModule:
        options = {"dynamic_batch": dynamic_batch, "dynamic_shapes": dynamic_shapes}
        return capture(module, example.args, example.kwargs, **options)

    settled = settle(full, mask_set, masked.graph, recapture, rules, measure=fixed_sizes)
    samples = samples_for_verification(
        example, batches=masked.batches, given=as_samples(verify_inputs, masked.signature)
    )
    if verify:
        check_outputs(settled.module, masked.reference(full), masked.signature, samples, tolerance)
    check_training(full, settled.module, samples)
    small = settled.module if full is model else build(model, mask_set, settled.cuts)
    sizes = "the example's sizes" if fixed_sizes else "any size that was not fixed by the capture"
    attach(small, make_config(full, settled.module, settled.cuts, settled.fixed, sizes))
    return small, remap_masks(mask_set, full, small, settled.cuts)


def _on_cpu(model: nn.Module) -> nn.Module:
    """The model itself, or a copy of one that is elsewhere."""
    tensors = [*model.parameters(), *model.buffers()]
    return model if all(t.device.type == "cpu" for t in tensors) else copy_module(model).cpu()


def _sample_on_cpu(args: tuple[Any, ...], kwargs: Mapping[str, Any] | None) -> Sample:
    def moved(leaf: Any) -> Any:
        return leaf.cpu() if isinstance(leaf, Tensor) else leaf

    return Sample(pytree.tree_map(moved, tuple(args)), pytree.tree_map(moved, dict(kwargs or {})))


def _mask_set(model: nn.Module, masks: Masks) -> MaskSet:
    pruned = [name for name, weight in weights_of(model).items() if weight.pruning is not None]
    if pruned:
        raise MaskError(
            f"{pruned[0]} is under torch.nn.utils.prune, which computes it anew in every forward; take the masks by "
            "MaskSet.from_pruning(model), then call torch.nn.utils.prune.remove for every pruned parameter"
        )
    if masks is None:
        return MaskSet.from_zeros(model) if any(True for _ in model.parameters()) else MaskSet({})
    mask_set = masks if isinstance(masks, MaskSet) else MaskSet.load(masks)
    mask_set.check(model)
    return mask_set
