"""Models of transformers and timm: channels, gated neurons and grouped heads leave, exactly."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import sparsefx
from sparsefx.compiler.compiled import CompiledModel
from sparsefx.passes.errors import CaptureError
from tests.zoo.structured import randomised, shapes_of, zero_columns, zero_rows

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of its own imports
    transformers = pytest.importorskip("transformers", reason="needs transformers")

pytestmark = pytest.mark.filterwarnings("ignore")
SMALL = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 64}
TEXT = {**SMALL, "vocab_size": 100}
IDS = torch.randint(0, 100, (2, 12), generator=torch.Generator().manual_seed(0))
PADDING = (torch.arange(12) < torch.tensor([[12], [7]])).long()
HEAD = 8  # channels


def compile_dense(model: nn.Module, args: Sequence[Tensor], **kwargs: Any) -> CompiledModel:
    return sparsefx.compile(model, tuple(args), kwargs=kwargs, representation="dense", threads=1)


def eager(model: nn.Module, *args: Tensor, **kwargs: Tensor) -> Tensor:
    with torch.no_grad():
        logits: Tensor = model(*args, **kwargs).logits
    return logits


def llama(cls: Any = transformers.LlamaForCausalLM, config: Any = transformers.LlamaConfig, **more: Any) -> Any:
    return randomised(cls(config(**TEXT, num_key_value_heads=2, use_cache=False, **more)))


def test_llama_loses_gated_neurons_and_groups_of_heads() -> None:
    """A neuron goes where its gate, its value, or what reads it is zero; a key head with the queries that share it."""
    model = llama()
    layer: Any = model.model.layers[0]
    zero_rows(layer.mlp.gate_proj, slice(0, 10))
    zero_rows(layer.mlp.up_proj, slice(8, 15))
    zero_columns(layer.mlp.down_proj, slice(15, 20))
    zero_columns(layer.self_attn.o_proj, slice(2 * HEAD, 4 * HEAD))  # both queries of the second key head
    compiled = compile_dense(model, (), input_ids=IDS, attention_mask=PADDING)
    shapes, name = shapes_of(compiled.report.layers), "model.layers.0"
    assert shapes[f"{name}.mlp.gate_proj"] == shapes[f"{name}.mlp.up_proj"] == (64 - 20, 32)
    assert shapes[f"{name}.mlp.down_proj"] == (32, 64 - 20)
    assert shapes[f"{name}.self_attn.q_proj"] == (2 * HEAD, 32)
    assert shapes[f"{name}.self_attn.k_proj"] == shapes[f"{name}.self_attn.v_proj"] == (HEAD, 32)
    assert shapes[f"{name}.self_attn.o_proj"] == (32, 2 * HEAD)
    assert not compiled.report.unknown_operators

    found = compiled.engine()(input_ids=IDS, attention_mask=PADDING)
    assert set(found) == {"logits"}  # a ModelOutput comes back as a dict
    torch.testing.assert_close(
        found["logits"], eager(model, input_ids=IDS, attention_mask=PADDING), rtol=1e-3, atol=1e-3
    )


@pytest.mark.ci
def test_one_query_of_a_group_does_not_take_its_key_head_along() -> None:
    model = llama()
    zero_columns(model.model.layers[0].self_attn.o_proj, slice(0, HEAD))
    compiled = compile_dense(model, (IDS,))
    assert shapes_of(compiled.report.layers)["model.layers.0.self_attn.k_proj"] == (2 * HEAD, 32)


@pytest.mark.ci
def test_rotary_embeddings_tie_the_halves_of_a_head() -> None:
    """Channels i and i + d/2 are rotated into each other: both go, or none. Here attention is written out."""
    model = llama(transformers.Qwen2ForCausalLM, transformers.Qwen2Config, attn_implementation="eager")
    attention: Any = model.model.layers[0].self_attn
    with torch.no_grad():
        for head in range(4):
            for channel in (1, 5, 2):  # 1 and 5 are a pair, 2 is one of a pair
                attention.q_proj.weight[head * HEAD + channel] = 0
                attention.q_proj.bias[head * HEAD + channel] = 0
    zero_columns(attention.o_proj, slice(2 * HEAD, 4 * HEAD))
    shapes = shapes_of(compile_dense(model, (IDS,)).report.layers)
    assert shapes["model.layers.0.self_attn.q_proj"] == (2 * (HEAD - 2), 32)
    assert shapes["model.layers.0.self_attn.k_proj"] == (HEAD - 2, 32)
    assert shapes["model.layers.0.self_attn.v_proj"] == (HEAD, 32)


def test_bert_with_a_padding_mask() -> None:
    """Zeroed neurons leave their GELU of the bias behind, which is folded; a head goes as a whole."""
    model: Any = randomised(transformers.BertForSequenceClassification(transformers.BertConfig(**TEXT)))
    layer: Any = model.bert.encoder.layer[0]
    zero_rows(layer.intermediate.dense, slice(3, 24))
    zero_columns(layer.attention.output.dense, slice(HEAD, 2 * HEAD))
    compiled = compile_dense(model, (), input_ids=IDS, attention_mask=PADDING)
    shapes, name = shapes_of(compiled.report.layers), "bert.encoder.layer.0"
    assert shapes[f"{name}.intermediate.dense"] == (64 - 21, 32)
    assert shapes[f"{name}.attention.self.query"] == shapes[f"{name}.attention.self.value"] == (3 * HEAD, 32)
    torch.testing.assert_close(
        compiled.engine()(input_ids=IDS[:1], attention_mask=PADDING[:1])["logits"],
        eager(model, input_ids=IDS[:1], attention_mask=PADDING[:1]),
        rtol=1e-3,
        atol=1e-3,
    )


def test_vit() -> None:
    model = randomised(
        transformers.ViTForImageClassification(transformers.ViTConfig(**SMALL, image_size=32, patch_size=8))
    )
    layer = next(m for m in model.modules() if type(m).__name__ == "ViTLayer")
    linear = {m.weight.shape: m for m in layer.modules() if isinstance(m, nn.Linear)}
    zero_rows(linear[torch.Size([64, 32])], slice(0, 20))
    compiled = compile_dense(model, (torch.randn(1, 3, 32, 32),))
    assert sorted(s for s in shapes_of(compiled.report.layers).values() if 44 in s) == [(32, 44), (44, 32)]


def test_timm() -> None:
    timm = pytest.importorskip("timm", reason="needs timm")
    torch.manual_seed(0)
    model: Any = randomised(timm.create_model("test_vit", pretrained=False, num_classes=10))
    zero_rows(model.blocks[0].mlp.fc1, slice(0, 20))
    before = model.blocks[0].mlp.fc1.weight.shape
    compiled = compile_dense(model, (torch.randn(1, 3, 160, 160),))
    assert shapes_of(compiled.report.layers)["blocks.0.mlp.fc1"] == (before[0] - 20, before[1])


def test_a_model_that_returns_its_cache_is_told_how_not_to() -> None:
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**TEXT))
    with pytest.raises(CaptureError, match=r"set model\.config\.use_cache = False"):
        sparsefx.compile(model, (IDS,), target="torch")
