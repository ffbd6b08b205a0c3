"""How every layer is executed, dense or condensed: decided by measurement, and the engine measured whole at the end."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule

from ..passes.channels.axes import size_of
from ..passes.condense import CONV2D, Condense, SparseLayer, pair, sparse_enough, sparse_layers
from ..passes.errors import TargetError
from ..passes.graph import bind, constant_of, copy_graph, tensor_meta
from ..runtime import custom_op_library
from ..runtime.latency.measure import measure
from ..runtime.latency.time_cache import processor
from ..runtime.onnxruntime.known_times import known_times
from ..runtime.onnxruntime.layer_models import LayerForm, Window
from ..runtime.onnxruntime.layer_times import LayerTime
from ..runtime.targets import WEIGHTS
from .build import Build
from .choice import CONDENSED, DENSE, MEASURED, Choice, LayerChoice
from .cost import layer_costs

_MOST_DENSITY = 0.5  # above it no kernel of ours comes near a dense one
_LEAST_WORK = 100_000  # multiply-accumulates: a dense layer below it takes a few microseconds, no more than the call
_MARGIN = 0.97  # of the dense time: a condensed layer among dense ones may change the layout twice
_TURNS, _RUNS = 7, 4  # of whole engines


def choose(
    graph_module: GraphModule, dense: Build, inputs: Sequence[Tensor], asked: str, precision: str = "fp32"
) -> tuple[Build, Choice]:
    """The fastest engine for a graph whose dense engine is `dense`, on `inputs`, with that engine's threads.

    With precision bf16 the weights of condensed linear layers are bfloat16.

    Raises TargetError where condensed layers are asked for, and their kernels cannot be compiled.
    """
    candidates = [] if asked == DENSE else _candidates(graph_module, inputs, asked)
    if not candidates:
        return dense, Choice(asked)
    try:
        library = custom_op_library()
    except TargetError as error:
        if asked == CONDENSED:
            raise
        note = f"{len(candidates)} sparse layers run as dense ones: {error}"
        return dense, Choice(asked, tuple(_kept_dense(c) for c in candidates), notes=(note,))
    threads = dense.engine.session.settings()["threads"]
    times: Sequence[LayerTime | None] = [None] * len(candidates)
    if asked == MEASURED:
        times = known_times([c.form for c in candidates], threads, library, WEIGHTS[precision])
    layers = [_decide(c, time) for c, time in zip(candidates, times, strict=True)]
    condensed = {c.layer.node.name for c, x in zip(candidates, layers, strict=True) if x.representation == CONDENSED}
    if not condensed:
        return dense, Choice(asked, tuple(layers), threads, processor())
    build = Build(_condensed(graph_module, condensed), dense.signature, threads, library, precision)
    if asked == CONDENSED:
        return build, Choice(asked, tuple(layers), threads, processor())
    dense_ms, chosen_ms = _whole(dense, build, inputs)
    notes: tuple[str, ...] = ()
    if chosen_ms >= dense_ms:
        build, layers = dense, [_kept_dense(c, time) for c, time in zip(candidates, times, strict=True)]
        notes = (
            f"{len(condensed)} layers alone are faster condensed, the engine as a whole is not "
            f"({chosen_ms:.3f} ms, dense {dense_ms:.3f} ms): all stay dense",
        )
    return build, Choice(asked, tuple(layers), threads, processor(), dense_ms, chosen_ms, notes)


@dataclass(frozen=True)
class _Candidate:
    name: str
    layer: SparseLayer
    form: LayerForm


def _candidates(graph_module: GraphModule, inputs: Sequence[Tensor], asked: str) -> list[_Candidate]:
    """Sparse layers worth a measurement; where nothing is measured, those that are sparse enough."""
    costs = {cost.node: cost for cost in layer_costs(graph_module)}
    sizes = _sizes(graph_module, inputs)
    found = []
    for layer in sparse_layers(graph_module):
        fits = sparse_enough(layer) if asked == CONDENSED else layer.density <= _MOST_DENSITY
        form = _form(layer, sizes) if fits else None
        if form is not None and (asked == CONDENSED or _work(form) >= _LEAST_WORK):
            found.append(_Candidate(costs[layer.node.name].layer, layer, form))
    return found


def _sizes(graph_module: GraphModule, inputs: Sequence[Tensor]) -> dict[Any, int]:
    """The dynamic sizes, by symbol, that these inputs have."""
    shapes = [m.shape for n in graph_module.graph.nodes if n.op == "placeholder" and (m := tensor_meta(n)) is not None]
    pairs = [
        (size_of(s), t) for shape, x in zip(shapes, inputs, strict=True) for s, t in zip(shape, x.shape, strict=True)
    ]
    return {size: found for size, found in pairs if not isinstance(size, int) and size.is_Symbol}


def _form(layer: SparseLayer, sizes: Mapping[Any, int]) -> LayerForm | None:
    """The layer with what is fused, at these sizes; None where no kernel runs its type, or sizes depend on more."""
    arguments = bind(layer.node)
    weight = constant_of(arguments["weight"])
    if weight.dtype != torch.float32:
        return None
    shape = [
        s if isinstance(s := size_of(size), int) else s.subs(sizes) for size in arguments["input"].meta["val"].shape
    ]
    if any(not isinstance(size, int) and size.free_symbols for size in shape):
        return None
    window = None
    if layer.node.target is CONV2D:
        stride, padding, dilation = (tuple(pair(arguments[key])) for key in ("stride", "padding", "dilation"))
        window = Window(stride, padding, dilation, arguments["groups"])
    return LayerForm(weight.numpy(), tuple(map(int, shape)), window, layer.residual is not None, layer.activation)


def _work(form: LayerForm) -> int:
    return int(math.prod(form.output_shape) * form.weight[0].size)


def _decide(candidate: _Candidate, time: LayerTime | None) -> LayerChoice:
    if time is None:
        return LayerChoice(candidate.name, candidate.layer.density, CONDENSED)
    faster = time.condensed < _MARGIN * time.dense
    return _with_times(candidate, CONDENSED if faster else DENSE, time)


def _kept_dense(candidate: _Candidate, time: LayerTime | None = None) -> LayerChoice:
    return _with_times(candidate, DENSE, time)


def _with_times(candidate: _Candidate, representation: str, time: LayerTime | None) -> LayerChoice:
    dense, condensed = (None, None) if time is None else (time.dense * 1e6, time.condensed * 1e6)
    return LayerChoice(candidate.name, candidate.layer.density, representation, dense, condensed)


def _condensed(graph_module: GraphModule, nodes: set[str]) -> GraphModule:
    """A copy of the graph with these layers condensed."""
    copy = GraphModule(graph_module, copy_graph(graph_module.graph))
    copy.meta.update(graph_module.meta)
    Condense(lambda layer: layer.node.name in nodes)(copy)
    return copy


def _whole(dense: Build, chosen: Build, inputs: Sequence[Tensor]) -> Iterator[float]:
    """Milliseconds of both engines, medians of one interleaved run."""
    arrays = dense.engine.check(inputs)
    runs = {name: build.engine.session for name, build in (("dense", dense), ("chosen", chosen))}
    contenders = {name: (lambda session=session: session.run(arrays)) for name, session in runs.items()}
    once = measure(contenders, seconds=0, least_runs=1, warm_up=1)["dense"].median
    results = measure(contenders, seconds=0, least_runs=_TURNS, warm_up=1, burst=_RUNS * once)
    return (results[name].median * 1e3 for name in contenders)
