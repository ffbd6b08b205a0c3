"""The condensed operators as torch sees them, with their own bodies and with the kernels."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from sparsefx.passes import operators
from sparsefx.passes.capture import capture
from sparsefx.passes.condense import Condense
from sparsefx.passes.operators import compressed_rows
from sparsefx.runtime.kernels.operators import use_kernels
from sparsefx.training.recipes.nets import SmallResNet

from .needs import needs_compiler

pytestmark = needs_compiler


def normal(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(len(shape)))


def pruned(*shape: int) -> Tensor:
    keep = torch.rand(shape, generator=torch.Generator().manual_seed(7)) < 0.3
    return normal(*shape) * keep


LINEAR, CONV = pruned(20, 30), pruned(8, 3, 3, 3)
CALLS: dict[str, tuple[Callable[..., Tensor], tuple[Any, ...], Tensor]] = {
    "linear": (
        operators.condensed_linear,
        (normal(3, 5, 30), *compressed_rows(LINEAR), None, None, "none"),
        F.linear(normal(3, 5, 30), LINEAR),
    ),
    "linear with all": (
        operators.condensed_linear,
        (normal(5, 30), *compressed_rows(LINEAR), normal(20), normal(5, 20), "relu"),
        F.relu(F.linear(normal(5, 30), LINEAR, normal(20)) + normal(5, 20)),
    ),
    "convolution": (
        operators.condensed_conv2d,
        (normal(2, 6, 9, 9), *compressed_rows(CONV), None, None, [3, 3], [2, 1], [1, 0], [1, 2], 2, "none"),
        F.conv2d(normal(2, 6, 9, 9), CONV, None, (2, 1), (1, 0), (1, 2), 2),
    ),
    "convolution with all": (
        operators.condensed_conv2d,
        (
            normal(2, 3, 9, 9),
            *compressed_rows(CONV),
            normal(8),
            normal(2, 8, 9, 9),
            [3, 3],
            [1, 1],
            [1, 1],
            [1, 1],
            1,
            "relu",
        ),
        F.relu(F.conv2d(normal(2, 3, 9, 9), CONV, normal(8), 1, 1) + normal(2, 8, 9, 9)),
    ),
}


@pytest.fixture(autouse=True)
def _kernels() -> None:
    use_kernels()


@pytest.mark.parametrize("name", CALLS)
def test_the_operators_are_what_torch_expects(name: str) -> None:
    operator, arguments, exact = CALLS[name]
    torch.testing.assert_close(operator(*arguments), exact)
    assert set(torch.library.opcheck(operator, arguments).values()) == {"SUCCESS"}


@pytest.mark.parametrize("name", CALLS)
def test_in_float64_their_own_bodies_run(name: str) -> None:
    operator, arguments, exact = CALLS[name]
    exactly = [a.double() if isinstance(a, Tensor) and a.is_floating_point() else a for a in arguments]
    found = operator(*exactly)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found.float(), exact)


def test_a_weight_that_changes_is_packed_anew() -> None:
    operator, arguments, exact = CALLS["linear"]
    values = arguments[1].clone()
    changed = (arguments[0], values, *arguments[2:])
    torch.testing.assert_close(operator(*changed), exact)
    values.mul_(2)
    torch.testing.assert_close(operator(*changed), 2 * exact)
    with torch.inference_mode():
        other = (arguments[0], values * 2, *arguments[2:])
        torch.testing.assert_close(operator(*other), 4 * exact)


def test_one_layer_on_other_shapes() -> None:
    operator, arguments, _ = CALLS["convolution with all"]
    for size in ((1, 3, 5, 30), (2, 3, 1, 1), (1, 3, 64, 64)):
        x = normal(*size)
        found = operator(x, *arguments[1:4], None, None, *arguments[6:])
        torch.testing.assert_close(found, F.relu(F.conv2d(x, CONV, None, 1, 1)))
    transposed = normal(2, 3, 9, 8).mT  # not contiguous
    found = operator(transposed, *arguments[1:4], None, None, *arguments[6:])
    torch.testing.assert_close(found, F.relu(F.conv2d(transposed, CONV, None, 1, 1)))


@pytest.fixture
def _fresh_compiler() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")
@pytest.mark.usefixtures("_fresh_compiler")
def test_a_network_exports_again_and_runs_under_torch_compile() -> None:
    torch.manual_seed(0)
    model = SmallResNet().eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(torch.rand(weight.shape) < (0.1 if weight.ndim == 4 else 1.0))
        x = normal(2, 1, 16, 16)
        exact = model(x)
        graph = capture(model, (x,))
        assert Condense()(graph).modified
        torch.testing.assert_close(graph(x), exact, rtol=1e-4, atol=1e-5)
        again = torch.export.export(graph, (x,)).module()
        torch.testing.assert_close(again(x), exact, rtol=1e-4, atol=1e-5)
        compiled = torch.compile(graph, backend="aot_eager", fullgraph=True)
        torch.testing.assert_close(compiled(x), exact, rtol=1e-4, atol=1e-5)
