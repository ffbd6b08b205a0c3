"""Operators over channels that the analysis must pin, operators that it does not know, einsum, statistics."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..draw import Draw
from ..values import Apply, Factory, Step, Value, parameter, width


def over_channels(draw: Draw, value: Value) -> Step | None:
    """Softmax, cumsum, sort, top-k and others along the channel axis."""
    if value.channels < 3:
        return None
    a, half = value.axis, value.channels // 2
    kinds = {
        "softmax": lambda m, x: torch.softmax(x, dim=a),
        "log_softmax": lambda m, x: F.log_softmax(x, dim=a),
        "cumsum": lambda m, x: torch.cumsum(x, dim=a) / 3,
        "sort": lambda m, x: torch.sort(x, dim=a).values,
        "topk": lambda m, x: torch.topk(x, half, dim=a).values,
        "max gate": lambda m, x: x * torch.sigmoid(x.amax(dim=a, keepdim=True)),
        "normalise": lambda m, x: F.normalize(x, dim=a, eps=0.1),
        "sum gate": lambda m, x: x * torch.tanh(x.sum(dim=a, keepdim=True) / 4),
        "std gate": lambda m, x: x / (x.std(dim=a, keepdim=True) + 0.5),
        "logsumexp": lambda m, x: x - torch.logsumexp(x, dim=a, keepdim=True),
        "rms by hand": lambda m, x: x * torch.rsqrt(x.pow(2).mean(dim=a, keepdim=True) + 0.1),
        "mean by hand": lambda m, x: x - x.mean(dim=a, keepdim=True),
        "argmax embedding": lambda m, x: x + m.codes[x.argmax(dim=a)].movedim(-1, a),
        "max with indices": lambda m, x: x + torch.max(x, dim=a, keepdim=True)[0] / 2,
        "prod": lambda m, x: x + torch.prod(torch.tanh(x), dim=a, keepdim=True),
        "any": lambda m, x: x + (x > 1).any(dim=a, keepdim=True),
    }
    kind = draw.choice(sorted(kinds))
    codes = parameter(value.channels, value.channels)
    return Step(f"over channels: {kind}", Apply(kinds[kind], codes=codes), value.layout)


def unknown(draw: Draw, value: Value) -> Step | None:
    """Operators of which the analysis has no rule."""
    if value.layout != "image" or min(value.size) < 4:
        return None
    channels = value.channels
    kinds = {
        "local response norm": lambda m, x: F.local_response_norm(x, 3),
        "unfold": lambda m, x: F.unfold(x, 3, padding=1).reshape(x.shape[0], channels, 9, *x.shape[2:]).mean(2),
        "bilinear form": lambda m, x: x + torch.cdist(x.flatten(2), x.flatten(2)).mean(2)[..., None, None],
        "trace": lambda m, x: x + torch.diagonal(x, dim1=2, dim2=3).mean(-1)[..., None, None],
        "tril": lambda m, x: torch.tril(x),
        "gather": lambda m, x: torch.gather(x, 3, m.index.expand(x.shape[0], channels, x.shape[2], 3)),
        "pixel differences": lambda m, x: torch.diff(x, dim=3),
        "fft": lambda m, x: torch.fft.rfft2(x).abs() / 4,
    }
    kind = draw.choice(sorted(kinds))
    index = torch.randint(0, value.size[1], (1, 1, 1, 3))
    return Step(f"unknown: {kind}", Apply(kinds[kind], index=index), value.layout)


def einsum(draw: Draw, value: Value) -> Step | None:
    """Contractions spelled as einsum or tensordot, with a parameter or with the tensor itself."""
    if value.layout == "image":
        outputs = width(draw, most=8)
        matrix, per_channel = parameter(outputs, value.channels, scale=0.5), parameter(value.channels)
        side = parameter(value.size[1], value.size[1], scale=0.5)
        kinds = {
            "channels": lambda m, x: torch.einsum("bchw,oc->bohw", x, m.matrix),
            "scale": lambda m, x: torch.einsum("bchw,c->bchw", x, m.per_channel),
            "rows": lambda m, x: torch.einsum("bchw,wv->bchv", x, m.side),
            "gate": lambda m, x: torch.einsum("bchw,bc->bchw", x, torch.tanh(x.mean((2, 3)))),
            "gram": lambda m, x: torch.einsum("bchw,bdhw->bcd", x, x).mean(2)[..., None, None] / 9 + x,
            "collapse": lambda m, x: torch.einsum("bchw,c->bhw", x, m.per_channel)[:, None] + x,
        }
    elif value.layout == "tokens":
        outputs = width(draw, most=8)
        matrix, per_channel = parameter(value.channels, outputs, scale=0.5), parameter(value.channels)
        side = parameter(value.size[0], value.size[0], scale=0.5)
        kinds = {
            "channels": lambda m, x: torch.einsum("bnc,co->bno", x, m.matrix),
            "matmul": lambda m, x: x @ m.matrix,
            "tokens": lambda m, x: torch.einsum("bnc,nm->bmc", x, m.side),
            "tokens from the left": lambda m, x: m.side @ x,
            "covariance": lambda m, x: x @ (x.transpose(1, 2) @ x) / 20,
            "collapse": lambda m, x: torch.einsum("bnc,c->bn", x, m.per_channel)[..., None] + x,
        }
    else:
        return None
    kind = draw.choice(sorted(kinds))
    return Step(f"einsum: {kind}", Apply(kinds[kind], matrix=matrix, per_channel=per_channel, side=side), value.layout)


def several_outputs(draw: Draw, value: Value) -> Step | None:
    """Operators with several outputs of which more than one is used."""
    if value.layout != "image" or min(value.size) < 4:
        return None

    def statistics(m: Any, x: Tensor) -> Tensor:
        variance, mean = torch.var_mean(x, dim=(2, 3), keepdim=True)
        return (x - mean) / (variance + 0.2).sqrt()

    def extremes(m: Any, x: Tensor) -> Tensor:
        largest, where = x.max(dim=3, keepdim=True)  # the index itself would be arbitrary where values tie
        return x + largest + torch.gather(x, 3, where)

    def indices(m: Any, x: Tensor) -> Tensor:
        pooled, where = F.max_pool2d(x, 2, return_indices=True)
        return F.max_unpool2d(pooled, where, 2)

    kind, function = draw.choice((("var_mean", statistics), ("max", extremes), ("max_unpool", indices)))
    return Step(f"several outputs: {kind}", Apply(function), value.layout)


def recurrent(draw: Draw, value: Value) -> Step | None:
    if value.layout != "tokens":
        return None
    if draw.chance(50):
        return Step(
            "lstm", Apply(lambda m, x: m.cell(x)[0], cell=nn.LSTM(value.channels, 5, batch_first=True)), "tokens"
        )
    return Step("gru", Apply(lambda m, x: m.cell(x)[0], cell=nn.GRU(value.channels, 4, batch_first=True)), "tokens")


MIXING_STEPS: tuple[Factory, ...] = (over_channels, over_channels, unknown, einsum, several_outputs, recurrent)
