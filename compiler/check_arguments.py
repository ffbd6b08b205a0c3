"""What the compiler is called with, checked before anything is computed with it."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.fx import GraphModule
from torch.nn.parameter import is_lazy
from torch.utils import _pytree as pytree

from ..passes.channels.rules import OperatorRule
from ..passes.errors import CaptureError, MaskError, SparsefxError
from ..passes.near_names import closest
from ..training.masks import MaskSet


def check_arguments(model: Any, example_inputs: Any, masks: Any) -> None:
    """CaptureError or MaskError where a model, its example inputs or its masks are something else."""
    if not isinstance(model, nn.Module | ExportedProgram):
        raise CaptureError(
            f"the model must be a torch.nn.Module or an ExportedProgram, found {type(model).__name__}; wrap a "
            "function in a module, and load a state dict into the model that it is of"
        )
    if not isinstance(example_inputs, tuple | list):
        raise CaptureError(
            f"example_inputs must be a tuple of the arguments of one call, found {type(example_inputs).__name__}; "
            "write (x,) for a single one"
        )
    if any(isinstance(leaf, Tensor) and leaf.is_meta for leaf in pytree.tree_leaves(example_inputs)):
        raise CaptureError(
            "example_inputs are on the meta device, where tensors have no values; make them by torch.randn"
        )
    if not (masks is None or isinstance(masks, MaskSet | str | os.PathLike)):
        raise MaskError(
            f"masks must be a MaskSet or the path of its file, found {type(masks).__name__}; of masks by parameter "
            "name make one: MaskSet({name: mask})"
        )
    if isinstance(model, nn.Module):
        _check_tensors(model)


def check_tolerance(tolerance: float) -> None:
    """SparsefxError for one that nothing can meet."""
    if not (math.isfinite(tolerance) and tolerance > 0):
        raise SparsefxError(
            f"tolerance must be a positive number of standard deviations, found {tolerance}; leave it out for 1e-4, or "
            "pass verify=False to compare nothing"
        )


def check_rules(rules: Mapping[str, Any] | None) -> None:
    """CaptureError for a rule that is none, or of an operator that torch does not have."""
    operators = {name.partition(".")[0] for name in torch._C._dispatch_get_all_op_names()} if rules else set()
    for name, rule in (rules or {}).items():
        if not isinstance(rule, OperatorRule):
            raise CaptureError(
                f"the rule of {name} must be an OperatorRule (see sparsefx.passes.channels.rules), "
                f"found {type(rule).__name__}"
            )
        if name not in operators:
            raise CaptureError(
                f"there is a rule for {name}, but torch has no such operator{closest(name, operators)}; names "
                "look like aten::relu, and a custom operator must be registered first"
            )


def check_finite(graph: GraphModule) -> list[str]:
    """Notes on parameters of a masked graph that hold infinities; CaptureError where one is not a number."""
    notes = []
    for name, parameter in graph.named_parameters():
        if not parameter.is_floating_point():
            continue
        bad = int(parameter.isnan().sum())
        if bad:
            raise CaptureError(
                f"{bad} of {parameter.numel()} values of {name} are not a number (NaN), and so would the outputs be: "
                "the training diverged, or the checkpoint is damaged; take an earlier checkpoint"
            )
        if parameter.isinf().any():
            notes.append(f"{name} has infinite values")
    return notes


def training_note(model: Any) -> list[str]:
    """That a model was captured in another mode than it is in, where that makes a difference."""
    differ = (nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd, nn.modules.instancenorm._InstanceNorm)
    if not isinstance(model, nn.Module):
        return []
    kinds = sorted({type(m).__name__ for m in model.modules() if m.training and isinstance(m, differ)})
    if not kinds:
        return []
    return [
        f"the model is in training mode and was captured in evaluation mode, which matters to {', '.join(kinds)}; its "
        "own mode was left as it is"
    ]


def _check_tensors(model: nn.Module) -> None:
    tensors: Iterable[tuple[str, Tensor]] = [*model.named_parameters(), *model.named_buffers()]
    for name, tensor in tensors:
        if is_lazy(tensor):
            raise CaptureError(
                f"{name} of {type(model).__name__} has no shape yet (a lazy module); call the model once on "
                "an example before"
            )
        if tensor.is_meta:
            raise CaptureError(
                f"{name} of {type(model).__name__} is on the meta device, where tensors have no values; make the "
                "model on a device (model.to_empty(device='cpu')) and load its weights"
            )
