"""The torch.compile backend: exact on every piece, and never with weights that are out of date."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.exc import BackendCompilerFailed

import sparsefx
from sparsefx.compiler.integrations import subgraph
from sparsefx.compiler.integrations.torch_compile import TorchBackend, backend
from sparsefx.passes.channels.rules import POINTWISE
from sparsefx.passes.errors import CaptureError, TargetError
from sparsefx.passes.graph import operator_name
from tests.runtime.kernels.needs import needs_compiler

from .models import assert_same, images, masked, numbers, small


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    torch._dynamo.reset()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch's own
        warnings.simplefilter("ignore", FutureWarning)
        yield
    torch._dynamo.reset()


def compiled(model: nn.Module, **settings: object) -> tuple[Callable[[Tensor], Tensor], TorchBackend]:
    made = TorchBackend(**settings)
    return torch.compile(model, backend=made), made


_IN_CI = [pytest.param(name, marks=pytest.mark.ci) for name in ("mobilenet_v2", "vit_b_32")]
_LONG = [pytest.param(name, marks=pytest.mark.long) for name in ("densenet121", "convnext_tiny", "swin_t")]


@pytest.mark.parametrize("name", ["resnet18", *_IN_CI, *_LONG])
def test_exact_and_smaller(name: str) -> None:
    model, size = masked(name)
    run, made = compiled(model)
    assert_same(run, model, size, batches=(2,))
    assert numbers(made.graphs[0]) < 0.9 * numbers(model)


def test_new_batch_sizes_are_one_more_graph() -> None:
    model = small()
    run, made = compiled(model)
    assert_same(run, model, batches=(2, 3, 5, 7))
    assert len(made.graphs) == 2  # the second has a dynamic batch
    assert_same(run, model, batches=(1,))


def test_new_image_sizes() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        *list(small().children())[:6], nn.AdaptiveMaxPool2d(2), nn.Flatten(), nn.Linear(72, 4).double()
    ).eval()
    run, _ = compiled(model)
    for size in (8, 12, 15, 20):
        assert_same(run, model, size, batches=(2,))


class Broken(nn.Module):
    """Two layers whose results cross a graph break, and one that does not."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(8, 12), nn.Linear(12, 12), nn.Linear(12, 3)
        with torch.no_grad():
            for layer in (self.first, self.second):
                layer.weight[::2] = 0

    def forward(self, x: Tensor) -> tuple[Tensor, int]:
        x = torch.relu(self.first(x))
        torch._dynamo.graph_break()
        return self.last(torch.relu(self.second(x))), x.shape[0] * 2


def test_every_piece_behind_a_graph_break_keeps_what_crosses_it() -> None:
    torch.manual_seed(0)
    model = Broken().double().eval()
    run, made = compiled(model)
    with torch.no_grad():
        for batch in (2, 3, 4):
            x = torch.randn(batch, 8, dtype=torch.float64)
            (have, count), (want, _) = run(x), model(x)
            torch.testing.assert_close(have, want, rtol=0, atol=1e-12)
            assert count == 2 * batch
    shapes = [sorted(tuple(t.shape) for t in graph.state_dict().values()) for graph in made.graphs[:2]]
    assert shapes == [[(12,), (12, 8)], [(3,), (3, 6), (6,), (6, 12)]]


def test_a_write_to_a_weight_makes_a_new_graph() -> None:
    model = small()
    run, made = compiled(model)
    assert_same(run, model, batches=(2,))
    with torch.no_grad():
        model[4].weight[0] = 0.1 * torch.randn_like(model[4].weight[0])  # a filter that was zero
    assert_same(run, model, batches=(2,))
    assert len(made.graphs) == 2 and numbers(made.graphs[1]) > numbers(made.graphs[0])
    model[1].running_mean.add_(0.5)
    assert_same(run, model, batches=(2,))
    model[7].weight = nn.Parameter(torch.randn_like(model[7].weight))
    assert_same(run, model, batches=(2,))
    model.load_state_dict(small(seed=1).state_dict())
    assert_same(run, model, batches=(2,))


def test_models_of_the_same_code_do_not_share_weights() -> None:
    made = TorchBackend()

    def call(layer: nn.Module, x: Tensor) -> Tensor:
        return layer(x)

    run = torch.compile(call, backend=made)
    for seed in (0, 1, 0, 2):
        model = small(seed)
        assert_same(lambda x, model=model: run(model, x), model, batches=(2, 3))


class Block(nn.Module):
    def __init__(self, dead: int) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(6, 9), nn.Linear(9, 6)
        with torch.no_grad():
            self.up.weight[:dead] = 0

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(torch.relu(self.up(x)))


def test_regional_compilation_does_not_share_weights() -> None:
    torch.manual_seed(0)
    blocks = nn.Sequential(*(Block(dead) for dead in (3, 4, 5))).double()
    made = TorchBackend()
    x = torch.randn(4, 6, dtype=torch.float64)
    with torch.no_grad():
        expected = blocks(x)
        for block in blocks:
            block.compile(backend=made)
        torch.testing.assert_close(blocks(x), expected, rtol=0, atol=1e-12)
    assert [numbers(graph) for graph in made.graphs] == [13 * kept + 6 for kept in (6, 5, 4)]


