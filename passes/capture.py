"""Capture a model as a functional torch.fx graph of ATen operators with concrete parameters."""

from __future__ import annotations

import inspect
import operator
import traceback
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.fx import GraphModule
from torch.utils import _pytree as pytree

from .errors import CaptureError
from .graph import SIZE_NAMES, one_reader_per_node, operator_name

# Composite operators that hide data movement: export them as the movement itself.
_DECOMPOSED = (
    "einsum",
    "channel_shuffle",
    "repeat_interleave",
    "rot90",
    "glu",
    "stack",
    "unbind",
    "movedim",
    "diff",
    "baddbmm",
)

# What an error of torch.export says, and what to do about it; else _ADVICE.
_KNOWN = (
    (
        "cache_utils",
        "The model returns its cache of keys and values: set model.config.use_cache = False before capture.",
    ),
)
_ADVICE = (
    "Export follows one path through forward: replace branches on tensor values by torch.where or torch.cond, "
    "avoid .item() and .tolist(), and pass dynamic_batch=False or dynamic_shapes if the model fixes a size."
)

Inputs = tuple[Any, ...]


def capture(
    model: nn.Module | ExportedProgram,
    args: Inputs,
    kwargs: Mapping[str, Any] | None = None,
    *,
    dynamic_batch: bool = True,
    dynamic_shapes: Any = None,
) -> GraphModule:
    """Export `model` in evaluation mode to a GraphModule whose nodes are functional ATen operators.

    `args` and `kwargs` are example inputs. With `dynamic_batch` the first axis of every input tensor is one dynamic
    size (a batch of 1 is widened for the export); `dynamic_shapes`, in torch.export's form, replaces that.
    The model is left in the mode it was in. Raises CaptureError with the user's line where export fails.
    """
    kwargs = dict(kwargs or {})
    if isinstance(model, ExportedProgram):
        program = model
    else:
        program = _export(model, args, kwargs, dynamic_batch=dynamic_batch, dynamic_shapes=dynamic_shapes)
    with torch.no_grad(), _quiet():
        graph_module = program.run_decompositions(_decompositions()).module(check_guards=False)
    assert isinstance(graph_module, GraphModule)
    _drop_assertions(graph_module)
    one_reader_per_node(graph_module)
    graph_module.recompile()
    graph_module.meta[SIZE_NAMES] = _size_names(graph_module, dynamic_shapes)
    return graph_module


def _size_names(graph_module: GraphModule, dynamic_shapes: Any) -> dict[str, str]:
    """Names for the symbols of dynamic sizes: those of the user's Dims, `batch` for a leading one, else as they are."""

    def is_spec(spec: Any) -> bool:
        return spec is None or (isinstance(spec, dict) and all(isinstance(key, int) for key in spec))

    specs = pytree.tree_leaves(dynamic_shapes, is_leaf=is_spec) if dynamic_shapes is not None else []
    metas = [n.meta.get("val") for n in graph_module.graph.nodes if n.op == "placeholder"]
    names: dict[str, str] = {}
    for meta, spec in zip(metas, specs if len(specs) == len(metas) else [None] * len(metas), strict=True):
        for axis, size in enumerate(meta.shape if isinstance(meta, Tensor) else ()):
            if not isinstance(size, int):
                named = getattr((spec or {}).get(axis), "__name__", None)
                names.setdefault(str(size), named or ("batch" if axis == 0 else str(size)))
    return names


def _export(
    model: nn.Module, args: Inputs, kwargs: dict[str, Any], *, dynamic_batch: bool, dynamic_shapes: Any
) -> ExportedProgram:
    if dynamic_shapes is None and dynamic_batch:
        args, kwargs = widen_batch(args), widen_batch(kwargs)
        dynamic_shapes = batch_dimensions(model, args, kwargs)
    with evaluation_mode(model), torch.no_grad(), _quiet():
        try:
            return torch.export.export(model, args, kwargs or None, dynamic_shapes=dynamic_shapes)
        except Exception as error:
            raise CaptureError(_explain(model, error)) from error


