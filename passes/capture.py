"""Capture a model as a functional torch.fx graph of ATen operators with concrete parameters."""

from __future__ import annotations

import inspect
import io
import logging
import operator
import traceback
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.fx import GraphModule
from torch.utils import _pytree as pytree

from .errors import CaptureError
from .exhaustion import exhausted
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

_OURS = (__file__, inspect.__file__, "<string>")

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
            if exhausted(error) is not None:
                raise
            raise CaptureError(_explain(model, error, args, kwargs)) from error


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

    try:
        bound = inspect.signature(model.forward).bind(*args, **kwargs).arguments
    except TypeError as error:
        raise CaptureError(explain_own_failure(type(model).__name__, error, args, kwargs)) from error
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
    """Keep what torch's export logs, prints and warns of off the user's terminal; the error says what matters."""
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


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


def _explain(model: nn.Module, error: Exception, args: Inputs, kwargs: Mapping[str, Any]) -> str:
    """What failed, at which line of the user's code, and what to do."""
    try:  # in evaluation mode without gradients, as for the export
        model(*args, **kwargs)
    except Exception as own:
        return explain_own_failure(type(model).__name__, own, args, kwargs)
    advice = next((known for part, known in _KNOWN if part in str(error)), _ADVICE)
    return f"{type(model).__name__} could not be captured{_where(error)}: {_reason(error)}\n{advice}"


def explain_own_failure(name: str, error: Exception, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
    """That the model itself, before anything is done to it, does not take its inputs."""
    given = [_described(value) for value in args] + [f"{key}={_described(value)}" for key, value in kwargs.items()]
    return (
        f"{name} itself fails on the example inputs, or on random ones like them{_where(error)}: {_reason(error)}\n"
        f"It was called with ({', '.join(given)}); give a tuple of what its forward takes, in the dtype of its "
        "weights, with more than one sample (dynamic_batch=False) where it needs that."
    )


def _described(value: Any) -> str:
    return f"{str(value.dtype).removeprefix('torch.')}{list(value.shape)}" if isinstance(value, Tensor) else repr(value)


def _where(error: Exception) -> str:
    line = _user_line(error)
    return f" at {line}" if line else ""


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"


def _user_line(error: Exception) -> str | None:
    """The innermost line of the user's, as `file:line in function: source`."""
    frame = user_frame(error)
    return f"{frame.filename}:{frame.lineno} in {frame.name}: {frame.line}" if frame is not None else None


def user_frame(error: BaseException) -> traceback.FrameSummary | None:
    """The innermost frame of an error's traceback outside torch and this module."""
    torch_folder = torch.__file__.removesuffix("__init__.py")
    frames: Sequence[traceback.FrameSummary] = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if not f.filename.startswith(torch_folder) and f.filename not in _OURS]
    return own[-1] if own else None
