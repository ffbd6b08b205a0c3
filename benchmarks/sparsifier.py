"""What a sparsifier costs beside the optimizer: a step, a mask update and memory, on ResNet-50's 25.5 M weights.

    python -m benchmarks.sparsifier [--rounds 9] [--methods RigL SRigL ...]

Gradients are random, and the wrapped optimizer's own step is left out, so that only the sparsifier is timed. A step
is compared with one `torch._foreach_mul_` of the weights with masks of their own type, an update with one topk of a
tenth over all weights in one tensor; contenders are interleaved round by round. Memory is that of all tensors
that live on after an update besides model, gradients and optimizer state, in bytes a weight.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

import tests.torchvision_shim  # noqa: F401 - torchvision imports only after this
from benchmarks.child import run_in_child
from benchmarks.results_file import write_results
from sparsefx import training
from sparsefx.training import Sparsifier

_EXAMPLE = (torch.zeros(2, 3, 64, 64),)
_STEPS = 10_000
_OPTIONS: dict[str, dict[str, Any]] = {
    "SET": {},
    "RigL": {},
    "SRigL": {},
    "GMP": {},
    "GraNet": {},
    "Chase": {"example_inputs": _EXAMPLE},
    "IEE": {},
    "Campfire": {"sparsity": 0.9},
    "Random": {},
}
Row = dict[str, Any]


def measure(method: str, rounds: int) -> Row:
    """One method's figures, medians over the rounds in milliseconds."""
    import torchvision

    torch.manual_seed(0)
    model = torchvision.models.resnet50(weights=None)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-9, momentum=0.9)
    _backward_at_random(model)
    optimizer.step()
    before = _tensor_bytes()
    sparsifier = _build(method, model, optimizer)
    weights = [layer.weight for layer in sparsifier.layers.values()]
    size = sum(weight.numel() for weight in weights)
    optimizer.step = lambda closure=None: None  # type: ignore[method-assign] # only the rest is timed
    updates = [step for step in range(1, _STEPS) if sparsifier.is_update(step) and not _explores(sparsifier, step)]
    plain = next(step for step in range(1, _STEPS) if not sparsifier.is_update(step))
    times: dict[str, list[float]] = {"step": [], "multiply": [], "update": [], "topk": []}
    for number in range(rounds):
        masks = [(weight != 0).to(weight.dtype) for weight in weights]
        times["multiply"].append(_timed(lambda masks=masks: torch._foreach_mul_(weights, masks)))  # type: ignore[misc]
        del masks
        sparsifier.step_count = plain - 1
        _touch_nothing(sparsifier)
        times["step"].append(_timed(sparsifier.step))
        flat = torch.cat([weight.abs().flatten() for weight in weights])
        times["topk"].append(_timed(lambda flat=flat: flat.topk(size // 10)))  # type: ignore[misc]
        del flat
        if updates:
            _backward_at_random(model)
            sparsifier.step_count = updates[min(number, len(updates) - 1)] - 1
            times["update"].append(_timed(sparsifier.step))
    extra = _tensor_bytes() - before
    row: Row = {"method": method, "weights": size, "extra_bytes_per_weight": extra / size}
    for name, values in times.items():
        if values:
            quartiles = statistics.quantiles(values, n=4)
            row |= {f"{name}_ms": statistics.median(values), f"{name}_iqr_ms": quartiles[2] - quartiles[0]}
    row["step_ratio"] = row["step_ms"] / row["multiply_ms"]
    row["update_ratio"] = row["update_ms"] / row["topk_ms"] if updates else None
    return row


def _build(method: str, model: nn.Module, optimizer: torch.optim.Optimizer) -> Sparsifier:
    build: Callable[..., Sparsifier] = getattr(training, method)
    return build(model, optimizer, total_steps=_STEPS, **_OPTIONS[method])


def _explores(sparsifier: Sparsifier, step: int) -> bool:
    """Whether a step belongs to IEE's exploration, which cannot be jumped into."""
    return not sparsifier.grows_by_gradient and sparsifier.dense_passes(step) > 0


def _backward_at_random(model: nn.Module) -> None:
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)


def _touch_nothing(sparsifier: Sparsifier) -> None:
    """The multiplication above has written to the weights, which costs a training nothing."""
    for layer in sparsifier.layers.values():
        layer.seen()


def _timed(function: Callable[[], Any]) -> float:
    torch.zeros(1 << 26).add_(1)  # so that every contender finds the caches without its tensors
    start = time.perf_counter()
    function()
    return 1e3 * (time.perf_counter() - start)


def _tensor_bytes() -> int:
    """Bytes of all tensors alive, each storage once."""
    gc.collect()
    storages = {
        tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes()
        for tensor in gc.get_objects()
        if type(tensor) in (Tensor, nn.Parameter)  # not the fake ones of an exported graph
    }
    return sum(storages.values())


def line(row: Row) -> str:
    update = "-" if row["update_ratio"] is None else f"{row['update_ms']:9.0f} {row['update_ratio']:6.2f}x"
    step = f"{row['step_ms']:8.1f} {row['multiply_ms']:8.1f} {row['step_ratio']:6.2f}x"
    return f"{row['method']:10s} {step} {update:>17s} {row['topk_ms']:8.0f} {row['extra_bytes_per_weight']:8.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--methods", nargs="*", default=list(_OPTIONS), choices=list(_OPTIONS))
    options = parser.parse_args()
    names = f"{'method':10s} {'step ms':>8s} {'mul_ ms':>8s} {'ratio':>7s}"
    print(f"{names} {'update ms, ratio':>17s} {'topk ms':>8s} {'B/weight':>8s}")
    rows = []
    for method in options.methods:
        rows.append(run_in_child(measure, method, options.rounds))
        print(line(rows[-1]), flush=True)
    print(f"Written to {write_results('sparsifier', rows)}")


if __name__ == "__main__":
    main()
