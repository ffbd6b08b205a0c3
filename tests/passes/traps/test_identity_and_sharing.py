"""Which numbers are one channel, and weights that several calls share (traps 10 and 11)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import sparsefx
from sparsefx.compiler.pipeline import run_pipeline
from sparsefx.passes.capture import capture
from tests.helpers import inputs_like, worst_error
from tests.passes.traps.net import Net, ablate, assert_slim, assert_widths, ignore

IMAGES = inputs_like((3, 8, 8))
TOKENS = inputs_like((6, 5))


def test_trap_10_a_spatial_gate_does_not_join_the_channels_it_multiplies() -> None:
    """One number per position meets all channels, yet each of them goes on its own."""

    def forward(m: Any, x: Tensor) -> Any:
        h = F.gelu(m.stem(x))
        return m.head(h * torch.sigmoid(m.gate(h)))

    net = Net(forward, stem=nn.Conv2d(3, 8, 1), gate=nn.Conv2d(8, 1, 3, padding=1), head=nn.Conv2d(8, 2, 1))
    ignore(net.gate, range(3))
    ignore(net.head, range(2))
    assert_slim(net, IMAGES, stem=(6, 3), gate=(1, 6), head=(2, 6))


def test_trap_10_concatenated_maps_of_one_channel_stay_apart() -> None:
    """An axis of size 1 is concatenated like any other: the second map is not needed."""
    net = Net(
        lambda m, x: m.head(torch.cat([F.gelu(m.a(x)), F.gelu(m.b(x))], 1)),
        a=nn.Conv2d(3, 1, 1),
        b=nn.Conv2d(3, 1, 1),
        head=nn.Conv2d(2, 2, 3, padding=1),
    )
    ignore(net.head, [1])
    assert_slim(net, IMAGES, a=(1, 3), b=None, head=(2, 1))


@pytest.mark.parametrize("shape", [(1, 8, 1, 1), (8, 1, 1)])
def test_trap_10_a_channel_broadcast_from_one_is_shared_by_all(shape: tuple[int, ...]) -> None:
    """A map of one channel added to eight: it stays until none of the eight is needed."""
    net = Net(
        lambda m, x: m.head(F.gelu(m.one(x) * m.scale + m.eight(x))),
        one=nn.Conv2d(3, 1, 1),
        eight=nn.Conv2d(3, 8, 1),
        scale=nn.Parameter(torch.randn(shape)),
        head=nn.Conv2d(8, 2, 1),
    )
    ablate(net.eight, range(4))
    ignore(net.head, [0, 6, 7])
    rewritten = assert_slim(net, IMAGES, one=(1, 3), eight=(5, 3), head=(2, 5))
    assert rewritten.graph_module.get_parameter("scale").numel() == 5


def test_trap_10_a_class_token_joins_its_channels_with_those_of_the_patches() -> None:
    net = Net(
        lambda m, x: m.head(F.gelu(torch.cat([m.token.expand(x.shape[0], 1, 8), m.patches(x)], 1) + m.table)),
        patches=nn.Linear(5, 8),
        head=nn.Linear(8, 3),
        token=nn.Parameter(torch.randn(1, 1, 8)),
        table=nn.Parameter(torch.randn(7, 8)),
    )
    ignore(net.head, [1, 5])
    graph = assert_slim(net, TOKENS, patches=(6, 5), head=(3, 6)).graph_module
    assert graph.get_parameter("token").shape == (1, 1, 6)
    assert graph.get_parameter("table").shape == (7, 6)


def test_trap_10_a_pixel_shuffle_makes_four_channels_one() -> None:
    net = Net(lambda m, x: m.head(F.pixel_shuffle(m.stem(x), 2)), stem=nn.Conv2d(3, 16, 1), head=nn.Conv2d(4, 2, 1))
    ablate(net.stem, [0, 1, 4, 5, 6, 7])  # two of the first four; all of the second four
    ignore(net.head, [3])
    with torch.no_grad():
        net.get_parameter("stem.bias")[4:8] = 0.3
    assert_slim(net, IMAGES, stem=(8, 3), head=(2, 2))


def test_trap_10_constants_of_a_pixel_shuffle_differ_from_position_to_position() -> None:
    """Four numbers of one channel alternate: three maps beside the uniform one, so three carriers of four."""
    net = Net(lambda m, x: m.head(F.pixel_shuffle(m.stem(x), 2)), stem=nn.Conv2d(3, 40, 1), head=nn.Conv2d(10, 2, 1))
    ablate(net.stem, range(32))
    assert_slim(net, IMAGES, stem=(20, 3), head=(2, 5))


def test_trap_10_a_pixel_unshuffle_makes_one_channel_four() -> None:
    net = Net(lambda m, x: m.head(F.pixel_unshuffle(m.stem(x), 2)), stem=nn.Conv2d(3, 4, 1), head=nn.Conv2d(16, 2, 1))
    ablate(net.stem, [0])
    ignore(net.head, [4, 5, 6, 8, 9, 10, 11])  # three of channel 1, all of channel 2
    assert_slim(net, IMAGES, stem=(2, 3), head=(2, 8))


CONTRACTED: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "matmul": lambda q, k: q @ k.transpose(1, 2),
    "bmm": lambda q, k: torch.bmm(q, k.permute(0, 2, 1)),
    "einsum": lambda q, k: torch.einsum("bic,bjc->bij", q, k),
    "attention": lambda q, k: F.scaled_dot_product_attention(q[:, None], k[:, None], torch.eye(6).double()[None, None])[
        :, 0
    ],
}


@pytest.mark.parametrize("name", CONTRACTED)
def test_trap_10_contracted_axes_join(name: str) -> None:
    """A channel of q goes with its partner in k; a channel that one of them holds at zero is not needed."""
    net = Net(
        lambda m, x: m.head(CONTRACTED[name](m.q(x), m.k(x))),
        q=nn.Linear(5, 8),
        k=nn.Linear(5, 8),
        head=nn.Linear(6, 3),
    )
    ablate(net.q, [0, 1])
    ablate(net.k, [1, 2, 3])
    with torch.no_grad():
        net.get_parameter("q.bias")[:2] = 0.0
        net.get_parameter("k.bias")[1:3] = 0.0
    width = 4 if name == "attention" else 5  # channel 3 of k is a constant: it shifts all scores of a query alike
    assert_slim(net, TOKENS, q=(width, 5), k=(width, 5))


def test_trap_10_what_is_not_contracted_does_not_join() -> None:
    """An outer product over channels: rows and columns go on their own."""
    net = Net(
        lambda m, x: m.head(F.gelu(torch.einsum("bnc,bnd->bcd", m.a(x), m.b(x))).flatten(1)),
        a=nn.Linear(5, 4),
        b=nn.Linear(5, 6),
        head=nn.Linear(24, 3),
    )
    with torch.no_grad():
        columns = net.get_parameter("head.weight").view(3, 4, 6)
        columns[:, 0] = 0.0
        columns[:, :, 3:5] = 0.0
    assert_slim(net, TOKENS, b=(4, 5))


# Sharing


def test_trap_11_a_shared_layer_is_cut_per_call() -> None:
    net = Net(
        lambda m, x: m.a(torch.tanh(m.shared(x))) + m.b(torch.sigmoid(m.shared(-x))),
        shared=nn.Linear(6, 8),
        a=nn.Linear(8, 3),
        b=nn.Linear(8, 3),
    )
    ignore(net.a, range(4))
    ignore(net.b, range(2, 8))
    assert_slim(net, inputs_like((6,)), shared=(4, 6), shared_2=(2, 6), a=(3, 4), b=(3, 2))


def test_trap_11_what_a_shared_layer_gets_differs_from_call_to_call() -> None:
    """Constants of one call are no constants of the other."""
    net = Net(
        lambda m, x: m.head(torch.cat([m.shared(F.gelu(m.a(x))), m.shared(F.gelu(m.b(x)))], 1)),
        a=nn.Conv2d(3, 6, 1),
        b=nn.Conv2d(3, 6, 1),
        shared=nn.Conv2d(6, 4, 3, padding=1),
        head=nn.Conv2d(8, 2, 1),
    )
    ablate(net.a, range(4))
    ablate(net.b, [5])
    assert_slim(net, IMAGES, a=(3, 3), b=(6, 3), shared=(4, 3), shared_2=(4, 6))


def test_trap_11_a_block_that_is_applied_over_and_over() -> None:
    """Recurrence: every step needs what the step behind it reads."""

    def forward(m: Any, x: Tensor) -> Any:
        state = torch.tanh(m.start(x))
        for _ in range(4):
            state = state + torch.tanh(m.out(F.gelu(m.block(state))))
        return m.head(state)

    net = Net(forward, start=nn.Linear(6, 8), block=nn.Linear(8, 10), out=nn.Linear(10, 8), head=nn.Linear(8, 3))
    ablate(net.block, range(3))
    ignore(net.out, [9])
    ignore(net.block, [7])
    ignore(net.head, [7])
    assert_slim(net, inputs_like((6,)), start=(7, 6), block=(6, 7), block_4=(6, 7), out=(7, 6), head=(3, 7))


def _tied() -> Net:
    """Encoder and decoder share one parameter, the decoder transposed; a second decoder has it as its own."""
    encoder, decoder = nn.Linear(6, 8), nn.Linear(6, 8)
    decoder.weight = encoder.weight
    net = Net(
        lambda m, x: (
            F.linear(F.gelu(m.encoder(x)), m.encoder.weight.t(), m.bias) + m.head(F.gelu(m.decoder(torch.sin(x))))
        ),
        encoder=encoder,
        decoder=decoder,
        head=nn.Linear(8, 6),
        bias=nn.Parameter(torch.randn(6)),
    )
    ablate(encoder, range(3))
    ignore(net.head, [5, 6, 7])
    return net


def test_trap_11_tied_weights_are_cut_at_each_place() -> None:
    net, make_inputs = _tied().double().eval(), inputs_like((6,))
    graph = capture(net, make_inputs(2))
    run_pipeline(graph)
    assert worst_error(graph, net, make_inputs) <= 1e-9
    assert_widths(graph, head=(6, 2))


def test_trap_11_masks_of_tied_weights_hold_everywhere() -> None:
    """One storage, one mask, whatever name it was given under."""
    net, x = _tied(), torch.randn(4, 6)
    mask = torch.ones(8, 6, dtype=torch.bool)
    mask[4] = False
    masked = _tied()
    masked.load_state_dict(net.state_dict())
    ablate(masked.encoder, [4])
    for name in ("encoder.weight", "decoder.weight"):
        compiled = sparsefx.compile(net, (x,), masks=sparsefx.MaskSet({name: mask}), target="torch")
        torch.testing.assert_close(compiled.graph_module(x), masked(x).detach(), rtol=1e-4, atol=1e-5)


def test_trap_11_an_embedding_that_is_tied_to_the_classifier() -> None:
    """The table's columns are the channels of the embedding and the inputs of the classifier."""
    table = nn.Embedding(9, 8)
    classifier = nn.Linear(8, 9)
    classifier.weight = table.weight

    def forward(m: Any, x: Tensor) -> Any:
        tokens = m.table((x * 40).long().remainder(9))
        return m.classifier(m.out(F.gelu(m.hidden(tokens))))

    net = Net(forward, table=table, classifier=classifier, hidden=nn.Linear(8, 7), out=nn.Linear(7, 8))
    ignore(net.hidden, [0, 1, 2])
    ablate(net.out, [6, 7])
    ablate(net.hidden, [4])
    graph = assert_slim(net, inputs_like((5,)), hidden=(6, 5), out=(6, 6), classifier=(9, 6)).graph_module
    assert sorted(b.shape for b in graph.state_dict().values() if b.ndim == 2 and len(b) == 9) == [(9, 5), (9, 6)]
