"""Models of timm and transformers at small sizes with random weights: nothing is downloaded."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .alive import images

Inputs = tuple[tuple[Tensor, ...], dict[str, Tensor]]
_VOCABULARY, _LENGTH = 100, 12


@dataclass(frozen=True)
class ForeignModel:
    """`library: name`; `build` makes it with random weights, `inputs` makes arguments of a batch size."""

    name: str
    build: Callable[[], nn.Module]
    inputs: Callable[[int, torch.Generator], Inputs]


# timm: one small model of each family. A side other than 64 where the architecture wants it.

_TIMM_SIZES = {
    "beit_base_patch16_224": 224, "cait_xxs24_224": 224, "coatnet_nano_rw_224": 224, "crossvit_tiny_240": 240,
    "deit_tiny_patch16_224": 224, "efficientformer_l1": 224, "eva02_tiny_patch14_224": 224, "levit_128s": 224,
    "maxvit_rmlp_pico_rw_256": 256, "mixer_s32_224": 224, "resmlp_12_224": 224, "swin_tiny_patch4_window7_224": 224,
    "swinv2_cr_tiny_224": 224, "twins_svt_small": 224, "vit_tiny_patch16_224": 224, "visformer_tiny": 224,
    "gmlp_s16_224": 224, "pit_ti_224": 224, "convit_tiny": 224, "xcit_nano_12_p16_224": 224, "tiny_vit_5m_224": 224,
    "mvitv2_tiny": 224, "nest_tiny": 224, "fastvit_t8": 256, "hiera_tiny_224": 224, "tnt_s_patch16_224": 224,
    "efficientformerv2_s0": 224, "gcvit_xxtiny": 224, "coat_tiny": 224, "volo_d1_224": 224,
    "inception_v3": 128, "inception_v4": 128, "inception_resnet_v2": 128, "nasnetalarge": 128, "pnasnet5large": 128,
}  # fmt: skip
TIMM = (
    "resnet10t", "resnet18", "resnet26d", "resnext26ts", "seresnet18", "ecaresnet26t", "resnetv2_18", "res2net50d",
    "resnest14d", "skresnet18", "gcresnet33ts", "regnetx_002", "regnety_002", "regnetz_b16", "densenet121", "dla34",
    "dpn48b", "vgg11_bn", "vovnet39a", "ese_vovnet19b_dw", "hrnet_w18_small", "darknet17", "cspresnet50",
    "cspdarknet53", "selecsls42b", "rexnet_100", "repvgg_a0", "mobileone_s0", "hardcorenas_a", "mnasnet_050",
    "mobilenetv1_100", "mobilenetv2_050", "mobilenetv3_small_050", "mobilenetv4_conv_small_035", "efficientnet_b0",
    "efficientnetv2_rw_t", "tinynet_e", "lcnet_035", "fbnetc_100", "spnasnet_100", "mixnet_s", "ghostnet_050",
    "ghostnetv2_100", "shvit_s1", "convnext_atto", "convnextv2_atto", "inception_next_atto", "edgenext_xx_small",
    "convmixer_768_32", "focalnet_tiny_srf", "poolformer_s12", "caformer_s18", "convformer_s18", "mobilevit_xxs",
    "mobilevitv2_050", "fastvit_t8", "repvit_m0_9", "starnet_s1", "rdnet_tiny", "nf_regnet_b0", "nfnet_f0",
    "efficientvit_b0", "efficientvit_m0", "efficientformer_l1", "efficientformerv2_s0", "levit_128s", "visformer_tiny",
    "vit_tiny_patch16_224", "deit_tiny_patch16_224", "beit_base_patch16_224", "eva02_tiny_patch14_224",
    "cait_xxs24_224", "xcit_nano_12_p16_224", "convit_tiny", "pit_ti_224", "crossvit_tiny_240", "tnt_s_patch16_224",
    "swin_tiny_patch4_window7_224", "swinv2_cr_tiny_224", "twins_svt_small", "nest_tiny", "mvitv2_tiny",
    "tiny_vit_5m_224", "hiera_tiny_224", "maxvit_rmlp_pico_rw_256", "coatnet_nano_rw_224", "mixer_s32_224",
    "resmlp_12_224", "gmlp_s16_224", "sequencer2d_s", "pvt_v2_b0", "davit_tiny", "gcvit_xxtiny", "coat_tiny",
    "inception_v3", "xception41", "volo_d1_224", "mambaout_femto", "test_resnet", "test_vit", "test_convnext",
)  # fmt: skip


def timm_models() -> list[ForeignModel]:
    """The families above that the installed timm has."""
    import timm

    known = set(timm.list_models())
    return [_timm(name) for name in dict.fromkeys(TIMM) if name in known]


def _timm(name: str) -> ForeignModel:
    def build() -> nn.Module:
        import timm

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model: nn.Module = timm.create_model(name, pretrained=False, num_classes=10)
        return model

    size = _TIMM_SIZES.get(name, 64)
    return ForeignModel(f"timm: {name}", build, lambda batch, generator: ((images(batch, size, generator),), {}))


# transformers: (class, configuration) of each architecture, all of one small size.

_TEXT = {"vocab_size": _VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
_ENCODER = {**_TEXT, "intermediate_size": 64}
_DECODER = {**_ENCODER, "num_key_value_heads": 2, "use_cache": False}
_VISION = {"image_size": 32, "patch_size": 8, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
_WINDOWS = {
    "image_size": 32, "patch_size": 4, "embed_dim": 16, "depths": [2, 2], "num_heads": [2, 4], "window_size": 4,
}  # fmt: skip
_IDS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}

_ENCODERS: dict[str, dict[str, Any]] = {
    "Bert": _ENCODER,
    "Roberta": _ENCODER,
    "Electra": {**_ENCODER, "embedding_size": 32},
    "Albert": {**_ENCODER, "embedding_size": 32},
    "DebertaV2": _ENCODER,
    "ModernBert": {**_ENCODER, **_IDS, "cls_token_id": 3, "sep_token_id": 4},
    "DistilBert": {"vocab_size": _VOCABULARY, "dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64},
    "MPNet": _ENCODER,
    "Ernie": _ENCODER,
    "RoFormer": {**_ENCODER, "embedding_size": 32},
    "MobileBert": {
        **_ENCODER, "embedding_size": 32, "intra_bottleneck_size": 16, "true_hidden_size": 16,
    },
    "XLMRoberta": _ENCODER,
    "ConvBert": {**_ENCODER, "embedding_size": 32, "conv_kernel_size": 3},
}  # fmt: skip
_FNET = {"vocab_size": _VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 64}
_DECODERS: dict[str, dict[str, Any]] = {
    "Llama": _DECODER,
    "Mistral": {**_DECODER, "sliding_window": 4},
    "Qwen2": _DECODER,
    "Qwen3": {**_DECODER, "head_dim": 8},
    "Gemma": {**_DECODER, "head_dim": 8},
    "Gemma2": {**_DECODER, "head_dim": 8},
    "Gemma3Text": {**_DECODER, "head_dim": 8},
    "Phi": _DECODER,
    "Phi3": {**_DECODER, **_IDS},
    "Granite": _DECODER,
    "Olmo2": _DECODER,
    "SmolLM3": {**_DECODER, **_IDS},
    "Starcoder2": _DECODER,
    "StableLm": _DECODER,
    "Cohere": _DECODER,
    "Helium": {**_DECODER, "head_dim": 8},
    "Falcon": {**_TEXT, "use_cache": False},
    "GPT2": {"vocab_size": _VOCABULARY, "n_embd": 32, "n_layer": 2, "n_head": 4, "use_cache": False},
    "GPTNeoX": {**_ENCODER, "use_cache": False},
    "OPT": {**_TEXT, "ffn_dim": 64, "word_embed_proj_dim": 32, "use_cache": False},
    "Bloom": {"vocab_size": _VOCABULARY, "hidden_size": 32, "n_layer": 2, "n_head": 4, "use_cache": False},
    "Mamba": {"vocab_size": _VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2, "use_cache": False},
    "Mixtral": {**_DECODER, "num_local_experts": 4, "experts_implementation": "batched_mm"},
}
_CLASS_NAMES = {"GPT2": "GPT2LMHeadModel", "Gemma3Text": "Gemma3ForCausalLM"}
_CLASSIFIERS: dict[str, dict[str, Any]] = {
    "ViT": {**_VISION, "intermediate_size": 64},
    "DeiT": {**_VISION, "intermediate_size": 64},
    "Beit": {**_VISION, "intermediate_size": 64},
    "Dinov2": {**_VISION, "mlp_ratio": 2},
    "ViTMSN": {**_VISION, "intermediate_size": 64},
    "Swin": _WINDOWS,
    "Swinv2": _WINDOWS,
    "ConvNext": {"hidden_sizes": [16, 24, 32, 48], "depths": [1, 1, 1, 1]},
    "ConvNextV2": {"hidden_sizes": [16, 24, 32, 48], "depths": [1, 1, 1, 1]},
    "ResNet": {"embedding_size": 16, "hidden_sizes": [16, 24, 32, 48], "depths": [1, 1, 1, 1]},
    "RegNet": {"embedding_size": 16, "hidden_sizes": [16, 24, 32, 48], "depths": [1, 1, 1, 1], "groups_width": 8},
    "Segformer": {"hidden_sizes": [16, 16, 32, 32], "depths": [1, 1, 1, 1], "num_attention_heads": [1, 2, 2, 4]},
    "MobileNetV1": {"image_size": 32, "depth_multiplier": 0.25},
    "MobileNetV2": {"image_size": 32, "depth_multiplier": 0.35},
    "EfficientNet": {"image_size": 32, "width_coefficient": 1.0, "depth_coefficient": 1.0, "hidden_dim": 1280},
    "PoolFormer": {"hidden_sizes": [16, 16, 32, 32], "depths": [1, 1, 1, 1]},
    "Pvt": {"image_size": 32, "hidden_sizes": [16, 16, 32, 32], "depths": [1] * 4, "num_attention_heads": [1, 2, 2, 4]},
    "Cvt": {"embed_dim": [16, 24, 32], "depth": [1, 2, 3], "num_heads": [1, 2, 4]},
    "FocalNet": {"image_size": 32, "embed_dim": 16, "depths": [1, 1], "focal_levels": [2, 2], "focal_windows": [3, 3]},
}  # fmt: skip


def transformers_models() -> list[ForeignModel]:
    """Text encoders with masks, decoders, and image classifiers; those that the installed transformers has."""
    import transformers

    classes = {"num_labels": 10}
    rows = [(n, f"{n}ForSequenceClassification", {**c, **classes}, _masked_text) for n, c in _ENCODERS.items()]
    rows += [("FNet", "FNetForSequenceClassification", {**_FNET, **classes}, _text)]  # it has no mask
    rows += [(n, _CLASS_NAMES.get(n, f"{n}ForCausalLM"), c, _text) for n, c in _DECODERS.items()]
    rows += [(n, f"{n}ForImageClassification", {**c, **classes}, _image) for n, c in _CLASSIFIERS.items()]
    return [
        ForeignModel(f"transformers: {name}", _from_config(f"{name}Config", cls, config), inputs)
        for name, cls, config, inputs in rows
        if hasattr(transformers, cls) and hasattr(transformers, f"{name}Config")
    ]


def _from_config(config_class: str, model_class: str, config: Mapping[str, Any]) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        import transformers

        made: nn.Module = getattr(transformers, model_class)(getattr(transformers, config_class)(**config))
        return made

    return build


def _text(batch: int, generator: torch.Generator) -> Inputs:
    return (torch.randint(5, _VOCABULARY, (batch, _LENGTH), generator=generator),), {}


def _masked_text(batch: int, generator: torch.Generator) -> Inputs:
    """Token ids, and a mask of those that count, by keyword."""
    (ids,), _ = _text(batch, generator)
    lengths = torch.randint(_LENGTH // 2, _LENGTH + 1, (batch, 1), generator=generator)
    return (), {"input_ids": ids, "attention_mask": (torch.arange(_LENGTH) < lengths).long()}


def _image(batch: int, generator: torch.Generator) -> Inputs:
    return (images(batch, 32, generator),), {}


def all_models() -> list[ForeignModel]:
    return timm_models() + transformers_models()


def all_names() -> list[str]:
    """Names of all models, without importing the libraries."""
    others = (*_ENCODERS, "FNet", *_DECODERS, *_CLASSIFIERS)
    return [*(f"timm: {name}" for name in dict.fromkeys(TIMM)), *(f"transformers: {name}" for name in others)]


def find_model(name: str) -> ForeignModel | None:
    """A model by name; None where the installed library does not have it."""
    models = timm_models() if name.startswith("timm") else transformers_models()
    return next((model for model in models if model.name == name), None)
