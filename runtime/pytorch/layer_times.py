"""What sparse layers take on the GPU, dense by torch and condensed by our kernels in their fastest form."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ...passes.operators import compressed_rows
from ..kernels.cuda.launch import Window
from ..kernels.cuda.layers import Conv2dLayer, LinearLayer, Times
from ..latency.device_events import device_times
from ..onnxruntime.layer_models import LayerForm
from ..onnxruntime.layer_times import LayerTime


def time_layers(
    forms: Sequence[LayerForm], dtype: torch.dtype, device: torch.device, times: Times = device_times
) -> list[LayerTime]:
    """Time every layer with random inputs of its sizes; equal ones once."""
    known: dict[Any, LayerTime] = {}
    found = []
    for form in forms:
        pattern = hash((form.weight != 0).tobytes())
        key = form.weight.shape, form.input_shape, form.window, form.residual, form.activation, pattern
        if key not in known:
            known[key] = _time(form, dtype, device, times)
        found.append(known[key])
    return found


def _time(form: LayerForm, dtype: torch.dtype, device: torch.device, times: Times) -> LayerTime:
    weight = torch.from_numpy(form.weight).to(device, dtype)
    values, columns, starts = compressed_rows(weight)
    x = torch.randn(form.input_shape, device=device).to(dtype)
    bias = torch.randn(len(weight), device=device).to(dtype)
    residual = torch.randn(form.output_shape, device=device).to(dtype) if form.residual else None
    layer: LinearLayer | Conv2dLayer
    if form.window is None:
        layer = LinearLayer(columns, starts, tuple(weight.shape))
        x = x.reshape(-1, x.shape[-1])
        residual = None if residual is None else residual.reshape(-1, residual.shape[-1])
    else:
        window = form.window
        kernel = (weight.shape[2], weight.shape[3])
        layer = Conv2dLayer(
            columns,
            starts,
            tuple(weight.shape),
            Window(kernel, _pair(window.stride), _pair(window.padding), _pair(window.dilation), window.groups),
        )
    measured = times(layer.runs(x, values, bias, residual, form.activation))
    return LayerTime(measured["dense"], min(seconds for name, seconds in measured.items() if name != "dense"))


def _pair(sizes: tuple[int, ...]) -> tuple[int, int]:
    return sizes[0], sizes[1]
