"""Condensed layers as plugins of full TensorRT: CUDA kernels compiled ahead of time, which the engine takes along.

Nodes are those of plugin_nodes.py. A plugin is one launch of one kernel of condensed.cu, whose PTX nvcc makes; linear
layers offer two kernels as tactics, and TensorRT times them. Nothing here has run: TensorRT-RTX has no plugins, and
full TensorRT needs a GPU to build.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ..kernels.cuda.compile_nvcc import CONV2D_SIZES, LINEAR_SIZES, MATRIX, kernel_name, plugin_ptx
from .plugin_nodes import CONV2D, LINEAR, NAMESPACE, plugin_name

_LANES, _WARPS, _NEURONS = 32, 8, 8  # as in condensed.h
_TYPES = {"FLOAT": "float32", "HALF": "float16", "BF16": "bfloat16"}  # TensorRT's names
_COMBINED = "FP32|FP16|BF16"
_WINDOW = tuple(name for name in CONV2D_SIZES if name.partition("_")[0] in ("stride", "padding", "dilation"))

Sizes = Mapping[str, Any]  # whole numbers, or expressions of them


@dataclass(frozen=True)
class Kind:
    """A layer as a plugin: attributes of its node, its kernels by tactic, and the sizes that they are launched with."""

    attributes: tuple[str, ...]
    forms: tuple[str, ...]  # of tactics 1, 2, ...
    order: tuple[str, ...]  # of the whole numbers that a kernel is given
    sizes: Callable[[Any, Sizes, Any], dict[str, Any]]
    grids: tuple[Callable[[Sizes, Callable[[Any, int], Any]], tuple[Any, Any]], ...]


def _linear_sizes(shape: Any, attributes: Sizes, outputs: Any) -> dict[str, Any]:
    inputs, samples = shape[len(shape) - 1], shape[0]
    for axis in range(1, len(shape) - 1):
        samples = samples * shape[axis]
    return {"samples": samples, "inputs": inputs, "outputs": outputs, **attributes}


def _conv2d_sizes(shape: Any, attributes: Sizes, outputs: Any) -> dict[str, Any]:
    sizes = dict(zip(("images", "channels", "height", "width"), (shape[i] for i in range(4)), strict=True))
    for axis in ("height", "width"):
        reach = attributes[f"dilation_{axis}"] * (attributes[f"kernel_{axis}"] - 1) + 1
        padded = sizes[axis] + (2 * attributes[f"padding_{axis}"] - reach)
        sizes[f"out_{axis}"] = padded // attributes[f"stride_{axis}"] + 1
    return {**sizes, "outputs": outputs, **attributes}


def _few_grid(sizes: Sizes, cdiv: Callable[[Any, int], Any]) -> tuple[Any, Any]:
    return cdiv(sizes["samples"] * sizes["outputs"], _WARPS), 1


def _many_grid(sizes: Sizes, cdiv: Callable[[Any, int], Any]) -> tuple[Any, Any]:
    return cdiv(sizes["samples"], _LANES), cdiv(sizes["outputs"], _WARPS * _NEURONS)


def _conv2d_grid(sizes: Sizes, cdiv: Callable[[Any, int], Any]) -> tuple[Any, Any]:
    pixels = sizes["images"] * sizes["out_height"] * sizes["out_width"]
    return cdiv(pixels, _LANES), cdiv(sizes["outputs"], _WARPS * _NEURONS)


KINDS = {
    LINEAR: Kind(("activation",), ("linear_few", "linear_many"), LINEAR_SIZES, _linear_sizes, (_few_grid, _many_grid)),
    CONV2D: Kind(
        ("activation", "kernel_height", "kernel_width", *_WINDOW),
        ("conv2d",),
        CONV2D_SIZES,
        _conv2d_sizes,
        (_conv2d_grid,),
    ),
}


def register_plugins(trt: Any, trtp: Any, architecture: int) -> list[str]:
    """Register all plugins with TensorRT for GPUs of an architecture (90 for sm_90) and newer ones; their names.

    `trt` and `trtp` are the modules tensorrt and tensorrt.plugin. Raises TargetError where the kernels cannot be
    compiled.
    """
    ptx = plugin_ptx(architecture)
    names = []
    for layer, kind in KINDS.items():
        for residual in (False, True):
            name = f"{NAMESPACE}::{plugin_name(layer, residual)}"
            _register(trt, trtp, name, kind, residual, ptx)
            names.append(name)
    return names


def _register(trt: Any, trtp: Any, name: str, kind: Kind, residual: bool, ptx: str) -> None:
    """TensorRT reads the signatures of three functions: what comes out, what it may choose from, what is launched."""
    tensors = (*MATRIX, "residual") if residual else MATRIX

    def describe(*given: Any) -> Any:
        x, starts = given[0], given[MATRIX.index("starts")]
        outputs = starts.shape_expr[0] - 1
        sizes = kind.sizes(x.shape_expr, dict(zip(kind.attributes, given[len(tensors) :], strict=True)), outputs)
        y = x.like()
        y.shape_expr[len(x.shape_expr) - 1 if "samples" in sizes else 1] = outputs
        for axis, size in ((2, sizes.get("out_height")), (3, sizes.get("out_width"))):
            if size is not None:
                y.shape_expr[axis] = size
        return y

    def tune(*given: Any) -> Any:
        kinds = ["INT32" if tensor in ("columns", "starts") else _COMBINED for tensor in (*tensors, "y")]
        tactics = list(range(1, len(kind.forms) + 1))
        return [trtp.AutoTuneCombination(", ".join(kinds), "LINEAR", tactics)]

    def launch(*given: Any) -> Any:
        x, starts, tactic = given[0], given[MATRIX.index("starts")], given[-1]
        attributes = dict(zip(kind.attributes, given[len(tensors) : -2], strict=True))
        sizes = kind.sizes(x.shape_expr, attributes, starts.shape_expr[0] - 1)
        parameters = trtp.KernelLaunchParams()
        parameters.grid_x, parameters.grid_y = kind.grids[tactic - 1](sizes, trtp.cdiv)
        parameters.block_x = _LANES * _WARPS
        numbers = trtp.SymIntExprs(len(kind.order))
        for place, size in enumerate(kind.order):
            numbers[place] = trtp.SymInt32(sizes[size])
        form = kernel_name(kind.forms[tactic - 1], _type_name(trt, x.dtype), residual)
        return form, ptx, parameters, numbers

    described = {**dict.fromkeys(tensors, trtp.TensorDesc), **dict.fromkeys(kind.attributes, int)}
    launched = tuple[str, str, trtp.KernelLaunchParams, trtp.SymIntExprs]
    trtp.register(name)(_signed(describe, described, trtp.TensorDesc))
    trtp.autotune(name)(_signed(tune, {**described, "outputs": None}, list[trtp.AutoTuneCombination]))
    trtp.aot_impl(name)(_signed(launch, {**described, "outputs": None, "tactic": int}, launched))


def _signed(function: Callable[..., Any], parameters: Mapping[str, Any], result: Any) -> Callable[..., Any]:
    """The function with the signature that TensorRT is to read."""
    named, empty = inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.empty
    made = [inspect.Parameter(n, named, annotation=kind or empty) for n, kind in parameters.items()]
    function.__signature__ = inspect.Signature(made, return_annotation=result)  # type: ignore[attr-defined]
    return function


def _type_name(trt: Any, dtype: Any) -> str:
    return next(ours for theirs, ours in _TYPES.items() if dtype == getattr(trt.DataType, theirs))
