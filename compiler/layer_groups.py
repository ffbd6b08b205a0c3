"""Which layers write the same channels, as the analysis of the slim graph has them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

import numpy as np

from ..passes.channels.analysis import ChannelAnalysis
from ..passes.channels.arrays import Indices
from ..passes.channels.rules.call import Contraction
from .report import GroupReport


def layer_groups(analysis: ChannelAnalysis, names: Mapping[str, str]) -> tuple[GroupReport, ...]:
    """Groups of layers in the order of their first layer; `names` has the layers' names by node."""
    layers = [c for c in analysis.trace.contractions if c.weight is not None]
    group_of = _groups(analysis, layers)
    producers, consumers, pins = defaultdict[int, list[str]](list), defaultdict[int, list[str]](list), _pins(analysis)
    channels, reasons = defaultdict[int, set[int]](set), defaultdict[int, dict[str, None]](dict)
    for layer in layers:
        labels = _labels(analysis, layer.outputs.elements)
        if not labels:
            continue
        group = group_of[min(labels)]
        producers[group].append(names.get(layer.node.name, layer.layer))
        channels[group] |= labels
        for reason, pinned in pins.items():
            if labels & pinned:
                reasons[group][reason] = None
    for layer in layers:
        for group in sorted({group_of[x] for x in _labels(analysis, layer.inputs.elements) if x in group_of}):
            consumers[group].append(names.get(layer.node.name, layer.layer))
    return tuple(
        GroupReport(tuple(writing), tuple(consumers[g]), len(channels[g]), tuple(reasons[g]))
        for g, writing in producers.items()
    )


def _groups(analysis: ChannelAnalysis, layers: list[Contraction]) -> dict[int, int]:
    """Labels of channels, mapped to the group of layers that share any of them."""
    members: dict[int, set[int]] = {}
    group_of: dict[int, int] = {}
    for place, layer in enumerate(layers):
        labels = _labels(analysis, layer.outputs.elements)
        for known in {group_of[label] for label in labels if label in group_of}:
            labels |= members.pop(known)
        members[place] = labels
        group_of.update(dict.fromkeys(labels, place))
    return group_of


def _pins(analysis: ChannelAnalysis) -> dict[str, set[int]]:
    """Labels that can never go, by reason."""
    found = defaultdict[str, set[int]](set)
    for pin in analysis.trace.flow.pins:
        found[pin.reason] |= _labels(analysis, pin.elements)
    return found


def _labels(analysis: ChannelAnalysis, elements: Indices) -> set[int]:
    return set(np.unique(analysis.group[elements.reshape(-1)]).tolist())
