"""Which form a layer runs in, what is kept of it, and what is said where there is no GPU."""

from __future__ import annotations

import gc
import sys
import weakref
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from sparsefx.passes import operators
from sparsefx.passes.errors import TargetError
from sparsefx.passes.operators import compressed_rows

from .needs import needs_gpu, needs_triton

pytestmark = needs_triton


def normal(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(len(shape)))


def pruned(*shape: int) -> Tensor:
    return normal(*shape) * (torch.rand(shape, generator=torch.Generator().manual_seed(7)) < 0.3)


class Clock:
    """Tells made-up seconds, and counts how often it was asked."""

    def __init__(self, fastest: str) -> None:
        self.fastest, self.asked = fastest, 0

    def __call__(self, runs: Mapping[str, Callable[[], Tensor]]) -> dict[str, float]:
        self.asked += 1
        return {form: 1.0 if form == self.fastest else 2.0 for form in runs}


def test_a_form_is_measured_once_for_each_power_of_two() -> None:
    from sparsefx.runtime.kernels.cuda.operators import linear

    weight, clock = pruned(20, 30), Clock("dense")
    matrix = compressed_rows(weight)
    for samples, asked in ((3, 1), (4, 1), (5, 2), (8, 2), (1, 3)):
        x = normal(samples, 30)
        torch.testing.assert_close(linear(x, *matrix, None, None, "none", times=clock), F.linear(x, weight))
        assert clock.asked == asked


def test_images_of_another_size_are_measured_anew() -> None:
    from sparsefx.runtime.kernels.cuda.operators import conv2d

    weight, clock = pruned(8, 3, 3, 3), Clock("dense")
    matrix = compressed_rows(weight)
    for size, asked in (((1, 3, 9, 9), 1), ((1, 3, 9, 9), 1), ((1, 3, 5, 9), 2), ((2, 3, 5, 9), 3)):
        x = normal(*size)
        y = conv2d(x, *matrix, None, None, [3, 3], [1, 1], [1, 1], [1, 1], 1, "relu", times=clock)
        torch.testing.assert_close(y, F.relu(F.conv2d(x, weight, padding=1)))
        assert clock.asked == asked


def test_the_dense_weight_is_kept_only_where_it_is_used() -> None:
    from sparsefx.runtime.kernels.cuda.layers import LinearLayer

    values, columns, starts = compressed_rows(pruned(20, 30))
    layer = LinearLayer(columns, starts, (20, 30))

    def times(runs: Mapping[str, Callable[[], Tensor]]) -> dict[str, float]:
        runs["dense"]()
        return {"rows": 1.0, "columns": 2.0, "dense": 3.0}

    runs: dict[str, Any] = {"dense": lambda: layer.dense(values), "rows": Tensor, "columns": Tensor}
    assert layer.fastest((1,), runs, times) == "rows" and layer._dense is None
    assert layer.fastest((256,), runs, lambda runs: times(runs) | {"dense": 0.0}) == "dense"
    assert layer.dense(values) is layer.dense(values)


def test_layers_go_with_their_values_and_follow_their_changes() -> None:
    from sparsefx.runtime.kernels.cuda.operators import linear

    weight, x = pruned(20, 30), normal(3, 30)
    values, columns, starts = compressed_rows(weight)
    torch.testing.assert_close(
        linear(x, values, columns, starts, None, None, "none", form="dense"), F.linear(x, weight)
    )
    values.mul_(2)
    found = linear(x, values, columns, starts, None, None, "none", form="dense")
    torch.testing.assert_close(found, 2 * F.linear(x, weight))
    gone = weakref.ref(values)
    del values
    gc.collect()
    assert gone() is None


def test_other_types_run_by_the_operators_own_bodies() -> None:
    from sparsefx.runtime.kernels.cuda.operators import conv2d, linear

    weight, x = pruned(20, 30).double(), normal(3, 30).double()
    torch.testing.assert_close(linear(x, *compressed_rows(weight), None, None, "none"), F.linear(x, weight))
    kernel, image = pruned(8, 3, 3, 3).double(), normal(1, 3, 9, 9).double()
    window = ([3, 3], [1, 1], [0, 0], [1, 1], 1, "none")
    found = conv2d(image, *compressed_rows(kernel), None, None, *window)
    torch.testing.assert_close(found, F.conv2d(image, kernel))


@pytest.mark.skipif(torch.version.cuda is not None, reason="this PyTorch has CUDA")
def test_a_pytorch_without_cuda_is_refused() -> None:
    from sparsefx.runtime.kernels.cuda.operators import use_cuda_kernels

    with pytest.raises(TargetError, match=r"PyTorch .* is built without CUDA; install a build that has it"):
        use_cuda_kernels()


def test_a_machine_without_a_gpu_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from sparsefx.runtime.kernels.cuda.tools import find_gpu

    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(TargetError, match=r"\(CUDA 13.0\) finds no GPU; check with nvidia-smi .*CUDA_VISIBLE_DEVICES"):
        find_gpu()


def test_without_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    from sparsefx.runtime.kernels.cuda.tools import import_triton

    monkeypatch.setitem(sys.modules, "triton", None)
    with pytest.raises(TargetError, match=r"need Triton: pip install 'sparsefx\[cuda\]'"):
        import_triton()


@needs_gpu
@pytest.mark.parametrize("kind", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("form", ["rows", "columns", "dense", None])
def test_linear_on_a_gpu(kind: torch.dtype, form: str | None) -> None:
    from sparsefx.runtime.kernels.cuda.operators import linear

    weight, x, bias = pruned(300, 700).to(kind), normal(33, 700).to(kind), normal(300).to(kind)
    exact = F.gelu(F.linear(x.double(), weight.double(), bias.double()))
    values, columns, starts = (part.cuda() for part in compressed_rows(weight))
    y = linear(x.cuda(), values, columns, starts, bias.cuda(), None, "gelu", form=form)
    torch.testing.assert_close(y.cpu().double(), exact, rtol=4 * torch.finfo(kind).eps, atol=1e-4)


@needs_gpu
@pytest.mark.parametrize("kind", [torch.float32, torch.float16, torch.bfloat16])
def test_the_operators_on_a_gpu(kind: torch.dtype) -> None:
    from sparsefx.runtime.kernels.cuda.operators import use_cuda_kernels

    use_cuda_kernels()
    weight, x = pruned(64, 16, 3, 3).to(kind), normal(3, 32, 14, 14).to(kind)
    residual = normal(3, 64, 7, 7).to(kind)
    exact = F.relu(F.conv2d(x.double(), weight.double(), None, 2, 1, 1, 2) + residual.double())
    window = ([3, 3], [2, 2], [1, 1], [1, 1], 2, "relu")
    matrix = [part.cuda() for part in compressed_rows(weight)]
    y = operators.condensed_conv2d(x.cuda(), *matrix, None, residual.cuda(), *window)
    torch.testing.assert_close(y.cpu().double(), exact, rtol=4 * torch.finfo(kind).eps, atol=1e-4)