def widen_batch(inputs: Any) -> Any:
    """Example tensors with a first axis of 1 repeated to 2: export treats a size of 1 as fixed."""

    def widen(leaf: Any) -> Any:
        if isinstance(leaf, Tensor) and leaf.ndim and leaf.shape[0] == 1:
            return leaf.repeat(2, *[1] * (leaf.ndim - 1))
        return leaf

    return pytree.tree_map(widen, inputs)


def batch_dimensions(model: nn.Module, args: Inputs, kwargs: Mapping[str, Any]) -> Any:
    """The dynamic_shapes of torch.export that make every tensor's first axis one dynamic size."""
    batch = Dim("batch")
    sizes = {int(t.shape[0]) for t in pytree.tree_leaves((args, dict(kwargs))) if isinstance(t, Tensor) and t.ndim}
    if len(sizes) > 1:
        raise CaptureError(
            f"example inputs have different first axes {sorted(sizes)}, so they cannot share one dynamic batch; "
            "pass dynamic_shapes (in the form of torch.export), or dynamic_batch=False"
        )

    def dimensions(leaf: Any) -> Any:
        return {0: batch} if isinstance(leaf, Tensor) and leaf.ndim else None

    bound = inspect.signature(model.forward).bind(*args, **kwargs).arguments
    for parameter in inspect.signature(model.forward).parameters.values():
        if parameter.kind is parameter.VAR_KEYWORD and parameter.name in bound:
            raise CaptureError(
                f"{type(model).__name__}.forward takes **{parameter.name}, which torch.export cannot give a dynamic "
                f"batch; name {sorted(bound[parameter.name])} in forward's signature, or pass dynamic_batch=False"
            )
    return {name: pytree.tree_map(dimensions, value) for name, value in bound.items()}


def _decompositions() -> dict[Any, Any]:
    table: dict[Any, Any] = dict(torch.export.default_decompositions())
    return {op: rule for op, rule in table.items() if op.__name__.split(".")[0] in _DECOMPOSED}


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Evaluation mode inside, every submodule's own mode restored outside."""
    modes = {module: module.training for module in model.modules()}
    with suppress(NotImplementedError):  # the module of an exported program: its mode is part of its graph
        model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


@contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _drop_assertions(graph_module: GraphModule) -> None:
    """Remove run-time checks that export adds; shapes are checked at the engine's door."""
    checks = ("aten::_assert_tensor_metadata", "aten::_assert_scalar", "aten::sym_constrain_range_for_size")
    for node in list(graph_module.graph.nodes):
        if operator_name(node) in checks and not node.users:
            graph_module.graph.erase_node(node)
    unused = [
        n for n in graph_module.graph.nodes if n.target in (operator.ge, operator.le, operator.eq) and not n.users
    ]
    for node in unused:
        graph_module.graph.erase_node(node)


def _explain(model: nn.Module, error: Exception) -> str:
    """What failed, at which line of the user's code, and what to do."""
    line = _user_line(error)
    where = f" at {line}" if line else ""
    reason = str(error).strip().split("\n")[0]
    advice = next((known for part, known in _KNOWN if part in str(error)), _ADVICE)
    return f"{type(model).__name__} could not be captured{where}: {type(error).__name__}: {reason}\n{advice}"


def _user_line(error: Exception) -> str | None:
    """The innermost frame outside torch and this package, as `file:line in function: source`."""
    torch_folder = torch.__file__.removesuffix("__init__.py")
    frames: Sequence[traceback.FrameSummary] = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if not f.filename.startswith(torch_folder) and f.filename not in (__file__, "<string>")]
    if not own:
        return None
    frame = own[-1]
    return f"{frame.filename}:{frame.lineno} in {frame.name}: {frame.line}"
