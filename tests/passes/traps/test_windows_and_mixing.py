"""Operators over windows and chosen positions, and operators that mix channels (traps 15 and 16)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.helpers import inputs_like
from tests.passes.traps.net import Net, ablate, assert_slim, ignore
from tests.torchvision_shim import torchvision

IMAGES = inputs_like((3, 9, 9))
DEAD = [0, 1, 2]


def _between(forward: Callable[[Any, Tensor, Tensor], Tensor], **parts: nn.Module | Tensor) -> Net:
    """Three constant channels and five live ones, of which the last is not read, through `forward`."""
    net = Net(lambda m, x: m.head(forward(m, m.stem(x), x)), stem=nn.Conv2d(3, 8, 1), head=nn.Conv2d(8, 2, 1), **parts)
    ablate(net.stem, DEAD)
    ignore(net.head, [7])
    return net


POOLS: dict[str, Callable[[Tensor], Tensor]] = {
    "dilated, in ceil mode": lambda h: F.max_pool2d(h, 3, stride=2, padding=1, dilation=2, ceil_mode=True),
    "padded": lambda h: F.max_pool2d(h, 3, padding=1),
    "uneven": lambda h: F.max_pool2d(h, (2, 3), stride=(2, 1), padding=(1, 0)),
    "with indices": lambda h: F.max_pool2d(h, 2, return_indices=True)[0],
    "adaptive": lambda h: F.adaptive_max_pool2d(h, (2, 5)),
    "average in ceil mode": lambda h: F.avg_pool2d(h, 2, stride=2, ceil_mode=True),
    "average without padding": lambda h: F.avg_pool2d(h, 3, padding=1, count_include_pad=False),
    "adaptive average": lambda h: F.adaptive_avg_pool2d(h, (4, 2)),
    "power average": lambda h: F.lp_pool2d(torch.exp(h), 2, 3),
}


@pytest.mark.parametrize("name", POOLS)
def test_trap_15_pools_leave_uniform_constants_uniform(name: str) -> None:
    assert_slim(_between(lambda m, h, x: POOLS[name](h)), IMAGES, stem=(4, 3), head=(2, 4))


CHANGING: dict[str, tuple[Callable[[Tensor], Tensor], int]] = {
    "zeros at the border": (lambda h: F.avg_pool2d(h, 3, padding=1), 1),
    "zeros, in ceil mode": (lambda h: F.avg_pool2d(h, 2, padding=1, ceil_mode=True), 1),
    "another divisor": (lambda h: F.avg_pool2d(h, 2, divisor_override=3), 0),
}


@pytest.mark.parametrize("name", CHANGING)
def test_trap_15_pools_that_change_constants(name: str) -> None:
    """All channels by the same factors: one carrier where these differ from position to position."""
    pool, carriers = CHANGING[name]
    net = _between(lambda m, h, x: pool(h))
    assert_slim(net, IMAGES, stem=(4 + carriers, 3), head=(2, 4 + carriers))


def test_trap_15_channels_of_which_the_indices_are_read() -> None:
    """Unpooling needs to know where the maximum was: of the values themselves, and of no other channel."""

    def forward(m: Any, x: Tensor) -> Any:
        pooled, indices = F.max_pool2d(torch.tanh(m.stem(x)), 3, return_indices=True)
        return m.head(pooled), m.places(indices.to(x.dtype))

    net = Net(forward, stem=nn.Conv2d(3, 8, 1), head=nn.Conv2d(8, 2, 1), places=nn.Conv2d(8, 2, 1))
    ignore(net.head, range(4))
    ignore(net.places, range(2, 8))
    assert_slim(net, IMAGES, stem=(6, 3))


CHOSEN: dict[str, Callable[[Any, Tensor, Tensor], Tensor]] = {
    "gather of positions": lambda m, h, x: torch.gather(h.flatten(2), 2, _order(m, x).expand(-1, 8, -1)).unsqueeze(-1),
    "gather of channels": lambda m, h, x: torch.gather(h, 1, m.mixed.expand(x.shape[0], 8, 9, 9)),
    "scatter": lambda m, h, x: torch.zeros_like(h.flatten(2)).scatter(2, _order(m, x).expand(-1, 8, -1), h.flatten(2))[
        ..., None
    ],
    "scatter_add": lambda m, h, x: torch.zeros_like(h).scatter_add(1, m.mixed.expand(x.shape[0], 8, 9, 9), h),
    "index_add": lambda m, h, x: torch.zeros_like(h).index_add(2, torch.tensor([3, 0, 0, 1, 8, 7, 3, 2, 5]), h),
    "index_put": lambda m, h, x: torch.zeros_like(h).index_put((torch.tensor([0]),), h[:1], accumulate=True) + h,
    "grid_sample": lambda m, h, x: F.grid_sample(h, torch.tanh(m.flow(x)).permute(0, 2, 3, 1), align_corners=False),
    "grid_sample at the border": lambda m, h, x: F.grid_sample(
        h, 1.5 * torch.tanh(m.flow(x)).permute(0, 2, 3, 1), padding_mode="border", align_corners=True
    ),
    "roi_align": lambda m, h, x: torchvision.ops.roi_align(h, _boxes(m, x), 4),
    "where": lambda m, h, x: torch.where(m.flow(x)[:, :1] > 0, h, h.flip(2)),
}  # fmt: skip


def _order(m: Any, x: Tensor) -> Tensor:
    """Positions in the order of a score that a layer computes."""
    order: Tensor = m.score(x).flatten(2).argsort(2)
    return order


def _boxes(m: Any, x: Tensor) -> Tensor:
    """One box in every image, whose corners a layer computes."""
    corners = m.score(x).flatten(1)[:, :4].sigmoid() * 4 + torch.tensor([0.0, 0.0, 4.0, 4.0])
    return torch.cat([torch.arange(x.shape[0])[:, None], corners], 1)


@pytest.mark.parametrize("name", CHOSEN)
def test_trap_15_positions_that_are_chosen_at_run_time(name: str) -> None:
    """Whatever chooses them is needed, and a channel that is read here and there is one value only if uniform."""
    net = _between(
        CHOSEN[name],
        score=nn.Conv2d(3, 1, 1),
        flow=nn.Conv2d(3, 2, 3, padding=1),
        mixed=torch.randint(8, (1, 8, 1, 1)),
    )
    assert_slim(net, IMAGES)


def test_trap_15_a_layer_that_only_chooses_positions_is_needed() -> None:
    net = Net(
        lambda m, x: m.head(
            F.grid_sample(x, torch.tanh(m.flow(F.gelu(m.stem(x)))).permute(0, 2, 3, 1), align_corners=False)
        ),
        stem=nn.Conv2d(3, 6, 1),
        flow=nn.Conv2d(6, 2, 1),
        head=nn.Conv2d(3, 2, 1),
    )
    ignore(net.flow, [4])
    ignore(net.head, [0])
    assert_slim(net, IMAGES, stem=(5, 3), flow=(2, 5), head=(2, 3))


# Over channels

MIXED: dict[str, Callable[[Tensor], Tensor]] = {
    "softmax": lambda h: torch.softmax(h, 1),
    "log_softmax": lambda h: F.log_softmax(h, 1),
    "cumsum": lambda h: torch.cumsum(h, 1),
    "cumprod": lambda h: torch.cumprod(h, 1),
    "sort": lambda h: torch.sort(h, 1)[0],
    "topk": lambda h: torch.topk(h, 8, 1)[0],
    "logcumsumexp": lambda h: torch.logcumsumexp(h, 1),
    "cummax": lambda h: torch.cummax(h, 1)[0],
    "flip and add": lambda h: h + torch.softmax(h.flip(1), 1),
    "normalise": lambda h: F.normalize(h, dim=1),
    "local response": lambda h: F.local_response_norm(h, 3),
    "maximum": lambda h: h - h.amax(1, keepdim=True),
    "variance": lambda h: h / (1 + h.var(1, keepdim=True)),
    "product": lambda h: h + h.prod(1, keepdim=True),
    "argmax": lambda h: h + h.argmax(1, keepdim=True),
    "channel norm": lambda h: h / (1 + torch.linalg.vector_norm(h, dim=1, keepdim=True)),
}


@pytest.mark.parametrize("name", MIXED)
def test_trap_16_operators_that_mix_channels_pin_them(name: str) -> None:
    """A channel that nobody reads, and constants, still change what the other channels become."""
    net = _between(lambda m, h, x: MIXED[name](h))
    assert_slim(net, IMAGES, stem=(8, 3), head=(2, 8))


@pytest.mark.parametrize("name", sorted(set(MIXED) - {"topk", "local response"}))
def test_trap_16_the_same_operators_over_positions_do_not(name: str) -> None:
    """Over a row of the image, what nobody reads goes."""
    net = _between(lambda m, h, x: MIXED[name](h.transpose(1, 2)).transpose(1, 2))
    rewritten = assert_slim(net, IMAGES)
    assert rewritten.removed > 0


REDUCED: dict[str, Callable[[Tensor], Tensor]] = {
    "maximum": lambda h: h.amax(1, keepdim=True),
    "median": lambda h: h.median(1, keepdim=True)[0],
    "standard deviation": lambda h: h.std(1, keepdim=True),
    "sum of squares": lambda h: (h * h).sum(1, keepdim=True),
    "logsumexp": lambda h: h.logsumexp(1, keepdim=True),
    "best": lambda h: h.argmax(1, keepdim=True),
}


@pytest.mark.parametrize("name", REDUCED)
def test_trap_16_constants_take_part_in_reductions_over_channels(name: str) -> None:
    net = Net(
        lambda m, x: m.other(x) * (1 + REDUCED[name](m.stem(x))), stem=nn.Conv2d(3, 8, 1), other=nn.Conv2d(3, 2, 1)
    )
    ablate(net.stem, range(4))
    with torch.no_grad():
        net.get_parameter("stem.bias")[:4] = torch.tensor([-0.9, 0.7, 0.9, 0.0])
    assert_slim(net, IMAGES, stem=(8, 3), other=(2, 3))


@pytest.mark.parametrize("dims", [(1,), (1, 2, 3)], ids=["channels", "channels and positions"])
def test_trap_16_a_mean_over_channels_is_a_sum_over_fewer(dims: tuple[int, ...]) -> None:
    """Divided by the original count, plus the share of the constants."""
    net = Net(
        lambda m, x: m.other(x) * torch.sigmoid(m.stem(x).mean(dims, keepdim=True)),
        stem=nn.Conv2d(3, 8, 1),
        other=nn.Conv2d(3, 2, 1),
    )
    ablate(net.stem, range(5))
    assert_slim(net, IMAGES, stem=(3, 3))


def test_trap_16_a_mean_over_positional_constants_keeps_them() -> None:
    """It has no weights that carriers could use."""
    net = Net(
        lambda m, x: m.other(x) * torch.sigmoid(m.window(m.stem(x)).mean(1, keepdim=True)),
        stem=nn.Conv2d(3, 8, 1),
        window=nn.Conv2d(8, 8, 3, padding=1, groups=8),
        other=nn.Conv2d(3, 2, 1),
    )
    ablate(net.stem, range(5))
    assert_slim(net, IMAGES, stem=(8, 3), window=(8, 1))


def test_trap_16_a_mean_over_channels_that_are_all_constants_is_one() -> None:
    net = Net(
        lambda m, x: m.head(torch.tanh(m.other(x)) * m.stem(x).mean(1, keepdim=True)),
        stem=nn.Conv2d(3, 6, 1),
        other=nn.Conv2d(3, 6, 1),
        head=nn.Conv2d(6, 2, 1),
    )
    ablate(net.stem, range(6))
    ignore(net.head, [4])
    assert_slim(net, inputs_like((3, 4, 4)), stem=(1, 3), other=(5, 3), head=(2, 5))
