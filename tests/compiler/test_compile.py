"""`sparsefx.compile` from end to end: what goes in, what comes out, and what it leaves alone."""

from __future__ import annotations

import copy
from collections import namedtuple
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import prune

import sparsefx
from sparsefx.passes.capture import capture
from tests.compiler.models import half_of_conv1, masked, residual

X = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def test_masked_channels_go_and_the_function_stays(tmp_path: Path) -> None:
    model = residual()
    masks = half_of_conv1(model)
    compiled = sparsefx.compile(model, (X,), masks=masks, threads=1)
    want = masked(model, masks, X)
    for run in (compiled.graph_module, compiled.engine()):
        torch.testing.assert_close(run(X), want, rtol=1e-4, atol=1e-5)
    layers = {layer.name: layer for layer in compiled.report.layers}
    assert (
        layers["conv1"].kept_outputs[-8:] == (1, 3, 5, 7, 9, 11, 13, 15)[-8:] or len(layers["conv1"].kept_outputs) <= 9
    )
    assert len(layers["conv1"].kept_outputs) == len(layers["conv2"].kept_inputs) <= 9
    compiled.save(tmp_path / "model.sfx")
    torch.testing.assert_close(sparsefx.load(tmp_path / "model.sfx")(X), want, rtol=1e-4, atol=1e-5)


def test_masks_from_a_file_and_from_zeros_give_the_same(tmp_path: Path) -> None:
    model = residual()
    masks = half_of_conv1(model)
    masks.save(tmp_path / "masks.safetensors")
    from_file = sparsefx.compile(model, (X,), masks=tmp_path / "masks.safetensors")
    masks.apply(model)
    from_zeros = sparsefx.compile(model, (X,))
    torch.testing.assert_close(from_file.engine()(X), from_zeros.engine()(X))
    assert [x.shape_after for x in from_file.report.layers] == [x.shape_after for x in from_zeros.report.layers]


def test_the_model_is_left_as_it_was() -> None:
    model = residual().train()
    model.norm1.eval()
    state = copy.deepcopy(model.state_dict())
    sparsefx.compile(model, (X,), masks=half_of_conv1(model), target="torch")
    assert model.training and model.conv1.training and not model.norm1.training
    assert all(torch.equal(state[name], tensor) for name, tensor in model.state_dict().items())


def test_batch_is_dynamic_even_from_a_single_example() -> None:
    model = residual()
    engine = sparsefx.compile(model, (X[:1],)).engine()
    for batch in (1, 2, 7):
        x = torch.randn(batch, 3, 8, 8)
        torch.testing.assert_close(engine(x), model(x).detach(), rtol=1e-4, atol=1e-5)


def test_batch_can_be_fixed() -> None:
    engine = sparsefx.compile(residual(), (X,), dynamic_batch=False).engine()
    assert engine.signature.inputs[0].shape == (2, 3, 8, 8)
    with pytest.raises(sparsefx.TargetError, match=r"x must have shape \[2, 3, 8, 8\], found \[3, 3, 8, 8\]"):
        engine(torch.randn(3, 3, 8, 8))


def test_height_and_width_can_be_dynamic() -> None:
    model = residual()
    size = {0: torch.export.Dim("batch"), 2: torch.export.Dim("height", min=4), 3: torch.export.Dim("width", min=4)}
    masks = half_of_conv1(model)
    compiled = sparsefx.compile(model, (X,), masks=masks, dynamic_shapes=(size,))
    assert compiled.signature.inputs[0].shape == ("batch", 3, "height", "width")
    for shape in ((1, 3, 8, 8), (2, 3, 5, 11), (3, 3, 16, 4)):
        x = torch.randn(shape)
        torch.testing.assert_close(compiled.engine()(x), masked(model, masks, x), rtol=1e-4, atol=1e-5)


