"""Nothing is kept that could go: kept channels against an oracle that replaces channels and looks at the outputs.

Exactness alone could be had by keeping everything. tests/oracle says, without the analysis, which channels a masked
network needs; beyond those only carriers may stay, as many as the layers that read them call for.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn
from torch.export import Dim

import sparsefx
from sparsefx.compiler.pipeline import run_pipeline
from sparsefx.compiler.report import Report
from sparsefx.passes.capture import capture
from sparsefx.passes.channels.analysis import CARRIER
from tests.helpers import TOLERANCE, copied, deviation, inputs_like, randomise, run, worst_error
from tests.oracle.channels import family
from tests.oracle.check import Case, Subject
from tests.oracle.compare import compare, complaints, wrong_counts
from tests.oracle.masks import MASKS, draw_weights
from tests.oracle.nets import Chain, DenseBlock, Grouped, OracleNet, Residual, SlantedSoftplus, SlantedTanh
from tests.oracle.patching import Oracle
from tests.oracle.smallest import smallest

SEEDS = range(7)
SMALL_SEEDS = range(6)

NETS: dict[str, Callable[[], OracleNet]] = {
    "chain": lambda: Chain([10, 9, 8, 8], [3, 5, 3, 3], SlantedSoftplus, stride_at=1),
    "residual": lambda: Residual([8, 10], 7, 2, SlantedTanh),
    "dense block": lambda: DenseBlock(6, 5, 3, SlantedSoftplus),
    "dense block with transition": lambda: DenseBlock(6, 5, 3, SlantedTanh, transition=6),
}
SMALL_NETS: dict[str, Callable[[], OracleNet]] = {
    "chain": lambda: Chain([4, 4, 4], [3, 3, 3], SlantedSoftplus),
    "chain of several kernels": lambda: Chain([4, 4, 4], [3, 1, 5], SlantedTanh),
    "residual": lambda: Residual([3, 3], 2, 1, SlantedTanh),
    "dense block": lambda: DenseBlock(4, 3, 2, SlantedSoftplus),
    "two groups": lambda: Grouped(6, 2, SlantedSoftplus),
    "three groups": lambda: Grouped(6, 3, SlantedTanh),
}


@functools.cache
def _subject(name: str) -> Subject:
    return Subject(NETS[name])


@functools.cache
def _small_subject(name: str) -> Subject:
    return Subject(SMALL_NETS[name], (9, 9))


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("net", NETS)
def test_only_needed_channels_and_carriers_stay(net: str, mask: str) -> None:
    wrong, removed = [], 0
    varying = mask == "unstructured"  # some constants vary over positions, and need one carrier per independent map
    for seed in SEEDS:
        case = _subject(net).case(mask, seed)
        found = case.inexact() + complaints(case.outcome, case.oracle) + _wrong_carriers(case, at_most_one=not varying)
        found += wrong_counts(case.outcome, case.carriers, fewest=not (varying and net.startswith("dense")))
        wrong += [f"seed {seed}: {complaint}" for complaint in found]
        removed += len(case.oracle.sets) - len(case.outcome.kept)
    assert not wrong, "\n".join(wrong)
    assert removed > len(SEEDS), "hardly anything was removed"


def _wrong_carriers(case: Case, *, at_most_one: bool) -> list[str]:
    """What is kept beyond need and is no carrier, and tensors with several carriers."""
    wrong = [f"{c} is kept without need: {why}" for c, why in case.outcome.reasons.items() if why != CARRIER]
    names = [family(channels) for channels in case.outcome.carriers]
    if at_most_one:
        wrong += [f"several carriers among the channels of {name}" for name in set(names) if names.count(name) > 1]
    return wrong


@pytest.mark.parametrize("net", NETS)
def test_channels_that_nobody_reads_leave_no_carrier(net: str) -> None:
    for seed in SEEDS:
        outcome = _subject(net).case("filters and columns", seed).outcome
        assert outcome.kept == outcome.needed, f"seed {seed}"


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("net", SMALL_NETS)
def test_what_stays_of_a_small_net_is_a_smallest_set_that_works(net: str, mask: str) -> None:
    """All sets of channels that can be kept are tried, smallest first."""
    sizes = []
    for seed in SMALL_SEEDS:
        case = _small_subject(net).case(mask, seed)
        works = smallest(case.oracle, case.carriers)
        assert not case.inexact(), f"seed {seed}"
        assert case.outcome.kept in works, f"seed {seed}: {len(case.outcome.kept)} kept, {len(works[0])} would do"
        sizes.append(len(works[0]))
    assert min(sizes) < len(case.oracle.sets)


@pytest.mark.parametrize("net", ["chain", "residual", "dense block"])
def test_a_graph_of_any_size_keeps_what_each_size_needs(net: str) -> None:
    """Records hold for one size; whole filters are needed at all sizes or at none."""
    subject = _subject(net)
    dims = {0: Dim("batch"), 2: Dim("height", min=4), 3: Dim("width", min=4)}
    captured = capture(subject.net, inputs_like((3, 12, 10))(2), dynamic_shapes=(dims,))
    for mask, seed in itertools.product(("filters", "filters and columns"), range(2)):
        draw_weights(subject.net, mask, subject.inputs(seed), torch.Generator().manual_seed(seed))
        graph_module = copied(captured)
        result = run_pipeline(graph_module)
        for size in ((8, 8), (9, 14)):
            oracle = Oracle(subject.net, inputs_like((3, *size)))
            assert not complaints(compare(oracle, graph_module, result), oracle), f"{mask}, seed {seed}, size {size}"


# Transformers and ConvNeXt


@dataclass(frozen=True)
class Architecture:
    """A small model of torchvision with the names of its MLPs' first and second linear layers."""

    build: Callable[[], nn.Module]
    first: str
    second: str


