"""Steps on tokens (B, N, C) and vectors (B, C)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..draw import Draw
from ..values import Apply, Factory, Step, Value, activation, parameter, width
from .attention import Residual


def linear(draw: Draw, value: Value) -> Step:
    return Step("linear", nn.Linear(value.channels, width(draw), bias=draw.chance(70)), value.layout)


def perceptron(draw: Draw, value: Value) -> Step:
    """Linear, activation, linear: with residual or not, gated (SwiGLU) or not."""
    hidden, channels = draw.choice((8, 6, 12)), value.channels
    act = draw.choice((nn.GELU, nn.SiLU, nn.ReLU, nn.Tanh))()
    residual = draw.chance(60)
    outputs = channels if residual else width(draw)
    first, last = nn.Linear(channels, hidden), nn.Linear(hidden, outputs)
    if draw.chance(35):
        inner: nn.Module = Apply(
            lambda m, x: m.c(m.act(m.a(x)) * m.b(x)), a=first, b=nn.Linear(channels, hidden), c=last, act=act
        )
        name = "gated mlp"
    else:
        inner, name = nn.Sequential(first, act, last), "mlp"
    if draw.chance(50):
        inner = nn.Sequential(nn.LayerNorm(channels), inner)
    return Step(name, Residual(inner) if residual else inner, value.layout)


def norm(draw: Draw, value: Value) -> Step:
    channels = value.channels
    kinds = {
        "layer norm": nn.LayerNorm(channels),
        "layer norm plain": nn.LayerNorm(channels, elementwise_affine=False),
        "rms norm": Apply(lambda m, x: F.rms_norm(x, (channels,), m.weight, 0.01), weight=parameter(channels)),
        "rms norm 1 + w": Apply(
            lambda m, x: F.rms_norm(x, (channels,), 1 + m.weight, 0.01), weight=parameter(channels)
        ),
        "rms norm by hand": Apply(
            lambda m, x: m.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 0.01)),
            weight=parameter(channels),
        ),
    }
    kind = draw.choice(list(kinds))
    return Step(kind, kinds[kind], value.layout)


def class_token(draw: Draw, value: Value) -> Step | None:
    """A learned token in front, then a position table over all tokens."""
    if value.layout != "tokens":
        return None
    channels, n = value.channels, value.size[0]
    table = parameter(1, n + 1, channels)

    def forward(m: Any, x: Tensor) -> Tensor:
        return torch.cat([m.token.expand(x.shape[0], -1, -1), x], dim=1) + m.table

    return Step("class token and positions", Apply(forward, token=parameter(1, 1, channels), table=table), "tokens")


def take_tokens(draw: Draw, value: Value) -> Step | None:
    """Some tokens: the first, a mean, an attention pool, the best by score."""
    if value.layout != "tokens" or value.size[0] < 4:
        return None
    kinds = {
        "first": lambda m, x: x[:, 0],
        "last": lambda m, x: x[:, -1],
        "mean": lambda m, x: x.mean(dim=1),
        "max": lambda m, x: x.amax(dim=1),
        "attention pool": lambda m, x: (torch.softmax(m.score(x), dim=1) * x).sum(dim=1),
        "attention pool by matmul": lambda m, x: (torch.softmax(m.score(x).transpose(1, 2), dim=-1) @ x)[:, 0],
    }
    kind = draw.choice(sorted(kinds))
    return Step(f"tokens: {kind}", Apply(kinds[kind], score=nn.Linear(value.channels, 1)), "vector")


def some_tokens(draw: Draw, value: Value) -> Step | None:
    if value.layout != "tokens" or value.size[0] < 4:
        return None
    half = value.size[0] // 2
    kinds = {
        "range": lambda m, x: x[:, 1:],
        "stride": lambda m, x: x[:, ::2],
        "flip": lambda m, x: x.flip(1),
        "merge neighbours": lambda m, x: torch.cat([x[:, 0 : 2 * half : 2], x[:, 1 : 2 * half : 2]], dim=-1),
        "merge by view": lambda m, x: x[:, : 2 * half].reshape(x.shape[0], half, -1),
        "split and add": lambda m, x: x[:, :half] + x[:, half : 2 * half],
        "shift": lambda m, x: torch.cat([x[:, 1:], x[:, :1]], dim=1),
        "top scores": lambda m, x: x.gather(1, m.score(x).topk(3, dim=1).indices.expand(-1, -1, x.shape[2])),
        "cumsum": lambda m, x: torch.cumsum(x, dim=1) / 3,
        "softmax": lambda m, x: torch.softmax(x, dim=1) * x,
        "pad": lambda m, x: F.pad(x, (0, 0, 1, 0)),
    }
    kind = draw.choice(sorted(kinds))
    if value.channels > 12 and kind.startswith("merge"):
        return None
    return Step(f"tokens: {kind}", Apply(kinds[kind], score=nn.Linear(value.channels, 1)), "tokens")


def token_mixer(draw: Draw, value: Value) -> Step | None:
    """Layers along the token axis: a linear layer between transposes, or a depthwise convolution over tokens."""
    if value.layout != "tokens":
        return None
    n, channels = value.size[0], value.channels
    if draw.chance(50):
        mixer = nn.Sequential(nn.Linear(n, 5), nn.GELU(), nn.Linear(5, n))
        return Step(
            "token mixer", Apply(lambda m, x: x + m.mix(x.transpose(1, 2)).transpose(1, 2), mix=mixer), "tokens"
        )
    conv = nn.Conv1d(channels, channels, 3, padding=1, groups=channels if draw.chance(60) else 1)
    return Step(
        "convolution over tokens", Apply(lambda m, x: m.conv(x.transpose(1, 2)).transpose(1, 2), conv=conv), "tokens"
    )


def low_rank(draw: Draw, value: Value) -> Step:
    """An adapter: down, up, added to a frozen layer with a scale (LoRA)."""
    channels, outputs = value.channels, width(draw)
    parts = {
        "base": nn.Linear(channels, outputs),
        "down": nn.Linear(channels, 2, bias=False),
        "up": nn.Linear(2, outputs, bias=False),
    }
    return Step("low-rank adapter", Apply(lambda m, x: m.base(x) + 0.5 * m.up(m.down(x)), **parts), value.layout)


def vector_norm(draw: Draw, value: Value) -> Step | None:
    if value.layout != "vector":
        return None
    layers = nn.Sequential(nn.Linear(value.channels, 8), nn.BatchNorm1d(8), activation(draw, 8))
    return Step("linear, batch norm", layers, "vector")


def outer_product(draw: Draw, value: Value) -> Step | None:
    if value.layout != "vector" or value.channels > 6:
        return None
    return Step("outer product", Apply(lambda m, x: (x[:, :, None] * x[:, None, :]).flatten(1)), "vector")


def token_activation(draw: Draw, value: Value) -> Step:
    acts = (nn.GELU, nn.ReLU, nn.SiLU, nn.Tanh)
    return Step("activation", draw.choice(acts)(), value.layout)


TOKEN_STEPS: tuple[Factory, ...] = (
    linear, perceptron, perceptron, norm, class_token, some_tokens, token_mixer, low_rank, vector_norm, outer_product,
    token_activation,
)  # fmt: skip