class Sequence(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table, self.up, self.down = nn.Embedding(20, 8), nn.Linear(8, 16), nn.Linear(16, 8)
        self.norm = nn.LayerNorm(8)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.table(tokens)
        out: Tensor = self.norm(x + self.down(torch.nn.functional.gelu(self.up(x)))) @ self.table.weight.t()
        return out


def test_sequence_length_can_be_dynamic_and_tied_weights_stay_right() -> None:
    torch.manual_seed(0)
    model = Sequence().eval()
    with torch.no_grad():
        model.up.weight[::2] = 0
    tokens = torch.randint(0, 20, (2, 6))
    sizes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("length")}
    compiled = sparsefx.compile(model, (tokens,), dynamic_shapes=(sizes,))
    assert len(next(x for x in compiled.report.layers if x.name == "up").kept_outputs) == 8
    for shape in ((1, 3), (4, 9)):
        other = torch.randint(0, 20, shape)
        torch.testing.assert_close(compiled.engine()(other), model(other).detach(), rtol=1e-4, atol=1e-5)


@dataclass
class Detection:
    boxes: Tensor
    scores: dict[str, Tensor]


torch.export.register_dataclass(Detection)
Pair = namedtuple("Pair", ["first", "second"])


class ManyOutputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor, extra: dict[str, Tensor], *, scale: Tensor) -> Detection:
        hidden = torch.relu(self.a(x)) * scale
        return Detection(self.b(hidden), {"sum": hidden.sum(-1), "input": extra["bias"]})


