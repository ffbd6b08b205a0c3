"""How every layer is executed, dense or condensed: by measurement of layers, and then of whole engines."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.fx import GraphModule

from ..passes.condense import Condense, sparse_enough
from ..passes.errors import TargetError
from ..runtime.build import Build
from ..runtime.latency.table import LatencyTable
from ..runtime.onnxruntime.layer_times import LayerTime
from .candidates import Candidate, find_candidates
from .choice import CONDENSED, DENSE, Choice, LayerChoice
from .masked_model import keep_graph
from .whole import time_engines

# Of the dense time: layers that gain by themselves; and with them those that lose little, but spare their neighbours
# two changes of layout.
_MARGINS = (0.97, 1.25)

Plan = frozenset[str]  # nodes to condense


def choose(
    graph_module: GraphModule, dense: Build, inputs: Sequence[Tensor], asked: str, table: LatencyTable | None = None
) -> tuple[Build, Choice]:
    """The fastest engine for a graph whose dense engine is `dense`, on `inputs`, with that engine's settings.

    Where engines cannot run here, a latency table of the target decides, layer by layer. Raises TargetError where
    condensed layers are asked for, and what runs them is missing.
    """
    candidates = [] if asked == DENSE else find_candidates(graph_module, inputs, asked)
    if not candidates:
        return dense, Choice(asked)
    try:
        library = dense.kernels()
    except TargetError as error:
        if asked == CONDENSED:
            raise
        return dense, _not_measured(asked, candidates, error)
    threads = dense.settings.threads

    def build(plan: Plan) -> Build:
        return type(dense)(_condensed(graph_module, plan), dense.signature, dense.settings, inputs, library)

    if asked != CONDENSED:
        try:
            dense.engine  # noqa: B018 - where it cannot run, nothing can be measured
        except TargetError as error:
            if table is None:
                return dense, _not_measured(asked, candidates, error)
            plan, choice = _foretold(dense, candidates, asked, table)
            return build(plan) if plan else dense, choice
    if asked == CONDENSED:
        everything = Plan(c.layer.node.name for c in candidates)
        return build(everything), Choice(asked, _layers(candidates, everything), threads, dense.device)
    times = dense.layer_times([c.form for c in candidates])
    builds = {Plan(): dense} | {plan: build(plan) for plan in _plans(candidates, times)}
    whole = dict(zip(builds, time_engines(list(builds.values()), inputs), strict=True)) if len(builds) > 1 else {}
    best = min(whole, key=lambda plan: whole[plan], default=Plan())
    notes = _note(whole, times) if whole and not best else ()
    layers = _layers(candidates, best, times)
    return builds[best], Choice(asked, layers, threads, dense.device, whole.get(Plan()), whole.get(best), notes)


def _not_measured(asked: str, candidates: Sequence[Candidate], error: TargetError) -> Choice:
    note = f"not measured, so {len(candidates)} sparse layers run as dense ones: {error}"
    return Choice(asked, _layers(candidates, Plan()), notes=(note,))


def _foretold(dense: Build, candidates: Sequence[Candidate], asked: str, table: LatencyTable) -> tuple[Plan, Choice]:
    """What to condense by a latency table: layers that gain by themselves."""
    times = [dense.foretold_time(c.name, c.form, table) for c in candidates]
    faster = [time is not None and time.condensed < _MARGINS[0] * time.dense for time in times]
    plan = Plan(c.layer.node.name for c, gains in zip(candidates, faster, strict=True) if gains)
    unknown = times.count(None)
    note = f"not measured: by the latency table {len(plan)} of {len(candidates)} sparse layers are faster condensed"
    if unknown:
        note += f"; it does not have both forms of {unknown}, which stay dense"
    return plan, Choice(asked, _layers(candidates, plan, times), processor=table.setting.device, notes=(note,))


def _plans(candidates: Sequence[Candidate], times: Sequence[LayerTime] | None) -> list[Plan]:
    """What to condense, besides nothing; without times of layers, all that are sparse enough."""
    if times is None:
        sparse = Plan(c.layer.node.name for c in candidates if sparse_enough(c.layer))
        return [sparse] if sparse else []
    plans = [
        Plan(c.layer.node.name for c, t in zip(candidates, times, strict=True) if t.condensed < margin * t.dense)
        for margin in _MARGINS
    ]
    return [plan for plan in dict.fromkeys(plans) if plan] if plans[0] else []


def _note(whole: dict[Plan, float], times: Sequence[LayerTime] | None) -> tuple[str, ...]:
    plan = next(plan for plan in whole if plan)
    alone = "alone are faster condensed, the engine as a whole is not"
    text = f"{len(plan)} layers {alone if times is not None else 'are not faster condensed, in the engine as a whole'}"
    return (f"{text} ({whole[plan]:.3f} ms, dense {whole[Plan()]:.3f} ms): all stay dense",)


def _layers(
    candidates: Sequence[Candidate], plan: Plan, times: Sequence[LayerTime | None] | None = None
) -> tuple[LayerChoice, ...]:
    layers = []
    for i, candidate in enumerate(candidates):
        time = None if times is None else times[i]
        dense, condensed = (None, None) if time is None else (time.dense * 1e6, time.condensed * 1e6)
        representation = CONDENSED if candidate.layer.node.name in plan else DENSE
        layers.append(LayerChoice(candidate.name, candidate.layer.density, representation, dense, condensed))
    return tuple(layers)


def _condensed(graph_module: GraphModule, plan: Plan) -> GraphModule:
    """A copy of the graph with these layers condensed."""
    copy = keep_graph(graph_module)
    Condense(lambda layer: layer.node.name in plan)(copy)
    return copy
