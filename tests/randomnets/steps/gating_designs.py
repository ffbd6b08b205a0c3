"""Published designs that use the channel axis in unusual ways: ECA, coordinate attention, selective kernels, XCA."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..draw import Draw
from ..values import Apply, Factory, Step, Value, parameter
from .convolutions import plain


def efficient_channel_attention(draw: Draw, value: Value) -> Step | None:
    """A convolution along the channel axis of the global mean (ECA): neighbouring channels mix."""
    dims = list(range(2, value.sample.ndim))
    if value.channels < 3:
        return None

    def forward(m: Any, x: Tensor) -> Tensor:
        gate: Tensor = torch.sigmoid(m.mix(x.mean(dims).unsqueeze(1))).squeeze(1)
        return x * gate.reshape(*gate.shape, *[1] * len(dims))

    return Step("efficient channel attention", Apply(forward, mix=nn.Conv1d(1, 1, 3, padding=1)), value.layout)


def coordinate_attention(draw: Draw, value: Value) -> Step | None:
    """Means along rows and along columns, one layer for both, gates that broadcast along one axis each."""
    if value.layout != "image":
        return None
    h, w = value.size
    inner, channels = draw.choice((4, 3)), value.channels
    rows, columns = nn.Conv2d(inner, channels, 1), nn.Conv2d(inner, channels, 1)
    shared = nn.Sequential(nn.Conv2d(channels, inner, 1), nn.BatchNorm2d(inner), nn.Hardswish())

    def forward(m: Any, x: Tensor) -> Tensor:
        both = torch.cat([x.mean(dim=3, keepdim=True), x.mean(dim=2, keepdim=True).transpose(2, 3)], dim=2)
        a, b = m.shared(both).split([h, w], dim=2)
        return x * torch.sigmoid(m.rows(a)) * torch.sigmoid(m.columns(b.transpose(2, 3)))

    return Step("coordinate attention", Apply(forward, rows=rows, columns=columns, shared=shared), "image")


def selective_kernels(draw: Draw, value: Value) -> Step:
    """Branches weighed by a softmax over branches, channel by channel (SKNet, ResNeSt)."""
    channels, dims = value.channels, list(range(2, value.sample.ndim))
    branches = nn.ModuleList(plain(draw, value, channels, keep_size=True) for _ in range(2))
    weigh = nn.Sequential(nn.Linear(channels, 4), nn.ReLU(), nn.Linear(4, 2 * channels))

    def forward(m: Any, x: Tensor) -> Tensor:
        stacked = torch.stack([branch(x) for branch in m.branches], dim=1)
        scores = m.weigh(stacked.sum(dim=1).mean(dims)).view(x.shape[0], 2, channels)
        weights = torch.softmax(scores, dim=1)
        return (stacked * weights.reshape(*weights.shape, *[1] * len(dims))).sum(dim=1)

    return Step("selective kernels", Apply(forward, branches=branches, weigh=weigh), value.layout)


def group_norm_by_hand(draw: Draw, value: Value) -> Step | None:
    """Statistics per group of channels through views, scale and shift per channel."""
    groups = draw.divisor(value.channels)
    if value.axis != 1 or value.channels // groups * value.sample[0, 0].numel() < 4:
        return None

    def forward(m: Any, x: Tensor) -> Tensor:
        split = x.reshape(x.shape[0], groups, -1)
        centred = split - split.mean(dim=2, keepdim=True)
        normalised = centred / torch.sqrt(centred.pow(2).mean(dim=2, keepdim=True) + 0.1)
        return normalised.reshape(x.shape) * m.scale

    scale = parameter(1, value.channels, *[1] * (value.sample.ndim - 2))
    return Step("group norm by hand", Apply(forward, scale=scale), value.layout)


def cross_covariance(draw: Draw, value: Value) -> Step | None:
    """Attention over channels instead of positions (XCiT, Restormer)."""
    if value.layout != "image":
        return None
    heads, dim = draw.choice((2, 1)), draw.choice((2, 4))
    qkv, out = nn.Conv2d(value.channels, 3 * heads * dim, 1), nn.Conv2d(heads * dim, value.channels, 1)
    temperature = parameter(heads, 1, 1)

    def forward(m: Any, x: Tensor) -> Tensor:
        q, k, v = m.qkv(x).reshape(x.shape[0], 3, heads, dim, -1).unbind(1)
        q, k = F.normalize(q, dim=-1, eps=0.1), F.normalize(k, dim=-1, eps=0.1)
        weights = torch.softmax(q @ k.transpose(-2, -1) * m.temperature, dim=-1)
        return x + m.out((weights @ v).reshape(x.shape[0], heads * dim, *x.shape[2:]))

    return Step("cross-covariance attention", Apply(forward, qkv=qkv, out=out, temperature=temperature), "image")


def linear_attention(draw: Draw, value: Value) -> Step | None:
    """Keys and values are summed first (Performer, linear transformers)."""
    if value.layout != "tokens":
        return None
    heads, dim = draw.choice((2, 1, 3)), draw.choice((2, 4))
    q, k, v = (nn.Linear(value.channels, heads * dim) for _ in range(3))
    out = nn.Linear(heads * dim, value.channels)

    def forward(m: Any, x: Tensor) -> Tensor:
        query, key, content = (f(x).unflatten(-1, (heads, dim)).transpose(1, 2) for f in (m.q, m.k, m.v))
        query, key = torch.softmax(query, dim=-1), torch.softmax(key, dim=-2)
        return x + m.out((query @ (key.transpose(-2, -1) @ content)).transpose(1, 2).flatten(2))

    return Step("linear attention", Apply(forward, q=q, k=k, v=v, out=out), "tokens")


def talking_heads(draw: Draw, value: Value) -> Step | None:
    """A small matrix mixes the heads before and after the softmax."""
    if value.layout != "tokens":
        return None
    heads, dim = 3, 4
    qkv, out = nn.Linear(value.channels, 3 * heads * dim), nn.Linear(heads * dim, value.channels)
    before, after = parameter(heads, heads, scale=0.5), parameter(heads, heads, scale=0.5)

    def forward(m: Any, x: Tensor) -> Tensor:
        q, k, v = m.qkv(x).unflatten(-1, (3, heads, dim)).permute(2, 0, 3, 1, 4).unbind(0)
        scores = torch.einsum("bhnm,hg->bgnm", q @ k.transpose(-2, -1) / 2, m.before)
        weights = torch.einsum("bhnm,hg->bgnm", torch.softmax(scores, dim=-1), m.after)
        return x + m.out((weights @ v).transpose(1, 2).flatten(2))

    return Step("talking heads", Apply(forward, qkv=qkv, out=out, before=before, after=after), "tokens")


DESIGN_STEPS: tuple[Factory, ...] = (
    efficient_channel_attention, coordinate_attention, selective_kernels, group_norm_by_hand, cross_covariance,
)  # fmt: skip
TOKEN_DESIGN_STEPS: tuple[Factory, ...] = (linear_attention, talking_heads)
