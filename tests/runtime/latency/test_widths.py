"""Widths of a network: which there are, what sizes follow, and engines of any widths without an export."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from torch import Tensor, nn

from sparsefx.passes.describe import describe
from sparsefx.passes.errors import TableError
from sparsefx.runtime.latency.context import WhatIf
from sparsefx.runtime.latency.prepared import prepared_with
from sparsefx.runtime.latency.widths import WidthSpace
from sparsefx.runtime.onnxruntime.template import EngineTemplate
from tests.runtime.latency.helpers import SETTING, Perceptron, Residual, image

NETS = [Residual, Perceptron]


def space_of(model: nn.Module) -> WidthSpace:
    return WidthSpace(prepared_with(model, (image(),)))


def test_groups_are_the_channels_that_stay_together() -> None:
    groups = {g.name: g for g in space_of(Residual()).groups}
    assert {name: (g.full, set(g.producers)) for name, g in groups.items()} == {
        "stem": (16, {"stem", "second", "depthwise"}),
        "first": (24, {"first"}),
        "point": (32, {"point"}),
    }
    assert set(groups["stem"].consumers) == {"first", "depthwise", "point"}


def test_what_a_norm_or_an_output_pins_has_no_width() -> None:
    assert [g.name for g in space_of(Perceptron()).groups] == ["wide"]


def test_layers_that_start_as_zeros_keep_the_network_alive() -> None:
    model = Residual()
    nn.init.zeros_(model.head.weight)
    nn.init.zeros_(model.second.weight)
    assert [g.name for g in space_of(model).groups] == ["stem", "first", "point"]
    assert len(space_of(model).layers) == 6


def test_grouped_convolutions_have_no_width() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1, groups=2), nn.Conv2d(8, 4, 1), nn.Conv2d(4, 2, 1))
    assert [g.name for g in space_of(model).groups] == ["2"]


@pytest.mark.parametrize("net", NETS)
def test_sizes_are_those_of_the_cut_graph(net: type[nn.Module]) -> None:
    space = space_of(net())
    widths = {g.name: g.full // 2 + 1 for g in space.groups}
    sizes = space.sizes(widths)
    cut = {
        (n.name, axis): size
        for n in space.cut(widths).graph.nodes
        if isinstance(n.meta.get("val"), Tensor)
        for axis, size in enumerate(n.meta["val"].shape)
        if isinstance(size, int)
    }
    assert {place: sizes[place] for place in cut if place in sizes} == {p: s for p, s in cut.items() if p in sizes}
    assert any(cut[place] != size for place, size in space.sizes({}).items() if place in cut)


def test_bad_widths_are_named() -> None:
    space = space_of(Residual())
    assert space.complete({"second": 7}) == {"stem": 7, "first": 24, "point": 32}
    with pytest.raises(TableError, match=r"the width of first must be between 1 and 24, found 25"):
        space.complete({"first": 25})
    with pytest.raises(TableError, match=r"second and stem share their channels: both must have width 5, found 6"):
        space.complete({"stem": 5, "second": 6})
    with pytest.raises(TableError, match=r"layer 'head' has no width to choose; widths are stem, first, point"):
        space.complete({"head": 3})


@pytest.mark.parametrize("net", NETS)
def test_a_template_is_the_lowered_cut_graph(net: type[nn.Module], tmp_path: Path) -> None:
    """At widths of no probe: the same operators with the same sizes as lowering the cut graph gives, and it runs."""
    space = space_of(net())
    template = EngineTemplate(space, describe(space.graph_module))
    assert template.is_exact
    widths = {g.name: g.full // 3 for g in space.groups}
    lowered = template._lower(widths)
    made = template.model(widths)
    assert [n.op_type for n in made.graph.node] == [n.op_type for n in lowered.graph.node]
    assert {t.name: list(t.dims) for t in made.graph.initializer} == {
        t.name: list(t.dims) for t in lowered.graph.initializer
    }
    session = onnxruntime.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
    (output,) = session.run(None, {"x": image(3).numpy()})
    assert len(output) == 3 and np.isfinite(output).all()


@pytest.mark.ci
def test_a_template_that_does_not_hold_lowers_every_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where probes cannot tell sizes apart nothing is guessed, and the result is still right."""
    from sparsefx.runtime.onnxruntime import template as module

    model = Residual()
    model.point, model.head = nn.Conv2d(16, 16, 1), nn.Linear(16, 5)
    different = {"stem": 9, "first": 20, "point": 12}
    monkeypatch.setattr(module, "_probe", lambda full, seed: {**dict.fromkeys(full, 8)} if seed < 2 else different)
    space = space_of(model)
    template = EngineTemplate(space, describe(space.graph_module))
    assert not template.is_exact
    made = template.model({"stem": 5, "first": 6, "point": 7})
    assert {tuple(t.dims) for t in made.graph.initializer} >= {(5, 3, 3, 3), (6, 5, 3, 3), (7, 5, 1, 1)}


def test_every_layer_is_found_in_the_engine(tmp_path: Path) -> None:
    graph = space_of(Residual()).graph_module
    nodes = WhatIf(graph, describe(graph), SETTING).nodes({"stem": 12, "first": 10, "point": 20}, tmp_path)
    layers = {node.layer: node.channels for node in nodes if node.layer is not None}
    assert layers == {
        "stem": (3, 12),
        "first": (12, 10),
        "second": (10, 12),
        "depthwise": (12, 12),
        "point": (12, 20),
        "head": (20, 5),
    }
    assert len({node.name for node in nodes}) == len(nodes)
    keys = {node.layer: node.key for node in nodes if node.layer is not None}
    assert "kernel_shape 3x3" in keys["first"] and "strides 1x1" in keys["first"] and "1x16x16" in keys["first"]
    assert "depthwise" in keys["depthwise"] and "float" in keys["head"]
