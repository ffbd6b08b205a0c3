"""Every kind of layer becomes smaller and stays what it is."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

import sparsefx
from tests.compiler.slimming.nets import Block, Depthwise, ablate, error, lively
from tests.helpers import TOLERANCE

FIRST_LAYERS = {
    "convolution": lambda: nn.Conv2d(3, 12, 3, padding=1),
    "without a bias": lambda: nn.Conv2d(3, 12, 3, padding=1, bias=False),
    "reflecting": lambda: nn.Conv2d(3, 12, 3, padding=1, padding_mode="reflect"),
    "transposed": lambda: nn.ConvTranspose2d(3, 12, 3, stride=2),
    "grouped": lambda: nn.Conv2d(3, 12, 3, groups=3),
    "transposed and grouped": lambda: nn.ConvTranspose2d(3, 12, 2, groups=3),
}
NORMS = {
    "without affine": lambda: nn.BatchNorm2d(12, affine=False),
    "instance norm": lambda: nn.InstanceNorm2d(12, affine=True, track_running_stats=True),
    "prelu": lambda: nn.PReLU(12),
}


class Branches(nn.Module):
    """A branch for every kind of layer and norm: they are exported only once."""

    def __init__(self) -> None:
        super().__init__()
        branches = {name: Block(make(), 12) for name, make in FIRST_LAYERS.items()}
        branches |= {name: Block(nn.Conv2d(3, 12, 3), 12, make()) for name, make in NORMS.items()}
        self.branches = nn.ModuleDict(branches)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.branches.values()], 1)


def test_kinds_of_layers_and_norms() -> None:
    model, make_inputs = lively(Branches())
    ablate(model, *(f"branches.{name}.first" for name in model.branches))
    small, _ = sparsefx.slim(model, make_inputs(2))
    assert error(small, model, make_inputs) <= TOLERANCE
    for name, branch in small.branches.items():
        width = branch.first.out_channels
        assert width == branch.second.in_channels < 12, name
        assert type(branch.first) is type(model.branches[name].first), name
        for tensors in (branch.first, branch.norm):
            sizes = {t.numel() for t in (*tensors.parameters(), *tensors.buffers()) if t.ndim == 1}
            assert sizes <= {width}, name
    assert small.branches["grouped"].first.groups == 3


def test_depthwise_convolutions_keep_constants_that_vary_over_positions_unless_sizes_are_fixed() -> None:
    model, make_inputs = lively(Depthwise())
    ablate(model, "expand")
    any_size, _ = sparsefx.slim(model, make_inputs(2))
    fixed, _ = sparsefx.slim(model, make_inputs(2), fixed_sizes=True)
    assert max(error(small, model, make_inputs) for small in (any_size, fixed)) <= TOLERANCE
    for small in (any_size, fixed):
        width = small.depthwise.out_channels
        assert small.depthwise.groups == small.depthwise.in_channels == small.expand.out_channels == width
    assert fixed.depthwise.groups <= any_size.depthwise.groups < 24
    assert any_size.config["exact_at"] != fixed.config["exact_at"]
    x = torch.randn(2, 3, 13, 6, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(any_size(x), model(x), rtol=1e-9, atol=1e-9)


class Volumes(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.volume, self.line = nn.Conv3d(2, 10, 2), nn.Conv1d(10, 8, 3, padding=1)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.sigmoid(self.volume(x)).flatten(2)
        out: Tensor = self.head(torch.sigmoid(self.line(x)).amax(2))
        return out


def test_convolutions_in_one_and_three_dimensions() -> None:
    model, make_inputs = lively(Volumes(), [(2, 4, 5, 3)])
    ablate(model, "volume", "line")
    small, _ = sparsefx.slim(model, make_inputs(2))
    assert error(small, model, make_inputs) <= TOLERANCE
    assert small.volume.out_channels == small.line.in_channels == 6  # five live ones and a carrier
    assert small.line.out_channels == small.head.in_features == 4


class Words(nn.Module):
    """An embedding whose table is the last layer's weight too, with a gated feed-forward layer."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(20, 8)
        self.gate, self.up, self.down = nn.Linear(8, 16), nn.Linear(8, 16), nn.Linear(16, 8)
        self.norm, self.out = nn.LayerNorm(8), nn.Linear(8, 20, bias=False)
        self.out.weight = self.table.weight

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.table(tokens)
        x = x + self.down(nn.functional.silu(self.gate(x)) * self.up(x))
        logits: Tensor = self.out(self.norm(x))
        return logits


