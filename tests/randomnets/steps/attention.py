"""Multi-head attention in its many spellings: packings, grouped queries, masks, rotary, by hand or by operator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..draw import Draw
from ..values import Factory, Step, Value, parameter


@dataclass(frozen=True)
class Spelling:
    """Every choice about one attention layer."""

    heads: int
    groups: int  # query heads per key head
    dim: int
    value_dim: int
    packing: str
    repeat: str  # how key heads are given to the query heads that share them
    core: str
    mask: str
    position: str
    query_norm: str
    tokens: int

    @staticmethod
    def drawn(draw: Draw, tokens: int) -> Spelling:
        groups = draw.choice((1, 1, 2))
        packing = (
            draw.choice(("separate", "unbind", "chunk", "split", "select", "slices")) if groups == 1 else "separate"
        )
        dim = draw.choice((4, 2, 6, 8))
        return Spelling(
            heads=groups * draw.choice((2, 1, 3, 4)),
            groups=groups,
            dim=dim,
            value_dim=dim if packing != "separate" or draw.chance(70) else draw.choice((3, 5)),
            packing=packing,
            repeat=draw.choice(("enable_gqa", "repeat_interleave", "expand", "five axes")),
            core=draw.choice(("operator", "matmul", "einsum", "bmm")),
            mask=draw.choice(("none", "none", "causal", "bias", "bias per head", "padding", "computed")),
            position=draw.choice(("none", "none", "rotary half", "rotary pairs")) if dim % 2 == 0 else "none",
            query_norm=draw.choice(("none", "none", "none", "layer norm", "normalise", "scale")),
            tokens=tokens,
        )


class Attention(nn.Module):
    """Self attention over tokens (B, N, C) as `spelling` says."""

    def __init__(self, spelling: Spelling, channels: int, outputs: int, *, bias: bool) -> None:
        super().__init__()
        s = self.spelling = spelling
        key_heads, inner = s.heads // s.groups, s.heads * s.dim
        if s.packing == "separate":
            self.q = nn.Linear(channels, inner, bias=bias)
            self.k = nn.Linear(channels, key_heads * s.dim, bias=bias)
            self.v = nn.Linear(channels, key_heads * s.value_dim, bias=bias)
        else:
            self.qkv = nn.Linear(channels, 3 * inner, bias=bias)
        self.out = nn.Linear(s.heads * s.value_dim, outputs)
        self.table = parameter(s.heads if s.mask == "bias per head" else 1, s.tokens, s.tokens)
        self.register_buffer("allowed", (torch.rand(s.tokens, s.tokens) < 0.7) | torch.eye(s.tokens, dtype=torch.bool))
        self.to_bias = nn.Linear(channels, s.heads * s.tokens) if s.mask == "computed" else nn.Identity()
        self.norm = nn.LayerNorm(s.dim) if s.query_norm == "layer norm" else nn.Identity()
        self.temperature = parameter(s.heads, 1, 1)
        angle = torch.outer(torch.arange(s.tokens), 0.5 ** torch.arange(max(1, s.dim // 2))).double()
        self.register_buffer("cos", angle.cos())
        self.register_buffer("sin", angle.sin())

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self._heads(x)
        q, k = self._place(self._normalise(q)), self._place(self._normalise(k))
        if self.spelling.query_norm == "scale":
            q = q * self.temperature
        y = self._attend(q, k, v, self._bias(x))
        joined: Tensor = self.out(y.transpose(1, 2).flatten(2))
        return joined

    def _heads(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        s, (b, n, _) = self.spelling, x.shape
        if s.packing == "separate":
            q, k = (m(x).view(b, n, -1, s.dim).transpose(1, 2) for m in (self.q, self.k))
            return q, k, self.v(x).view(b, n, -1, s.value_dim).transpose(1, 2)
        packed = self.qkv(x)
        if s.packing in ("unbind", "select"):
            stacked = packed.reshape(b, n, 3, s.heads, s.dim).permute(2, 0, 3, 1, 4)
            q, k, v = stacked.unbind(0) if s.packing == "unbind" else (stacked[0], stacked[1], stacked[2])
            return q, k, v
        width = s.heads * s.dim
        if s.packing == "slices":
            parts: Any = (packed[..., :width], packed[..., width : 2 * width], packed[..., 2 * width :])
        else:
            parts = packed.chunk(3, dim=-1) if s.packing == "chunk" else packed.split(width, dim=-1)
        q, k, v = (p.reshape(b, n, s.heads, s.dim).transpose(1, 2) for p in parts)
        return q, k, v

    def _normalise(self, x: Tensor) -> Tensor:
        if self.spelling.query_norm == "normalise":
            return F.normalize(x, dim=-1, eps=0.1)
        normalised: Tensor = self.norm(x)
        return normalised

    def _place(self, x: Tensor) -> Tensor:
        """Rotary position embedding: by halves or by pairs of neighbouring channels."""
        if self.spelling.position == "rotary half":
            a, b = x.chunk(2, dim=-1)
            return torch.cat([a * self.cos - b * self.sin, b * self.cos + a * self.sin], dim=-1)
        if self.spelling.position == "rotary pairs":
            a, b = x[..., 0::2], x[..., 1::2]
            return torch.stack([a * self.cos - b * self.sin, b * self.cos + a * self.sin], dim=-1).flatten(-2)
        return x

    def _bias(self, x: Tensor) -> Any:
        s = self.spelling
        if s.mask in ("bias", "bias per head"):
            return self.table
        if s.mask == "padding":
            return self.allowed
        if s.mask == "computed":
            bias: Tensor = self.to_bias(x)
            return bias.view(x.shape[0], s.tokens, s.heads, s.tokens).transpose(1, 2)
        return None

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
        s = self.spelling
        if s.core == "operator" and (s.groups == 1 or s.repeat == "enable_gqa"):
            causal = s.mask == "causal"
            return F.scaled_dot_product_attention(q, k, v, attn_mask=bias, is_causal=causal, enable_gqa=s.groups > 1)
        if s.groups > 1:
            if s.repeat == "five axes":
                return self._grouped(q, k, v, bias)
            k, v = self._repeated(k), self._repeated(v)
        if s.core == "operator":
            return F.scaled_dot_product_attention(q, k, v, attn_mask=bias, is_causal=s.mask == "causal")
        weights = torch.softmax(self._masked(self._scores(q, k), bias), dim=-1)
        if s.core == "einsum":
            return torch.einsum("bhnm,bhmd->bhnd", weights, v)
        if s.core == "bmm":
            return torch.bmm(weights.flatten(0, 1), v.flatten(0, 1)).view(q.shape[0], s.heads, s.tokens, s.value_dim)
        return weights @ v

    def _repeated(self, x: Tensor) -> Tensor:
        s, (b, h, n, d) = self.spelling, x.shape
        if s.repeat == "repeat_interleave":
            return x.repeat_interleave(s.groups, dim=1)
        return x[:, :, None].expand(b, h, s.groups, n, d).reshape(b, h * s.groups, n, d)

    def _grouped(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
        """Query heads that share a key head as an axis of their own."""
        s, (b, h, n, d) = self.spelling, q.shape
        scores = torch.einsum("bgrnd,bgmd->bgrnm", q.view(b, h // s.groups, s.groups, n, d), k) * s.dim**-0.5
        weights = torch.softmax(self._masked(scores.reshape(b, h, n, n), bias), dim=-1)
        mixed = torch.einsum("bgrnm,bgmd->bgrnd", weights.view(b, h // s.groups, s.groups, n, n), v)
        return mixed.reshape(b, h, n, s.value_dim)

    def _scores(self, q: Tensor, k: Tensor) -> Tensor:
        s = self.spelling
        if s.core == "einsum":
            return torch.einsum("bhnd,bhmd->bhnm", q, k) * s.dim**-0.5
        if s.core == "bmm":
            scores = torch.bmm(q.flatten(0, 1), k.flatten(0, 1).transpose(1, 2)) / s.dim**0.5
            return scores.view(q.shape[0], s.heads, s.tokens, s.tokens)
        return (q * s.dim**-0.5) @ k.transpose(-2, -1)

    def _masked(self, scores: Tensor, bias: Tensor | None) -> Tensor:
        if self.spelling.mask == "causal":
            n = scores.shape[-1]
            return scores.masked_fill(~torch.ones(n, n, dtype=torch.bool).tril(), -torch.inf)
        if bias is None:
            return scores
        return scores.masked_fill(~bias, -torch.inf) if bias.dtype == torch.bool else scores + bias


def attention(draw: Draw, value: Value) -> Step:
    """One attention layer, with a residual connection or without, in front of it a norm or not."""
    spelling = Spelling.drawn(draw, value.size[0])
    residual = draw.chance(60)
    outputs = value.channels if residual else draw.choice((8, 6, 4))
    layer = Attention(spelling, value.channels, outputs, bias=draw.chance(70))
    inner: nn.Module = nn.Sequential(nn.LayerNorm(value.channels), layer) if draw.chance(40) else layer
    module: nn.Module = Residual(inner) if residual else inner
    shared = "" if spelling.groups == 1 else f" gqa {spelling.repeat}"
    return Step(f"attention {spelling.core}{shared}", module, "tokens")


class Residual(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Any:
        return x + self.inner(x)


class TorchAttention(nn.Module):
    """torch's own nn.MultiheadAttention, as a user would call it."""

    def __init__(self, draw: Draw, channels: int, heads: int) -> None:
        super().__init__()
        self.layer = nn.MultiheadAttention(
            channels, heads, batch_first=True, bias=draw.chance(70), add_bias_kv=draw.chance(20)
        )
        self.weights = draw.chance(40)

    def forward(self, x: Tensor) -> Tensor:
        y, weights = self.layer(x, x, x, need_weights=self.weights)
        return y + weights.mean(dim=-1, keepdim=True) if self.weights else y


def torch_attention(draw: Draw, value: Value) -> Step:
    return Step("nn.MultiheadAttention", TorchAttention(draw, value.channels, draw.divisor(value.channels)), "tokens")


def encoder_layer(draw: Draw, value: Value) -> Step:
    """torch's own nn.TransformerEncoderLayer."""
    heads = draw.divisor(value.channels)
    layer = nn.TransformerEncoderLayer(
        value.channels, heads, 12, dropout=0.0, batch_first=True, norm_first=draw.chance(50), activation="gelu"
    )
    return Step("nn.TransformerEncoderLayer", layer, "tokens")


ATTENTION_STEPS: tuple[Factory, ...] = (attention, attention, attention, attention, torch_attention, encoder_layer)
