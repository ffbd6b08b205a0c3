"""What a latency table says of a layer's two forms in a TensorRT engine that cannot be measured here.

A table of dense networks knows dense layers; a condensed one it knows where a graph that has it was measured, on a
machine with the GPU: `table.predict(compiled.graph_module, missing="measure")`.
"""

from __future__ import annotations

import numpy as np

from ...passes.errors import TableError
from ..latency.node import EngineNode
from ..latency.table import LatencyTable
from ..onnxruntime.layer_models import LayerForm
from ..onnxruntime.layer_times import LayerTime
from .condensed import condensed_node, function_name


def time_by_table(layer: str, form: LayerForm, table: LatencyTable) -> LayerTime | None:
    """Seconds of a layer, by its name in the table and by its sizes; None where the table lacks one of its forms."""
    try:
        return LayerTime(_dense(layer, form, table), table.seconds(_condensed(form)))
    except TableError:
        return None


def _dense(layer: str, form: LayerForm, table: LatencyTable) -> float:
    """Below the widths that were measured, in proportion to the nearest."""
    groups = 1 if form.window is None else form.window.groups
    widths = np.array([form.weight.shape[1] * groups, form.weight.shape[0]])
    low, high = np.array(table.channel_range(layer)).T
    near = np.clip(widths, low, high)
    return float(table.cost(layer, *near) * np.minimum(widths / near, 1).prod()) * 1e-3


def _condensed(form: LayerForm) -> EngineNode:
    fan_in = int((form.weight != 0).reshape(len(form.weight), -1).sum(1).max())
    return condensed_node("", function_name(form), form.input_shape, form.output_shape, max(1, fan_in))
