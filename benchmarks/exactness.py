"""sparsefx beside Torch-Pruning on the same masks: removed channels, error, seconds.

    python -m benchmarks.exactness [MODEL ...]

Every model has 30% of the filters of every layer zeroed, its BatchNorm statistics calibrated and perturbed. Both
tools are asked to remove the channels whose filters are all zero, wherever everything coupled to them is zero too.
The error is the largest difference of an output in float32 to the masked model in float64, in units of the output's
standard deviation over inputs.
"""

from __future__ import annotations

import argparse
import copy
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

import tests.torchvision_shim  # noqa: F401 - torchvision imports only after this
from benchmarks.child import run_in_child
from benchmarks.results_file import write_results
from sparsefx.compiler.compile import compile
from tests.helpers import deviation
from tests.zoo.alive import images
from tests.zoo.case import build
from tests.zoo.masks import weights_of_layers
from tests.zoo.models import find_model

_MODELS = (
    "resnet18", "resnet50", "mobilenet_v2", "densenet121", "efficientnet_b0", "regnet_y_400mf", "googlenet",
    "squeezenet1_1", "shufflenet_v2_x1_0", "convnext_tiny", "vit_b_32", "swin_t",
)  # fmt: skip
_MASK = "filters 30%"
_MEMORY = 12.0  # GiB that a tool may take

Tool = Callable[[nn.Module, Tensor], tuple[Callable[[Tensor], Tensor], int]]


@dataclass(frozen=True)
class Row:
    """One tool on one model; `error` is None where the tool fails, with the reason."""

    model: str
    tool: str
    removed: int
    channels: int
    error: float | None
    seconds: float
    failure: str = ""


def compare(name: str) -> list[Row]:
    """Both tools on one model."""
    zoo = find_model(name)
    module = build(zoo, _MASK)
    assert module is not None
    inputs = images(8, zoo.size, torch.Generator().manual_seed(3))
    with torch.no_grad():
        exact = copy.deepcopy(module).double()(inputs.double())
    channels = _channels(module)
    tools: dict[str, Tool] = {"sparsefx": _sparsefx, "torch-pruning": _torch_pruning}
    return [_row(name, tool, run, copy.deepcopy(module), inputs, exact, channels) for tool, run in tools.items()]


def _row(
    name: str,
    tool: str,
    run: Tool,
    module: nn.Module,
    inputs: Tensor,
    exact: Tensor,
    channels: int,
) -> Row:
    start = time.perf_counter()
    try:
        removed, error, seconds = run_in_child(_figures, run, module, inputs, exact, memory_gib=_MEMORY)
    except RuntimeError as failure:  # the point of the table is to show which tool fails
        return Row(name, tool, 0, channels, None, time.perf_counter() - start, str(failure).splitlines()[0])
    return Row(name, tool, removed, channels, error, seconds)


def _figures(run: Tool, module: nn.Module, inputs: Tensor, exact: Tensor) -> tuple[int, float, float]:
    """Removed channels, error, seconds."""
    warnings.simplefilter("ignore")
    start = time.perf_counter()
    slim, removed = run(module, inputs[:2])
    seconds = time.perf_counter() - start
    with torch.no_grad():
        error = float((slim(inputs).double() - exact).abs().max()) / deviation(exact).over_inputs
    return removed, error, seconds


def _channels(module: nn.Module) -> int:
    return sum(len(weight) for weight in weights_of_layers(module).values())


def _sparsefx(module: nn.Module, example: Tensor) -> tuple[Callable[[Tensor], Tensor], int]:
    compiled = compile(module, (example,), verify=False)
    totals = compiled.report.totals
    return compiled.engine(), totals.channels_before - totals.channels_after


def _torch_pruning(module: nn.Module, example: Tensor) -> tuple[Callable[[Tensor], Tensor], int]:
    """Remove, group by group, the indices at which every coupled filter is zero."""
    import torch_pruning as tp

    before = _channels(module)
    graph = tp.DependencyGraph().build_dependency(module, example_inputs=example)
    last = [m for m in module.modules() if isinstance(m, nn.Linear | nn.Conv2d)][-1]
    for group in list(graph.get_all_groups(ignored_layers=[last], root_module_types=[nn.Conv2d, nn.Linear])):
        indices = _all_zero(group, graph)
        root, prune = group[0].dep.target.module, group[0].dep.handler
        if indices and len(indices) < len(group[0].idxs):
            graph.get_pruning_group(root, prune, idxs=indices).prune()
    return module, before - _channels(module)


def _all_zero(group: Any, graph: Any) -> list[int]:
    """Root indices at which all layers that the group cuts at their outputs have zero filters."""
    zero: Tensor | None = None
    root: list[int] = []
    for dep, indices in group:
        layer = dep.target.module
        if not root:
            root = list(indices)
        if not isinstance(layer, nn.Conv2d | nn.Linear) or not graph.is_out_channel_pruning_fn(dep.handler):
            continue
        empty = ~layer.weight.detach().flatten(1).any(dim=1)[list(indices)]
        zero = empty if zero is None else zero & empty[: len(zero)]
    return [root[i] for i in torch.nonzero(zero).flatten().tolist()] if zero is not None else []


def _print(rows: list[Row]) -> None:
    for row in rows:
        error = f"{row.error:9.1e}" if row.error is not None else "   failed"
        figures = f"{f'{row.removed}/{row.channels}':>14s} {error} {row.seconds:8.1f}"
        print(f"{row.model:22s} {row.tool:14s} {figures}  {row.failure[:80]}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=list(_MODELS))
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)  # processes fork safely only where torch has started no threads
    names, rows = parser.parse_args().models, []
    print(f"{'model':22s} {'tool':14s} {'removed':>14s} {'error':>9s} {'seconds':>8s}")
    for name in names:
        found = compare(name)
        _print(found)
        rows += found
    print(f"written to {write_results('exactness', [asdict(row) for row in rows])}")


if __name__ == "__main__":
    main()
