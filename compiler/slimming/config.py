"""The plain data by which a slim module is built again from a full-size one."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ...passes.errors import BundleError
from .build import add_bias, copy_module, replace_tensor, sizes_of
from .cuts import Cuts, TensorCut

_FORMAT = "sparsefx.slim"
_VERSION = 1
Config = dict[str, Any]


def make_config(model: nn.Module, small: nn.Module, cuts: Cuts, fixed: Mapping[str, str], sizes: str) -> Config:
    """What was cut, as JSON: kept indices per axis (null where all are), added biases, sizes of layers."""
    full = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    changed = {n: c for n, c in cuts.tensors.items() if n in full and c.value.shape != full[n].shape}
    before, after = dict(model.named_modules()), dict(small.named_modules())
    layers = {name: _changes(before[name], module) for name, module in after.items()}
    again = {"slimmed_before": config_of(model)} if config_of(model) is not None else {}
    return {
        "format": _FORMAT,
        "version": _VERSION,
        **again,
        "model": type(model).__name__,
        "exact_at": sizes,
        "parameters_before": sum(p.numel() for p in model.parameters()),
        "parameters_after": sum(p.numel() for p in small.parameters()),
        "layers": {name: changes for name, changes in layers.items() if changes},
        "tensors": {name: _tensor(full[name], cut) for name, cut in changed.items()},
        "biases": {name: len(value) for name, value in cuts.biases.items()},
        "kept_for_forward": sorted(set(fixed.values())),
    }


def _changes(before: nn.Module, after: nn.Module) -> dict[str, int]:
    old = sizes_of(before)
    return {name: size for name, size in sizes_of(after).items() if size != old[name]}


def _tensor(full: Tensor, cut: TensorCut) -> dict[str, Any]:
    whole = [len(k) == n and k.tolist() == list(range(n)) for k, n in zip(cut.kept, full.shape, strict=True)]
    kept = [None if w else k.tolist() for w, k in zip(whole, cut.kept, strict=True)]
    return {"shape": list(cut.value.shape), "was": list(full.shape), "kept": kept}


def rebuild_slim(model: nn.Module, config: Mapping[str, Any]) -> nn.Module:
    """A slim module from a full-size model of the same class and the `config` of `sparsefx.slim`.

    The model is not changed. The result has the classes, sizes and buffers of the slim module; its weights come with
    `load_state_dict`. Raises BundleError where `config` is none, or is one of another model.
    """
    data = _checked(config)
    small = copy_module(model) if data.get("slimmed_before") is None else rebuild_slim(model, data["slimmed_before"])
    tensors = {**dict(small.named_parameters()), **dict(small.named_buffers())}
    for name, entry in data["tensors"].items():
        if name not in tensors or list(tensors[name].shape) != entry["was"]:
            found = f"has shape {list(tensors[name].shape)}" if name in tensors else "is not there"
            raise BundleError(
                f"the slim configuration of {data['model']} wants {name} of shape {entry['was']}, but in this "
                f"{type(model).__name__} it {found}; build the full-size model that was slimmed"
            )
        replace_tensor(small, name, _cut(tensors[name], _checked_tensor(name, entry)))
    for name, size in data["biases"].items():
        weight = tensors[name.removesuffix("bias") + "weight"]
        add_bias(small, name, weight.new_zeros(size), requires_grad=weight.requires_grad)
    for name, sizes in data["layers"].items():
        module = small.get_submodule(name)
        if not sizes.keys() <= sizes_of(module).keys() or not _are_counts(list(sizes.values())):
            raise BundleError(f"the slim configuration's layer {name} is damaged; slim the model again")
        for attribute, size in sizes.items():
            setattr(module, attribute, size)
    attach(small, copy.deepcopy(dict(config)))
    return small


def config_of(model: nn.Module) -> Config | None:
    """The configuration of a slim module; None where the module is none."""
    found = (getattr(model, name, None) for name in ("slim_config", "config"))
    return next((config for config in found if _is_config(config)), None)


def attach(small: nn.Module, config: Config) -> None:
    """Put the configuration on a module: as `config`, or as `slim_config` where its class has a `config` of its own."""
    own = hasattr(small, "config") and not _is_config(small.config)
    setattr(small, "slim_config" if own else "config", config)


def _is_config(value: Any) -> bool:
    return isinstance(value, Mapping) and value.get("format") == _FORMAT


def _cut(tensor: Tensor, entry: Mapping[str, Any]) -> Tensor:
    """The kept part of a tensor; of a grouped convolution's weight, whose groups keep inputs of their own, zeros."""
    cut = tensor.detach()
    for axis, kept in enumerate(entry["kept"]):
        if kept is not None and max(kept) < cut.shape[axis]:
            cut = cut.index_select(axis, torch.tensor(kept, device=cut.device))
    return cut if list(cut.shape) == entry["shape"] else tensor.new_zeros(entry["shape"])


def _checked_tensor(name: str, entry: Any) -> Mapping[str, Any]:
    shape, kept = entry.get("shape"), entry.get("kept")
    lists: list[Any] = [k for k in kept if k is not None] if isinstance(kept, list) else [None]
    ordered = all(_are_counts(k) and all(a < b for a, b in itertools.pairwise(k)) for k in lists)
    if not (_are_counts(shape) and ordered and len(kept) == len(shape) == len(entry["was"])):
        raise BundleError(f"the slim configuration's tensor {name} is damaged; slim the model again")
    return entry  # type: ignore[no-any-return]


def _are_counts(numbers: Any) -> bool:
    return isinstance(numbers, list) and all(type(n) is int and n >= 0 for n in numbers)


def _checked(config: Mapping[str, Any]) -> Mapping[str, Any]:
    if not _is_config(config):
        raise BundleError("expected the config of a module that sparsefx.slim returned, found something else")
    if config.get("version") != _VERSION:
        raise BundleError(
            f"the slim configuration has version {config.get('version')}, known is {_VERSION}; "
            "use the sparsefx that wrote it, or slim the model again"
        )
    missing = [key for key in ("model", "tensors", "biases", "layers") if key not in config]
    if missing:
        raise BundleError(f"the slim configuration lacks {missing[0]!r}; it is damaged, slim the model again")
    return config