def test_several_inputs_and_a_dataclass_of_outputs() -> None:
    torch.manual_seed(0)
    model = ManyOutputs().eval()
    with torch.no_grad():
        model.a.weight[1] = 0
        model.a.bias[1] = 0
    x, extra, scale = torch.randn(2, 4), {"bias": torch.randn(2, 4)}, torch.randn(2, 1)
    compiled = sparsefx.compile(model, (x, extra), kwargs={"scale": scale})
    want = model(x, extra, scale=scale)
    slim = compiled.graph_module(x, extra, scale=scale)
    assert isinstance(slim, Detection)
    torch.testing.assert_close(slim.boxes, want.boxes)
    found = compiled.engine()(x, extra, scale=scale)
    torch.testing.assert_close(found["boxes"], want.boxes.detach(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found["scores"], {k: v.detach() for k, v in want.scores.items()}, rtol=1e-4, atol=1e-5)
    with pytest.raises(sparsefx.TargetError, match=r"extra must be a dict with the keys \['bias'\]"):
        compiled.engine()(x, {"other": x}, scale=scale)


class Literals(nn.Module):
    def forward(self, x: Tensor) -> tuple[object, ...]:
        return Pair(x + 1, [x, None, 3]), x


def test_outputs_that_are_inputs_literals_or_named_tuples() -> None:
    (pair, same) = sparsefx.compile(Literals(), (torch.zeros(2, 3),)).engine()(np.ones((4, 3), np.float32))
    assert pair["first"].tolist() == (np.ones((4, 3)) + 1).tolist()
    assert pair["second"][1:] == [None, 3]
    np.testing.assert_array_equal(same, np.ones((4, 3)))


def test_an_exported_program_and_a_graph_module_are_models_too() -> None:
    model = residual()
    half_of_conv1(model).apply(model)
    batch = torch.export.Dim("batch")
    program = torch.export.export(model, (X,), dynamic_shapes=({0: batch},))
    traced = torch.fx.symbolic_trace(model)
    for given in (program, traced, capture(model, (X,))):
        compiled = sparsefx.compile(given, (X,))
        torch.testing.assert_close(compiled.engine()(X), model(X).detach(), rtol=1e-4, atol=1e-5)
        assert compiled.report.totals.macs_after < compiled.report.totals.macs_before


def test_masks_of_an_exported_program() -> None:
    model = residual()
    masks = half_of_conv1(model)
    program = torch.export.export(model, (X,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    compiled = sparsefx.compile(program, (X,), masks=masks)
    torch.testing.assert_close(compiled.engine()(X), masked(model, masks, X), rtol=1e-4, atol=1e-5)


def test_pruned_modules_compile_under_their_own_names() -> None:
    model = residual()
    prune.ln_structured(model.conv1, "weight", amount=0.5, n=1, dim=0)
    want = model(X).detach()
    compiled = sparsefx.compile(model, (X,), masks=sparsefx.MaskSet.from_pruning(model))
    torch.testing.assert_close(compiled.engine()(X), want, rtol=1e-4, atol=1e-5)
    layer = next(x for x in compiled.report.layers if x.name == "conv1")
    assert len(layer.kept_outputs) <= 9


class Twice(nn.Module):
    """One module called twice, with different consumers."""

    def __init__(self) -> None:
        super().__init__()
        self.shared, self.a, self.b = nn.Linear(4, 8), nn.Linear(8, 3), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.a(torch.tanh(self.shared(x))) + self.b(torch.sigmoid(self.shared(-x)))
        return out


def test_a_module_called_twice_is_cut_per_call() -> None:
    torch.manual_seed(0)
    model = Twice().eval()
    with torch.no_grad():
        model.a.weight[:, :4] = 0
        model.b.weight[:, 2:] = 0
    compiled = sparsefx.compile(model, (torch.randn(2, 4),))
    x = torch.randn(5, 4)
    torch.testing.assert_close(compiled.engine()(x), model(x).detach(), rtol=1e-4, atol=1e-5)
    kept = {layer.name: layer.kept_outputs for layer in compiled.report.layers}
    assert kept["shared#1"] == (4, 5, 6, 7)
    assert kept["shared#2"] == (0, 1)


def test_a_dense_model_comes_back_equal() -> None:
    model = residual()
    compiled = sparsefx.compile(model, (X,), masks=sparsefx.MaskSet({}))
    torch.testing.assert_close(compiled.engine()(X), model(X).detach(), rtol=1e-4, atol=1e-5)
    assert compiled.report.totals.macs_after == compiled.report.totals.macs_before
    assert compiled.report.totals.channels_after == compiled.report.totals.channels_before


def test_a_model_with_nothing_left_gives_its_constant_for_any_batch() -> None:
    model = residual()
    with torch.no_grad():
        model.head.weight.zero_()
    compiled = sparsefx.compile(model, (X,))
    assert compiled.engine()(torch.randn(5, 3, 8, 8)).tolist() == model.head.bias.expand(5, 5).tolist()
    assert compiled.report.totals.macs_after == 0
    assert any("hardly depends on the input" in note for note in compiled.report.notes)


def test_target_torch_stops_at_the_graph(tmp_path: Path) -> None:
    compiled = sparsefx.compile(residual(), (X,), target="torch")
    with pytest.raises(sparsefx.TargetError, match="target torch stops at the graph"):
        compiled.engine()
    with pytest.raises(sparsefx.TargetError, match="target torch stops at the graph"):
        compiled.save(tmp_path / "model.sfx")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"target": "tpu:v5"},
            r"unknown target .tpu:v5.; this version builds for onnxruntime:cpu, onnxruntime:cuda, .*, torch",
        ),
        ({"precision": "fp16"}, r"target onnxruntime:cpu is built in fp32, bf16 only, found precision 'fp16'"),
        ({"threads": 0}, "threads must be at least 1, found 0"),
    ],
)
def test_what_cannot_be_built_is_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(sparsefx.TargetError, match=message):
        sparsefx.compile(residual(), (X,), **options)  # type: ignore[arg-type]


def test_masks_of_another_model_are_refused() -> None:
    model = residual()
    with pytest.raises(sparsefx.MaskError, match=r"conv3\.weight"):
        sparsefx.compile(model, (X,), masks=sparsefx.MaskSet({"conv3.weight": torch.ones(2, 2)}))
    with pytest.raises(sparsefx.MaskError, match=r"conv1.weight.*\(4, 8, 3, 3\).*\(16, 8, 3, 3\)"):
        sparsefx.compile(model, (X,), masks=sparsefx.MaskSet({"conv1.weight": torch.ones(4, 8, 3, 3)}))


def test_a_mask_that_nothing_reads_is_noted() -> None:
    model = residual()
    model.unused = nn.Linear(3, 3)  # type: ignore[assignment]
    compiled = sparsefx.compile(
        model, (X,), masks=sparsefx.MaskSet({"unused.weight": torch.zeros(3, 3)}), target="torch"
    )
    assert "the mask of unused.weight has no effect: the model does not read it" in compiled.report.notes


def test_stages_are_announced() -> None:
    seen: list[str] = []
    compiled = sparsefx.compile(residual(), (X,), on_stage=seen.append)
    assert seen == ["capture", "passes", "lowering", "representations", "verification"] == list(compiled.report.seconds)
