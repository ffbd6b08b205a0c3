"""Times of sparse layers, measured only where the cache does not have them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..latency.time_cache import TimeCache, processor
from .layer_models import LayerForm
from .layer_times import LayerTime, time_layers

_BLOCK = 32  # inputs; whether non-zeros are spread evenly over blocks decides how fast a layer is
_MOST_BYTES = 512 * 2**20  # of layers in one session


def known_times(
    layers: Sequence[LayerForm], threads: int, library: Path, precision: str = "float32"
) -> list[LayerTime]:
    """As time_layers; layers with the same signature are measured once, on this processor once for all."""
    cache = TimeCache(_setting(threads, library, precision))
    known = cache.read()
    signatures = [signature(layer) for layer in layers]
    missing = {s: layer for s, layer in zip(signatures, layers, strict=True) if s not in known}
    for part in _parts(missing):
        times = time_layers(list(part.values()), threads, library, precision)
        known |= {s: [time.dense, time.condensed] for s, time in zip(part, times, strict=True)}
        cache.add({s: known[s] for s in part})
    return [LayerTime(*known[s]) for s in signatures]


def signature(layer: LayerForm) -> str:
    """What decides a layer's time: sizes, what is fused, and the pattern's density and evenness."""
    kept = layer.weight.reshape(len(layer.weight), -1) != 0
    fan_in = kept.sum(1)
    blocks = np.add.reduceat(kept, np.arange(0, kept.shape[1], _BLOCK), axis=1)
    window = "linear" if layer.window is None else str(layer.window)
    return (
        f"{window} weight {layer.weight.shape} input {layer.input_shape} residual {layer.residual} {layer.activation}: "
        f"density {kept.mean():.2f}, fan-in {fan_in.min()} to {fan_in.max()}, most in a block {blocks.max()}"
    )


def _setting(threads: int, library: Path, precision: str) -> dict[str, Any]:
    import onnxruntime

    return {
        "processor": processor(),
        "onnxruntime": onnxruntime.__version__,
        "kernels": library.stem,
        "threads": threads,
        "precision": precision,
    }


def _parts(layers: dict[str, LayerForm]) -> Iterator[dict[str, LayerForm]]:
    """Layers that fit into one session's memory together."""
    part: dict[str, LayerForm] = {}
    size = 0
    for name, layer in layers.items():
        if part and size + layer.bytes > _MOST_BYTES:
            yield part
            part, size = {}, 0
        part[name] = layer
        size += layer.bytes
    if part:
        yield part