def test_linear_layers_and_a_tied_embedding() -> None:
    torch.manual_seed(0)
    model = Words().double().eval()
    ablate(model, "gate")
    model.gate.bias.data[::4] = 0  # of these the gate is zero, the others are a constant times a live channel
    tokens = torch.randint(0, 20, (2, 6))
    small, _ = sparsefx.slim(model, (tokens,))
    with torch.no_grad():
        torch.testing.assert_close(small(tokens), model(tokens), rtol=1e-9, atol=1e-9)
    assert small.gate.out_features == small.up.out_features == small.down.in_features == 12
    assert small.out.weight is small.table.weight


class Twice(nn.Module):
    """One layer and one norm called twice, and a weight that two layers share."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 12, 1), nn.BatchNorm2d(12)
        self.shared = nn.Conv2d(12, 12, 3, padding=1)
        self.twin = nn.Conv2d(12, 12, 3, padding=1, bias=False)
        self.twin.weight = self.shared.weight
        self.head = nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.first(x)))
        x = torch.relu(self.norm(self.shared(x)))
        x = torch.sigmoid(self.shared(x)) + self.twin(x)
        out: Tensor = self.head(x.mean((2, 3)))
        return out


@pytest.mark.parametrize("dead", [True, False], ids=["zero constants", "constants"])
def test_parameters_that_are_read_at_several_places(dead: bool) -> None:
    model, make_inputs = lively(Twice())
    ablate(model, "first", "shared", every=3)
    with torch.no_grad():
        if dead:
            for tensor in (model.first.bias, model.shared.bias, model.norm.bias, model.norm.running_mean):
                tensor[::3] = 0
            model.head.weight[:, ::3] = 0
    small, _ = sparsefx.slim(model, make_inputs(2))
    assert error(small, model, make_inputs) <= TOLERANCE
    assert small.twin.weight is small.shared.weight
    assert small.first.out_channels == 8 if dead else 8 < small.first.out_channels <= 12


def test_nothing_to_remove_gives_an_equal_copy() -> None:
    model, make_inputs = lively(Block(nn.Conv2d(3, 12, 3), 12))
    small, masks = sparsefx.slim(model, make_inputs(2))
    assert small is not model and len(masks) == 0
    assert all(torch.equal(a, b) for a, b in zip(small.state_dict().values(), model.state_dict().values(), strict=True))
    assert small.config["parameters_before"] == small.config["parameters_after"]
    assert small.config["tensors"] == small.config["layers"] == {}


def test_a_layer_of_zeros_keeps_one_channel() -> None:
    model, make_inputs = lively(Block(nn.Conv2d(3, 12, 3), 12))
    ablate(model, "first", every=1)
    small, _ = sparsefx.slim(model, make_inputs(2))
    assert error(small, model, make_inputs) <= TOLERANCE
    assert small.first.out_channels == 1


def test_what_belongs_to_parameters_and_modules_stays() -> None:
    model, make_inputs = lively(Block(nn.Conv2d(3, 12, 3, bias=False), 12))
    model.first.weight.requires_grad_(False)
    model.second.weight.decay = 0.5
    model.train()
    model.norm.eval()
    ablate(model, "first")
    before = copy.deepcopy(model.state_dict())
    small, _ = sparsefx.slim(model, make_inputs(2))
    assert model.training and not model.norm.training and small.training and not small.norm.training
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert not small.first.weight.requires_grad and small.second.weight.requires_grad
    assert small.second.weight.decay == 0.5
    assert small.norm.num_batches_tracked == model.norm.num_batches_tracked


def test_lower_precision_stays() -> None:
    model = lively(Block(nn.Conv2d(3, 12, 3), 12))[0].float()
    ablate(model, "first")
    x = torch.randn(2, 3, 9, 8)
    small, _ = sparsefx.slim(model, (x,))
    assert all(p.dtype == torch.float32 for p in small.parameters())
    with torch.no_grad():
        torch.testing.assert_close(small(x), model(x), rtol=1e-4, atol=1e-5)