@pytest.mark.parametrize("inner", ["aot_eager", "eager", lambda gm, inputs: gm.forward])
def test_inner_backends(inner: object) -> None:
    model = small()
    run, made = compiled(model, inner=inner)
    assert_same(run, model, batches=(2, 3, 4))
    assert numbers(made.graphs[0]) < 0.8 * numbers(model)


@needs_compiler
def test_inductor_inside() -> None:
    model = small()
    run, _ = compiled(model, inner="inductor")
    assert_same(run, model, batches=(2,))


@needs_compiler
def test_condensed_layers() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 8)).eval()
    with torch.no_grad():
        model[0].weight.mul_(torch.rand(48, 64) < 0.1)
    run, made = compiled(model, representation="condensed")
    x = torch.randn(5, 64)
    with torch.no_grad():
        torch.testing.assert_close(run(x), model(x), rtol=1e-5, atol=1e-5)
    assert "sparsefx::condensed_linear" in {operator_name(n) for n in made.graphs[0].graph.nodes}


def test_a_function_with_options() -> None:
    model = small()
    run = torch.compile(model, backend=backend, options={"inner": "aot_eager"})
    assert_same(run, model, batches=(2,))


def test_by_name() -> None:
    if "sparsefx" not in torch._dynamo.list_backends(None):
        pytest.skip("this installation is older than the entry point: pip install -e . again")
    model = small()
    assert_same(torch.compile(model, backend="sparsefx"), model, batches=(2,))
    assert_same(torch.compile(model, backend="sparsefx", options={"inner": "aot_eager"}), model, batches=(2,))


def test_rules_for_own_operators() -> None:
    @torch.library.custom_op("sparsefx_test::shrink", mutates_args=())
    def shrink(x: Tensor) -> Tensor:
        return torch.tanh(x)

    shrink.register_fake(torch.empty_like)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(8, 12), nn.Linear(12, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(shrink(self.first(x)))

    torch.manual_seed(0)
    model = Net().double().eval()
    with torch.no_grad():
        model.first.weight[::2] = 0
    x = torch.randn(4, 8, dtype=torch.float64)
    sizes = []
    for rules in (None, {"sparsefx_test::shrink": POINTWISE}):
        torch._dynamo.reset()
        run, made = compiled(model, rules=rules)
        with torch.no_grad():
            torch.testing.assert_close(run(x), model(x), rtol=0, atol=1e-12)
        sizes.append(numbers(made.graphs[0]))
    assert sizes[1] < sizes[0]


def test_inference_mode() -> None:
    model = small()
    run, made = compiled(model)
    with torch.inference_mode():
        x = images(2)
        torch.testing.assert_close(run(x), model(x), rtol=0, atol=1e-10)
    assert numbers(made.graphs[0]) < numbers(model)


def test_gradients_are_refused() -> None:
    run, _ = compiled(small())
    with pytest.raises(BackendCompilerFailed, match=r"is for inference, and weights require gradients: .*no_grad"):
        run(images(2))


@pytest.mark.parametrize("layer", [1, 3])
def test_training_mode_is_refused(layer: int) -> None:
    model = small()
    model[layer].train()
    run, _ = compiled(model)
    with torch.no_grad(), pytest.raises(BackendCompilerFailed, match=r"training mode: call model.eval\(\)|writes to"):
        run(images(2))


def test_a_write_to_the_input_is_refused() -> None:
    class InPlace(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.add_(1)

    run, _ = compiled(InPlace())
    with torch.no_grad(), pytest.raises(BackendCompilerFailed, match="does it change its input in place"):
        run(images(2))


def test_a_number_that_is_no_size_is_refused() -> None:
    run = torch.compile(lambda x, n: x * n + n, backend=TorchBackend(), dynamic=True)
    with torch.no_grad(), pytest.raises(BackendCompilerFailed, match=r"changes from call to call.*dynamic=False"):
        run(images(2), 7)


def test_an_unknown_representation_is_refused() -> None:
    with pytest.raises(TargetError, match="representation must be dense or condensed, found 'sparse'"):
        TorchBackend(representation="sparse")


def test_autocast_is_part_of_the_graph() -> None:
    model = small().float()
    run, _ = compiled(model)
    x = images(2).float()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        have, want = run(x), model(x)
    assert have.dtype == want.dtype
    torch.testing.assert_close(have.float(), want.float(), rtol=0.1, atol=0.1)


def test_public_name() -> None:
    assert sparsefx.TorchBackend is TorchBackend
    assert str(TorchBackend(inner="inductor")) == "TorchBackend(inner='inductor', representation='dense')"


def test_sizes_that_cannot_stay_open_are_one_graph_each() -> None:
    def in_fours(x: Tensor) -> Tensor:
        return x.reshape(4, -1, 6).sum(1)

    made = TorchBackend()
    run = torch.compile(in_fours, backend=made, dynamic=True)
    for rows in (8, 12, 8, 16, 12):
        x = torch.randn(rows, 6)
        assert torch.equal(run(x), in_fours(x))
    assert len(made.graphs) == 3


def test_a_piece_that_cannot_be_captured_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise CaptureError("no operator for it.")

    monkeypatch.setattr(subgraph, "capture", fail)
    run, _ = compiled(small())
    message = r"a piece of the model cannot be slimmed: no operator for it\. .*torch\.compiler\.disable"
    with torch.no_grad(), pytest.raises(BackendCompilerFailed, match=message):
        run(images(2))
