from __future__ import annotations

import math
import weakref

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from sparsefx.passes.errors import SparsefxError
from sparsefx.training.budget import allocate, budget_beside, target_nonzeros
from sparsefx.training.distributions import erdos_renyi_kernel, global_magnitude, uniform
from sparsefx.training.flops import layer_macs, theoretical_flops
from sparsefx.training.schedules import Constant, CosineDecay, ExponentialDecay, GradualSparsity
from sparsefx.training.selection import highest, highest_of_all
from sparsefx.training.sparse_layer import SparseLayer
from sparsefx.training.weight_layout import WeightLayout

from .helpers import resnet50

# GraNet, Table 10, column ERK: sparsity in percent of ResNet-50 at 90%, layer by layer.
TABLE_10 = """
58
0 82 4 4  4 82 4  4 82 4
43 91 52 71  52 91 52  52 91 52  52 91 52
71 96 76 86  76 96 76  76 96 76  76 96 76  76 96 76  76 96 76
86 98 88 93  88 98 88  88 98 88
93
"""


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach() for name, p in model.named_parameters() if p.ndim >= 2}


def erk_counts(sparsity: float) -> dict[str, int]:
    layers = weights(resnet50())
    sizes = {name: weight.numel() for name, weight in layers.items()}
    nonzeros = target_nonzeros(sum(sizes.values()), sparsity)
    return allocate(erdos_renyi_kernel(layers, nonzeros), sizes, nonzeros)


def test_erdos_renyi_kernel_of_resnet50_is_granets_table_10() -> None:
    layers, counts = weights(resnet50()), erk_counts(0.9)
    sparsities = {name: 1 - counts[name] / weight.numel() for name, weight in layers.items()}
    assert [round(100 * sparsity) for sparsity in sparsities.values()] == [int(n) for n in TABLE_10.split()]
    assert [name for name, s in sparsities.items() if s == 0] == ["layer1.0.conv1.weight"]


def test_the_whole_of_resnet50_is_exactly_90_percent_sparse() -> None:
    layers, counts = weights(resnet50()), erk_counts(0.9)
    size = sum(weight.numel() for weight in layers.values())
    assert size == 25_502_912
    assert sum(counts.values()) == round(0.1 * size) == 2_550_291
    assert f"{100 * (1 - sum(counts.values()) / size):.5f}" == "90.00000"


def test_inference_flops_of_resnet50_under_erdos_renyi_kernel() -> None:
    """SRigL's Table 5 without its activations: 8.178, 3.384, 1.978, 0.995 and 0.199 GFLOPs."""
    macs = layer_macs(resnet50(), (torch.zeros(1, 3, 224, 224),))
    layers = weights(resnet50())

    def flops(sparsity: float) -> str:
        counts = erk_counts(sparsity)
        return f"{theoretical_flops(macs, {n: counts[n] / w.numel() for n, w in layers.items()}) / 1e9:.3f}"

    assert [flops(s) for s in (0, 0.8, 0.9, 0.95, 0.99)] == ["8.178", "3.384", "1.978", "0.995", "0.199"]


shapes = st.lists(st.lists(st.integers(1, 12), min_size=2, max_size=4).map(tuple), min_size=1, max_size=6)


@given(shapes, st.floats(0, 1))
def test_distributions_give_densities_that_add_up(drawn: list[tuple[int, ...]], density: float) -> None:
    layers = {str(i): torch.empty(shape, device="meta") for i, shape in enumerate(drawn)}
    sizes = {name: math.prod(weight.shape) for name, weight in layers.items()}
    nonzeros = round(density * sum(sizes.values()))
    for distribution in (erdos_renyi_kernel, uniform):
        densities = distribution(layers, nonzeros)
        assert all(0 <= d <= 1 + 1e-9 for d in densities.values())
        assert sum(densities[name] * sizes[name] for name in sizes) == pytest.approx(nonzeros, abs=1e-6)
        counts = allocate(densities, sizes, nonzeros)
        assert sum(counts.values()) == nonzeros
        assert all(abs(counts[n] - densities[n] * sizes[n]) < 1 + 1e-6 for n in sizes)


@given(
    st.dictionaries(st.text(max_size=3), st.tuples(st.integers(0, 50), st.floats(0, 1)), min_size=1, max_size=6),
    st.floats(0, 1),
)
def test_allocation_is_exact_whatever_the_densities(layers: dict[str, tuple[int, float]], share: float) -> None:
    sizes = {name: size for name, (size, _) in layers.items()}
    nonzeros = round(share * sum(sizes.values()))
    counts = allocate({name: density for name, (_, density) in layers.items()}, sizes, nonzeros)
    assert sum(counts.values()) == nonzeros
    assert all(0 <= counts[name] <= sizes[name] for name in sizes)


