"""Fold what follows a convolution or linear layer channel by channel into its weight and bias.

Legal where (1) the layer's weight and bias are constants, (2) nobody else reads the layer's output, (3) the
follower does not broadcast it, and is (a) an inference batch normalisation, (b) an addition of a constant per
channel, or (c) a product with a constant per channel. Folding is done in float64 and rounded once to the
weight's type.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from .base import GraphPass
from .graph import (
    STANDS_FOR,
    add_constant,
    bind,
    constant_of,
    is_constant,
    operator_name,
    rebind,
    set_constant,
    tensor_meta,
)

_BATCH_NORMS = ("aten::_native_batch_norm_legit_no_training", "aten::batch_norm")
_ROWS = {"aten::linear": 1, **{f"aten::conv{n}d": n + 1 for n in (1, 2, 3)}}  # axes behind the channel axis
_TRANSPOSED = {f"aten::conv_transpose{n}d": n + 1 for n in (1, 2, 3)}


@dataclass(frozen=True)
class _Affine:
    """y = scale * x + shift per channel, both of shape (channels,) in float64."""

    scale: Tensor
    shift: Tensor


class FoldBatchNorm(GraphPass):
    """Folds batch normalisations and constant shifts and scales into the layer in front of them."""

    def rewrite(self, graph_module: GraphModule) -> bool:
        modified = False
        for node in list(graph_module.graph.nodes):
            layer = _layer_in_front(node)
            affine = _affine_of(node, layer) if layer is not None else None
            if layer is not None and affine is not None:
                _fold(layer, affine)
                _bypass(node, layer)
                modified = True
        return modified


def _layer_in_front(node: Node) -> Node | None:
    """The only tensor operand that is computed, where it is a foldable layer read by `node` alone."""
    if node.op != "call_function" or operator_name(node) not in (*_BATCH_NORMS, "aten::add", "aten::mul"):
        return None
    computed = [n for n in node.all_input_nodes if not is_constant(n)]
    if len(computed) != 1 or computed[0].op != "call_function":
        return None
    layer = computed[0]
    if operator_name(layer) not in _ROWS | _TRANSPOSED or len(layer.users) != 1:
        return None
    arguments = bind(layer)
    foldable = is_constant(arguments["weight"]) and (arguments["bias"] is None or is_constant(arguments["bias"]))
    return layer if foldable else None


def _affine_of(node: Node, layer: Node) -> _Affine | None:
    """What `node` does to each channel of the layer, None where it is no affine function per channel."""
    arguments = bind(node)
    channels = _channels(layer)
    if tensor_meta(node) is not None and tensor_meta(node).shape != tensor_meta(layer).shape:  # type: ignore[union-attr]
        return None
    if operator_name(node) in _BATCH_NORMS:
        if arguments.get("training") or (operator_name(layer) == "aten::linear" and tensor_meta(layer).ndim != 2):  # type: ignore[union-attr]
            return None
        return _batch_norm_affine(arguments, channels)
    if arguments.get("alpha", 1) != 1:
        return None
    other = next((a for a in (arguments["self"], arguments["other"]) if a is not layer), None)
    vector = _per_channel(other, layer, channels)
    if vector is None:
        return None
    ones, zeros = torch.ones_like(vector), torch.zeros_like(vector)
    return _Affine(ones, vector) if operator_name(node) == "aten::add" else _Affine(vector, zeros)


def _channels(layer: Node) -> int:
    weight = tensor_meta(bind(layer)["weight"])
    assert weight is not None
    transposed = operator_name(layer) in _TRANSPOSED
    return int(weight.shape[1] * bind(layer)["groups"] if transposed else weight.shape[0])


def _batch_norm_affine(arguments: dict[str, object], channels: int) -> _Affine | None:
    names = ("running_mean", "running_var", "weight", "bias")
    nodes = [arguments[name] for name in names]
    if nodes[0] is None or nodes[1] is None or not all(n is None or is_constant(n) for n in nodes):
        return None
    defaults = (0.0, 1.0, 1.0, 0.0)
    mean, variance, weight, bias = (
        constant_of(n).double() if isinstance(n, Node) else torch.full((channels,), d, dtype=torch.float64)
        for n, d in zip(nodes, defaults, strict=True)
    )
    scale = weight / torch.sqrt(variance + arguments["eps"])  # type: ignore[operator]
    return _Affine(scale, bias - mean * scale)


def _per_channel(other: object, layer: Node, channels: int) -> Tensor | None:
    """A constant operand as one float64 number per channel, None where it varies over other axes."""
    meta = tensor_meta(layer)
    assert meta is not None
    if isinstance(other, bool) or not isinstance(other, int | float | Node):
        return None
    if not isinstance(other, Node):
        return torch.full((channels,), float(other), dtype=torch.float64)
    if not is_constant(other) or not constant_of(other).is_floating_point() or constant_of(other).ndim > meta.ndim:
        return None
    value = constant_of(other).double()
    behind = (_ROWS | _TRANSPOSED)[operator_name(layer)] - 1
    shape = (1,) * (meta.ndim - value.ndim) + tuple(value.shape)
    elsewhere = [size for j, size in enumerate(shape) if j != meta.ndim - 1 - behind]
    return value.reshape(-1).expand(channels).clone() if all(size == 1 for size in elsewhere) else None


def _fold(layer: Node, affine: _Affine) -> None:
    arguments = bind(layer)
    weight = constant_of(arguments["weight"])
    set_constant(arguments["weight"], _scaled(layer, weight, affine.scale).to(weight.dtype))
    old = (
        constant_of(arguments["bias"]).double()
        if arguments["bias"] is not None
        else torch.zeros(1, dtype=torch.float64)
    )
    bias = (old * affine.scale + affine.shift).to(weight.dtype)
    if arguments["bias"] is not None:
        set_constant(arguments["bias"], bias)
    elif bias.any():
        name = str(arguments["weight"].target).removesuffix("weight") + "bias"
        owner = layer.graph.owning_module
        assert owner is not None
        rebind(layer, bias=add_constant(owner, arguments["weight"], name, bias))


def _scaled(layer: Node, weight: Tensor, scale: Tensor) -> Tensor:
    """The weight with every output channel scaled, in float64."""
    if operator_name(layer) not in _TRANSPOSED:
        return weight.double() * scale.reshape(-1, *[1] * (weight.ndim - 1))
    groups = bind(layer)["groups"]
    grouped = weight.double().reshape(groups, weight.shape[0] // groups, *weight.shape[1:])
    return (grouped * scale.reshape(groups, 1, weight.shape[1], *[1] * (weight.ndim - 2))).reshape(weight.shape)


def _bypass(node: Node, layer: Node) -> None:
    """Readers of `node` (of its first output, for a tuple) read the layer instead."""
    meta = node.meta["val"]
    outputs = (
        [u for u in node.users if u.target is operator.getitem and u.args[1] == 0]
        if isinstance(meta, tuple | list)
        else [node]
    )
    for output in outputs:
        output.replace_all_uses_with(layer)
        layer.meta[STANDS_FOR] = output.name
