"""Which layers of a model are sparsified, and why the others are not."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Self

import torch
from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel

from ..passes.errors import MaskError
from ..passes.near_names import closest
from .model_weights import is_pruned
from .sparse_layer import SparseLayer
from .weight_layout import WeightLayout

_UNTRAINED = "not trained by the optimizer"
_SHOWN = 3  # of many layers

SPARSIFIED_TYPES = (
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
    nn.Linear,
)


@dataclass(frozen=True)
class LayerPatterns:
    """fnmatch patterns on module names, parameter names or types: "layer1.*", "*.conv1.weight", "Conv2d".

    Only what matches `include` is sparsified. What matches `exclude` is left alone and not counted; what matches
    `dense` stays dense, but counts: the others become sparser, so that the whole meets the target. `first_dense`
    does the same for the first layer.
    """

    include: tuple[str, ...] = ("*",)
    exclude: tuple[str, ...] = ()
    dense: tuple[str, ...] = ()
    first_dense: bool = False

    @classmethod
    def of(
        cls, include: Iterable[str], exclude: Iterable[str], dense: Iterable[str], *, first_dense: bool = False
    ) -> Self:
        """From lists of patterns, or a single pattern in place of a list."""
        return cls(_as_patterns(include), _as_patterns(exclude), _as_patterns(dense), first_dense)


def _as_patterns(given: Iterable[str]) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else tuple(given)


@dataclass(frozen=True)
class LayerChoice:
    """`aliases` maps every name of a tied parameter to the layer's; `dense_reasons` names what stays dense."""

    layers: dict[str, SparseLayer]
    aliases: dict[str, str]
    dense_reasons: dict[str, str]


def bare_model(model: nn.Module) -> nn.Module:
    """The model inside DataParallel, DistributedDataParallel, AveragedModel and torch.compile; masks use its names."""
    while True:
        if isinstance(model, DataParallel | DistributedDataParallel | AveragedModel):
            model = model.module
        elif isinstance(getattr(model, "_orig_mod", None), nn.Module):
            model = model._orig_mod  # type: ignore[assignment]
        else:
            return model


def choose_layers(model: nn.Module, optimizer: Optimizer, patterns: LayerPatterns) -> LayerChoice:
    """Weights of convolutions and linear layers that match the patterns and are trained by the optimizer.

    Raises MaskError for a pattern that matches nothing, a layer that torch.nn.utils.prune masks already, a lazy
    layer without shape, and where nothing is left to sparsify.
    """
    weights = list(_weights(model))
    if weights:
        _reject_idle_patterns(patterns, weights)
    trained = {id(p) for group in optimizer.param_groups for p in group["params"]}
    layers: dict[str, SparseLayer] = {}
    reasons: dict[str, str] = {}
    first: dict[int, str] = {}
    for weight in weights:
        if first.setdefault(id(weight.parameter), weight.name) != weight.name:
            continue
        reason = _reason_to_leave(weight, weights, patterns, trained)
        if reason is not None:
            reasons[weight.name] = reason
            continue
        kept = _reason_to_keep_dense(weight, patterns, is_first=not layers)
        if kept is not None:
            reasons[weight.name] = kept
        layers[weight.name] = _layer(weight, kept_dense=kept is not None)
    if not any(not layer.kept_dense for layer in layers.values()):
        raise MaskError(f"nothing to sparsify in {type(model).__name__}: {_summary(reasons) or 'it has no weights'}")
    aliases = {w.name: first[id(w.parameter)] for w in weights}
    return LayerChoice(layers, aliases, reasons)


def _summary(reasons: Mapping[str, str]) -> str:
    """Reasons with the first layer that each is of, and what to do about the common one."""
    names: dict[str, list[str]] = {}
    for name, reason in reasons.items():
        names.setdefault(reason, []).append(name)
    parts = [
        f"{some[0]}{f' and {len(some) - 1} more' if len(some) > 1 else ''}: {reason}" for reason, some in names.items()
    ]
    if _UNTRAINED in names:
        parts.append("make the optimizer from the parameters() of this very model")
    return "; ".join(parts)


def matches(name: str, patterns: Sequence[str]) -> bool:
    """Whether a parameter's name, or that of its module, matches one of the fnmatch patterns."""
    return any(fnmatchcase(name.rpartition(".")[0], p) or fnmatchcase(name, p) for p in patterns)


@dataclass(frozen=True, eq=False)
class _Weight:
    module_name: str
    module: nn.Module
    name: str
    parameter: nn.Parameter

    @property
    def is_sparsified_type(self) -> bool:
        return isinstance(self.module, SPARSIFIED_TYPES) and self.name.rpartition(".")[2] == "weight"

    def matches(self, patterns: Sequence[str]) -> bool:
        return matches(self.name, patterns) or any(fnmatchcase(type(self.module).__name__, p) for p in patterns)


def _weights(model: nn.Module) -> Iterator[_Weight]:
    """Every parameter with two or more axes, in order of definition; tied ones under each name."""
    for module_name, module in model.named_modules(remove_duplicate=False):
        for attribute, parameter in module._parameters.items():
            name = f"{module_name}.{attribute}" if module_name else attribute
            if isinstance(parameter, nn.UninitializedParameter):
                raise MaskError(f"{name} has no shape yet; run the lazy model once before sparsifying it")
            if attribute == "weight_orig" and is_pruned(module, "weight"):
                raise MaskError(
                    f"{module_name} is masked by torch.nn.utils.prune already; call prune.remove first, or keep its "
                    "masks with MaskSet.from_pruning"
                )
            if parameter is not None and parameter.ndim >= 2:
                yield _Weight(module_name, module, name, parameter)


def _reason_to_leave(
    weight: _Weight, weights: Sequence[_Weight], patterns: LayerPatterns, trained: set[int]
) -> str | None:
    if not weight.is_sparsified_type:
        return f"a parameter of {type(weight.module).__name__}, which is not sparsified"
    other = next((w for w in weights if w.parameter is weight.parameter and not w.is_sparsified_type), None)
    if other is not None:
        return f"tied to {other.name}, which is not sparsified"
    if weight.matches(patterns.exclude) or not weight.matches(patterns.include):
        return "excluded by pattern"
    if not weight.parameter.requires_grad:
        return "frozen"
    return None if id(weight.parameter) in trained else _UNTRAINED


def _reason_to_keep_dense(weight: _Weight, patterns: LayerPatterns, *, is_first: bool) -> str | None:
    if weight.matches(patterns.dense):
        return "kept dense by pattern"
    return "the first layer" if is_first and patterns.first_dense else None


def _layer(weight: _Weight, *, kept_dense: bool) -> SparseLayer:
    mask = torch.ones_like(weight.parameter, dtype=torch.bool)
    return SparseLayer(weight.name, weight.parameter, WeightLayout.of(weight.module), mask, kept_dense)


def _reject_idle_patterns(patterns: LayerPatterns, weights: Sequence[_Weight]) -> None:
    for kind in ("include", "exclude", "dense"):
        for pattern in getattr(patterns, kind):
            if not any(weight.matches([pattern]) for weight in weights):
                near = closest(pattern, [weight.module_name for weight in weights])
                names = ", ".join(dict.fromkeys(weight.module_name for weight in weights[:_SHOWN]))
                raise MaskError(f"{kind} pattern {pattern!r} matches no layer{near}; layers are {names}, ...")