def test_budgets_that_cannot_be_met() -> None:
    with pytest.raises(SparsefxError, match="7 non-zeros do not fit into layers of 6 weights"):
        allocate({"a": 1.0}, {"a": 6}, 7)
    layers = {
        name: layer_of(size, kept_dense=name != "body") for name, size in (("stem", 10), ("body", 70), ("head", 20))
    }
    assert budget_beside(layers, 37) == 7
    with pytest.raises(
        SparsefxError, match=r"kept dense \(stem, head\) hold 30 weights, more than the 10 that .* of 100"
    ):
        budget_beside(layers, 10)


def layer_of(size: int, *, kept_dense: bool) -> SparseLayer:
    weight = nn.Parameter(torch.zeros(size, 1))
    return SparseLayer("layer", weight, WeightLayout(), torch.ones(size, 1, dtype=torch.bool), kept_dense)


def test_global_magnitude_compares_across_layers() -> None:
    layers = {"small": torch.full((2, 2), 0.1), "large": torch.tensor([[3.0, -4.0], [0.05, 5.0]])}
    assert global_magnitude(layers, 3) == {"small": 0.0, "large": 0.75}
    assert global_magnitude(layers, 4) == {"small": 0.25, "large": 0.75}


# Values that differ in every digit of the search, ties, zeros, the infinite.
SCORES = st.sampled_from([0.0, 1e-45, 1e-20, 0.5, 1.0, 1.0000001, 1.0002, 1.1, 2.0, 3e38, math.inf])


@given(st.lists(SCORES, min_size=1, max_size=30), st.integers(0, 2**30), st.integers(0, 35))
def test_the_highest_of_all_are_selected_exactly_and_in_order(values: list[float], bits: int, count: int) -> None:
    scores, eligible, ranked = drawn_scores(values, bits)
    cut = len(values) // 3
    parts = {"a": scores[:cut], "b": scores[cut:, None]}
    found = highest_of_all(parts.__getitem__, {"a": eligible[:cut], "b": eligible[cut:, None]}, count)
    chosen = torch.cat([found["a"], found["b"].flatten()]).nonzero().flatten().tolist()
    assert chosen == sorted(ranked[:count])
    assert found["b"].shape == (len(values) - cut, 1)


@given(st.lists(SCORES, min_size=1, max_size=30), st.integers(0, 2**30), st.integers(-1, 35))
def test_the_highest_of_a_layer_are_selected_exactly_and_in_order(values: list[float], bits: int, count: int) -> None:
    scores, eligible, ranked = drawn_scores(values, bits)
    chosen = highest(scores[:, None], eligible[:, None], count)
    assert chosen.shape == (len(values), 1)
    assert chosen.flatten().nonzero().flatten().tolist() == sorted(ranked[: max(count, 0)])


def drawn_scores(values: list[float], bits: int) -> tuple[Tensor, Tensor, list[int]]:
    """Scores, which of them are eligible, and the places of these by rank."""
    eligible = [bool(bits >> i & 1) for i in range(len(values))]
    scores = torch.tensor(values, dtype=torch.float32)
    ranked = sorted((i for i in range(len(values)) if eligible[i]), key=lambda i: (-float(scores[i]), i))
    return scores, torch.tensor(eligible), ranked


def test_one_layers_scores_exist_at_a_time() -> None:
    """Chase's Algorithm 2 is there so that not all scores are held at once; so is this."""
    alive: weakref.WeakSet[Tensor] = weakref.WeakSet()
    most = 0

    def score(name: str) -> Tensor:
        nonlocal most
        made = torch.arange(100.0) + int(name)
        alive.add(made)
        most = max(most, len(alive))
        return made

    highest_of_all(score, {str(i): torch.ones(100, dtype=torch.bool) for i in range(8)}, 40)
    assert most <= 2, "the one before may still be bound while the next is made"


def test_rigls_cosine() -> None:
    schedule = CosineDecay(0.3, 75)
    for step in range(75):
        assert schedule(step) == pytest.approx(0.15 * (1 + math.cos(math.pi * step / 75)))
    assert schedule(0) == 0.3 and schedule(75) == schedule(1000) == 0
    assert CosineDecay(0.05, 10, 0.005)(10) == 0.005
    assert CosineDecay(0.5, 10, 0.25)(5) == pytest.approx(0.375)
    assert [ExponentialDecay(8.0, 1.0, 3)(step) for step in range(5)] == pytest.approx([8, 4, 2, 1, 1])


def test_gradual_sparsity_is_chases_equation_3() -> None:
    schedule = GradualSparsity(initial=0.1, final=0.5, start=100, steps=400)
    for step in range(100, 500, 25):
        assert schedule(step) == pytest.approx(0.5 + (0.1 - 0.5) * (1 - (step - 100) / 400) ** 3)
    assert schedule(0) == pytest.approx(0.1) and schedule(500) == schedule(900) == 0.5


def test_constant() -> None:
    assert Constant(0.3)(0) == Constant(0.3)(10**6) == 0.3
