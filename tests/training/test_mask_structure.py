from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sparsefx.passes.errors import MaskError
from sparsefx.training import MaskStructure
from sparsefx.training.detect_structure import detect_structure
from sparsefx.training.mask_structure import violation
from sparsefx.training.weight_layout import WeightLayout


def random(*shape: int, density: float = 0.5, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < density


def top(scores: Tensor, count: int, dim: int) -> Tensor:
    """The `count` highest along one axis."""
    return torch.zeros_like(scores, dtype=torch.bool).scatter(dim, scores.topk(count, dim).indices, True)


def n_m(outputs: int, inputs: int, kernel: int, n: int, m: int) -> Tensor:
    scores = torch.rand(outputs, inputs // m, m, kernel, kernel, generator=torch.Generator().manual_seed(1))
    return top(scores, n, 2).reshape(outputs, inputs, kernel, kernel)


def channels(outputs: list[int], inputs: list[int]) -> Tensor:
    mask = torch.ones(6, 5, 3, 3, dtype=torch.bool)
    mask[outputs] = False
    mask[:, inputs] = False
    return mask


def fan_in(count: int) -> Tensor:
    mask = top(torch.rand(8, 36, generator=torch.Generator().manual_seed(2)), count, 1).reshape(8, 4, 3, 3)
    mask[5] = False
    return mask


def window(most: int) -> Tensor:
    mask = top(torch.rand(16, 6, 9, generator=torch.Generator().manual_seed(3)), most, 2)
    mask[0, 0] = False
    mask[3, 1, :4] = False
    return mask.reshape(16, 6, 3, 3)


def blocks(block: tuple[int, int]) -> Tensor:
    small = random(64 // block[0], 64 // block[1])
    return small.repeat_interleave(block[0], 0).repeat_interleave(block[1], 1)


DETECTED = {
    "dense": (torch.ones(4, 3), MaskStructure("dense")),
    "output filters": (channels([1, 4], []), MaskStructure("channel", ablated=(1, 4))),
    "input columns": (channels([], [0]), MaskStructure("channel")),
    "both": (channels([2], [3, 4]), MaskStructure("channel", ablated=(2,))),
    "nothing left": (torch.zeros(2, 3), MaskStructure("channel", ablated=(0, 1))),
    "constant fan-in": (fan_in(5), MaskStructure("constant_fan_in", fan_in=5, ablated=(5,))),
    "2:4": (n_m(8, 16, 1, 2, 4), MaskStructure("n_m", n=2, m=4)),
    "2:4 in a convolution": (n_m(8, 16, 3, 2, 4), MaskStructure("n_m", n=2, m=4)),
    "1:4": (n_m(8, 16, 3, 1, 4), MaskStructure("n_m", n=1, m=4)),
    "4:8": (n_m(64, 64, 1, 4, 8), MaskStructure("n_m", n=4, m=8)),
    "2:4 with room": (
        n_m(64, 64, 1, 2, 4) & random(64, 64, 1, 1, density=0.9),
        MaskStructure("n_m", n=2, m=4),
    ),
    "kernels": (random(8, 7, 1, 1).expand(8, 7, 3, 3), MaskStructure("kernel")),
    "window": (window(3), MaskStructure("window", window=3)),
    "block": (blocks((8, 8)), MaskStructure("block", block=(8, 8))),
    "block of inputs": (blocks((1, 32)), MaskStructure("block", block=(1, 32))),
    "unstructured": (random(40, 40, density=0.1), MaskStructure("unstructured")),
    "very sparse": (random(64, 64, density=0.005), MaskStructure("unstructured")),
    "sparse kernels": (random(64, 30, 3, 3, density=0.02), MaskStructure("unstructured")),
    "a vector": (torch.tensor([1, 0, 1]), MaskStructure("channel", ablated=(1,))),
}


@pytest.mark.parametrize("name", DETECTED)
def test_the_most_specific_structure_is_found(name: str) -> None:
    mask, expected = DETECTED[name]
    found = detect_structure(mask.bool())
    assert found == MaskStructure(**{**vars(expected), "ablated": found.ablated})
    if expected.ablated or expected.kind == "channel":
        assert found.ablated == expected.ablated


@given(st.integers(0, 10_000), st.floats(0, 1), st.sampled_from([(4, 8), (6, 4, 3, 3), (8, 8, 1, 1), (5,), (3, 4, 3)]))
@settings(max_examples=60, deadline=None)
def test_what_is_found_holds_and_survives_a_round_trip(seed: int, density: float, shape: tuple[int, ...]) -> None:
    mask = random(*shape, density=density, seed=seed)
    found = detect_structure(mask)
    assert violation(mask, found) is None
    assert MaskStructure.from_dict(found.to_dict()) == found


def test_transposed_convolutions_keep_outputs_on_axis_1() -> None:
    layout = WeightLayout(output_axis=1, groups=2)
    mask = torch.ones(4, 3, 3, 3, dtype=torch.bool)
    mask[2:, 0] = False  # group 1, its output 0
    assert detect_structure(mask, layout) == MaskStructure("channel", ablated=(3,), layout=layout)
    assert layout.rows(mask).shape == (6, 18)
    assert layout.rows(mask).any(1).tolist() == [True, True, True, False, True, True]


def test_grouped_convolutions_have_columns_per_group() -> None:
    layout = WeightLayout(groups=2)
    mask = torch.ones(6, 4, 3, 3, dtype=torch.bool)
    mask[:3, 1] = False  # only the first group ignores its second input
    assert detect_structure(mask, layout).kind == "channel"
    assert detect_structure(mask).kind != "channel"


VIOLATIONS = [
    (torch.tensor([[1, 0]]), MaskStructure("dense"), "1 weights are masked"),
    (torch.tensor([[1, 0], [0, 1]]), MaskStructure("channel"), "a kept filter has zeros"),
    (torch.tensor([[1, 0], [1, 1]]), MaskStructure("constant_fan_in", fan_in=1), "2 non-zeros, not 1"),
    (torch.tensor([[1, 1, 1, 0]]), MaskStructure("n_m", n=2, m=4), "3 of 4 consecutive inputs are non-zero, not 2"),
    (torch.tensor([[1, 0, 0, 0, 1, 1]]), MaskStructure("n_m", n=1, m=4), "2 of 4"),
    (torch.tensor([[[1, 0, 1]]]), MaskStructure("kernel"), "a kernel is neither zero nor dense"),
    (torch.tensor([[[1, 0, 1]]]), MaskStructure("window", window=1), "a window has 2 non-zeros, not 1"),
    (torch.tensor([[1, 0], [1, 1]]), MaskStructure("block", block=(1, 2)), r"zero or dense blocks \(1, 2\)"),
    (torch.ones(3, 3), MaskStructure("block", block=(2, 2)), "blocks"),
    (torch.tensor([[0], [1]]), MaskStructure("unstructured", ablated=(1,)), r"non-zeros are \[0\], not \[1\]"),
    (torch.ones(3, 2), MaskStructure("dense", layout=WeightLayout(groups=2)), "does not fit"),
]


@pytest.mark.parametrize(("mask", "structure", "message"), VIOLATIONS)
def test_a_structure_that_does_not_hold_is_told(mask: Tensor, structure: MaskStructure, message: str) -> None:
    found = violation(mask.bool(), structure)
    assert found is not None
    with pytest.raises(MaskError, match=message):
        raise MaskError(found)


def test_a_short_last_group_is_a_group() -> None:
    assert violation(torch.tensor([[1, 0, 0, 0, 1]]).bool(), MaskStructure("n_m", n=1, m=4)) is None


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MaskStructure("diagonal"), "unknown mask structure 'diagonal'; known are dense, channel"),
        (lambda: MaskStructure("n_m", n=2), "a n_m mask structure needs m, found None"),
        (lambda: MaskStructure("kernel", window=2), "a kernel mask structure takes no window, found 2"),
        (
            lambda: MaskStructure("constant_fan_in", fan_in=0),
            "fan_in of a constant_fan_in mask structure must be",
        ),
        (lambda: MaskStructure("block", block=(4, 0)), r"must be positive, found \(4, 0\)"),
        (lambda: MaskStructure("block", block=(4,)), r"must be positive, found \(4,\)"),  # type: ignore[arg-type]
        (lambda: MaskStructure("window", window=2.5), "must be positive, found 2.5"),  # type: ignore[arg-type]
        (lambda: WeightLayout(groups=0), "output_axis must be 0 or 1 and groups positive, found 0, 0"),
        (lambda: WeightLayout(output_axis=2), "found 2, 1"),
    ],
)
def test_structures_that_make_no_sense(make: object, message: str) -> None:
    assert callable(make)
    with pytest.raises(MaskError, match=message):
        make()
