"""Put smaller tensors into a copy of a module: the same classes, with sizes that fit."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from ...passes.errors import CaptureError
from ...training.masks import MaskSet
from .cuts import Cuts


def build(model: nn.Module, masks: MaskSet, cuts: Cuts) -> nn.Module:
    """A copy of `model` with its masks applied and its tensors cut; types, devices and ties stay."""
    small = copy_module(model)
    for old, new in zip(model.parameters(), small.parameters(), strict=True):
        new.__dict__.update(old.__dict__)  # marks that training put there, which a deep copy leaves behind
    masks.apply(small)
    for name, cut in cuts.tensors.items():
        replace_tensor(small, name, cut.value)
    for name, value in cuts.biases.items():
        weight = small.get_parameter(name.removesuffix("bias") + "weight")
        add_bias(small, name, value.to(weight.device, weight.dtype), requires_grad=weight.requires_grad)
    names = {**dict(small.named_parameters()), **dict(small.named_buffers())}
    groups = {id(names[name]): count for name, count in cuts.groups.items()}
    for module in small.modules():
        resize(module, groups.get(id(getattr(module, "weight", None))))
    return small


def copy_module(model: nn.Module) -> nn.Module:
    """A deep copy. Raises CaptureError where the module holds tensors that cannot be copied."""
    try:
        return copy.deepcopy(model)
    except RuntimeError as error:
        raise CaptureError(
            f"{type(model).__name__} cannot be copied: {error}. Layers that compute their weights in hooks "
            "(weight_norm, spectral_norm) keep results; remove them, or use torch.nn.utils.parametrizations"
        ) from error


def replace_tensor(model: nn.Module, name: str, value: Tensor) -> None:
    """Give a parameter or buffer, under all names that it has, another value; a parameter keeps its attributes."""
    owner, attribute = _place(model, name)
    old = getattr(owner, attribute)
    value = value.detach().to(old.device, old.dtype)
    new: Tensor = value.clone()
    if isinstance(old, nn.Parameter):
        new = nn.Parameter(new, requires_grad=old.requires_grad)
        new.__dict__.update(old.__dict__)
    for module in model.modules():
        for store in (module._parameters, module._buffers):
            for key in [k for k, tensor in store.items() if tensor is old]:
                store[key] = new  # type: ignore[assignment]


def add_bias(model: nn.Module, name: str, value: Tensor, *, requires_grad: bool) -> None:
    """Give a layer that has no bias one."""
    owner, attribute = _place(model, name)
    owner.register_parameter(attribute, nn.Parameter(value.detach().clone(), requires_grad=requires_grad))


def resize(module: nn.Module, groups: int | None = None) -> None:
    """Set the attributes in which the layers of torch.nn note their sizes."""
    if groups is not None and isinstance(module, _ConvNd):
        module.groups = groups
    for kind, sizes in _SIZES:
        if isinstance(module, kind):
            for attribute, size in sizes(module).items():
                if getattr(module, attribute) != size:
                    setattr(module, attribute, size)


def sizes_of(module: nn.Module) -> dict[str, int]:
    """The sizes that a layer of torch.nn notes as attributes, as they are set."""
    names = [name for kind, sizes in _SIZES if isinstance(module, kind) for name in sizes(module)]
    names += ["groups"] if isinstance(module, _ConvNd) else []
    return {name: getattr(module, name) for name in names}


def _place(model: nn.Module, name: str) -> tuple[nn.Module, str]:
    prefix, _, attribute = name.rpartition(".")
    return model.get_submodule(prefix), attribute


def _convolution(module: Any) -> dict[str, int]:
    first, second = module.weight.shape[:2]
    if module.transposed:
        return {"in_channels": first, "out_channels": second * module.groups}
    return {"in_channels": second * module.groups, "out_channels": first}


def _norm(module: Any) -> dict[str, int]:
    sized = next((t for t in (module.weight, module.running_mean) if t is not None), None)
    return {"num_features": len(sized)} if sized is not None else {}


_SIZES: tuple[tuple[Any, Callable[[Any], Mapping[str, int]]], ...] = (
    (_ConvNd, _convolution),
    (nn.Linear, lambda m: {"in_features": m.weight.shape[1], "out_features": m.weight.shape[0]}),
    (_NormBase, _norm),
    (nn.Embedding, lambda m: {"num_embeddings": m.weight.shape[0], "embedding_dim": m.weight.shape[1]}),
    (nn.PReLU, lambda m: {"num_parameters": m.weight.numel()}),
)