def _vit() -> nn.Module:
    from torchvision.models import VisionTransformer

    options = {"num_layers": 2, "num_heads": 2, "hidden_dim": 16, "mlp_dim": 32, "num_classes": 5}
    model: nn.Module = VisionTransformer(image_size=32, patch_size=8, **options)
    return model


def _swin() -> nn.Module:
    from torchvision.models import SwinTransformer

    options = {"depths": [2, 1], "num_heads": [2, 2], "num_classes": 5}
    model: nn.Module = SwinTransformer(patch_size=[4, 4], embed_dim=8, window_size=[4, 4], **options)
    return model


def _convnext() -> nn.Module:
    from torchvision.models.convnext import CNBlockConfig, ConvNeXt

    stages = [CNBlockConfig(8, 12, 2), CNBlockConfig(12, None, 1)]
    model: nn.Module = ConvNeXt(stages, num_classes=5, layer_scale=0.5)
    return model


ARCHITECTURES = {
    "vit": Architecture(_vit, "mlp.0", "mlp.3"),
    "swin": Architecture(_swin, "mlp.0", "mlp.3"),
    "convnext": Architecture(_convnext, "block.3", "block.5"),
}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_zero_rows_of_a_first_mlp_layer_are_removed_exactly(name: str) -> None:
    architecture = ARCHITECTURES[name]
    model, report = _compiled(architecture, architecture.first, share=0.4)
    mlps = [layer for layer in report.layers if layer.name.endswith(architecture.first)]
    followers = [layer for layer in report.layers if layer.name.endswith(architecture.second)]
    assert len(mlps) == len(followers) >= 2
    for first, second in zip(mlps, followers, strict=True):
        alive = tuple(np.flatnonzero(_live_rows(model, first.name)).tolist())
        assert 0 < len(alive) < first.shape_before[0]
        assert first.kept_outputs == second.kept_inputs == alive
        assert not first.stays


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_report_names_the_norm_that_pins_the_residual_stream(name: str) -> None:
    """A zero row of the second linear layer is a constant, but its channel is one of those that LayerNorm mixes."""
    architecture = ARCHITECTURES[name]
    model, report = _compiled(architecture, architecture.second, share=0.3)
    pinned = [layer for layer in report.layers if layer.name.endswith(architecture.second)]
    for layer in pinned:
        dead = int((~_live_rows(model, layer.name)).sum())
        assert dead > 0 and len(layer.kept_outputs) == layer.shape_before[0]
        assert dict(layer.stays) == {"layer_norm over channels": dead}
    assert "layer_norm over channels" in str(report)


def _live_rows(model: nn.Module, layer: str) -> NDArray[np.bool_]:
    return np.asarray(model.get_parameter(f"{layer}.weight").detach().numpy().any(axis=1))


def _compiled(architecture: Architecture, zeroed: str, share: float) -> tuple[nn.Module, Report]:
    """A model with random zero rows in the layers named so, and the report of its compilation, found to be exact."""
    make_inputs = inputs_like((3, 32, 32))
    generator = torch.Generator().manual_seed(0)
    model = architecture.build().double().eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim > 1:  # torchvision starts with weights so small that biases would drown the input
                weight.normal_(std=weight[0].numel() ** -0.5, generator=generator)
            if name.endswith(f"{zeroed}.weight"):
                weight[torch.randperm(len(weight), generator=generator)[: int(share * len(weight))]] = 0.0
    randomise(model, lambda: model(*make_inputs(4)), generator)
    assert deviation(run(model, make_inputs(8))[0]).varies
    compiled = sparsefx.compile(model, make_inputs(2), target="torch", verify=False)
    assert worst_error(compiled.graph_module, model, make_inputs) <= TOLERANCE
    return model, compiled.report
