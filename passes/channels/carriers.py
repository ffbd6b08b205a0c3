"""What stands in for removed constants at a contraction: its bias, and a few kept channels that carry the rest.

A removed channel that does not depend on the input still contributes its map over positions, m_i. The sum over
channels is linear, so it is enough to write m_i = offset_i + sum_c coefficient_ic m_c for every removed i: the
offsets go to the bias (where the operator sees no border), the coefficients are added to the kernels of the
carriers c. A carrier is an existing channel, kept: zero padding then acts on it as it did on the removed ones.
With one uniform constant per channel a single carrier is enough, whatever the padding, stride or dilation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from torch.fx import Node

from .arrays import Constants, Indices, Mask, States
from .rules.call import Contraction
from .transfer import CONSTANT, LIVE, POSITIONAL

_INDEPENDENT = 1e-9  # relative size below which a residual map counts as zero
_EXACT = 1e-11  # relative error up to which a combination counts as the map itself

Maps = Constants  # one row per channel, one column per position


@dataclass(frozen=True)
class PositionalMaps:
    """Measured maps of a contraction's operand: (channels, positions), and which rows are input-independent."""

    maps: Maps
    valid: Mask


@dataclass(frozen=True)
class Absorption:
    """For one group of a contraction: map of removed[i] = offset[i] + sum over c of coefficient[i, c] carrier[c]."""

    group: int
    removed: Indices
    offset: Maps
    carriers: Indices
    coefficient: Maps


@dataclass(frozen=True)
class Plan:
    """The absorptions of one contraction, or the inputs that must be kept before there can be any."""

    absorptions: tuple[Absorption, ...]
    keep: Indices  # flat indices of inputs, carriers not yet kept among them


def plan_absorption(
    contraction: Contraction, kept_inputs: Mask, kept_outputs: Mask, measured: Mapping[Node, PositionalMaps]
) -> Plan:
    """How the removed inputs of a contraction are replaced, given what is kept on both sides."""
    kernel = contraction.kernel
    shape_in, shape_out = (kernel.groups, kernel.inputs), (kernel.groups, kernel.outputs)
    outputs = contraction.outputs
    relevant = (kept_outputs & outputs.demand & (outputs.state != CONSTANT)).reshape(shape_out)
    absorptions, keep = [], []
    for group in np.flatnonzero(relevant.any(axis=1)).tolist():
        view = _GroupView.of(contraction, kept_inputs.reshape(shape_in), group, measured.get(contraction.node))
        seen = kernel.edges[group, relevant[group]].any(axis=0)
        absorption, extra = _absorb(view, np.flatnonzero(seen & ~view.kept & ~view.zero), contraction)
        absorptions.append(absorption)
        keep.append(extra + group * kernel.inputs)
    return Plan(tuple(absorptions), np.concatenate(keep) if keep else np.empty(0, np.int64))


@dataclass(frozen=True)
class _GroupView:
    group: int
    kept: Mask
    state: States
    zero: Mask
    demand: Mask
    maps: Maps  # (inputs, positions); of unmeasured positional channels NaN

    @staticmethod
    def of(contraction: Contraction, kept: Mask, group: int, measured: PositionalMaps | None) -> _GroupView:
        inputs, width = contraction.inputs, contraction.kernel.inputs
        rows = slice(group * width, (group + 1) * width)
        state, constant = inputs.state.reshape(-1)[rows], inputs.constant.reshape(-1)[rows]
        maps = np.where(state == CONSTANT, constant, np.nan)[:, None]
        if measured is not None:
            maps = np.repeat(maps, measured.maps.shape[1], axis=1)
            usable = (state == POSITIONAL) & measured.valid[rows]
            maps[usable] = measured.maps[rows][usable]
        zero = (state != LIVE) & (np.abs(maps) == 0.0).all(axis=1)
        return _GroupView(group, kept[group], state, zero, inputs.demand.reshape(-1)[rows], maps)


def _absorb(view: _GroupView, removed: Indices, contraction: Contraction) -> tuple[Absorption, Indices]:
    """The absorption of `removed`, and which inputs it needs kept."""
    unknown = removed[np.isnan(view.maps[removed]).any(axis=1)]
    removed = np.setdiff1d(removed, unknown)
    preferred = np.flatnonzero(
        view.kept & ~view.zero & ~np.isnan(view.maps).any(axis=1) & ((view.state == CONSTANT) | view.demand)
    )
    maps = np.unique(view.maps[np.concatenate([removed, preferred])], axis=1)
    count = len(removed)
    if contraction.weight is None:  # a mean has no weights to change: only uniform constants can leave it
        varying = removed[np.ptp(maps[:count], axis=1) > 0] if maps.size else removed[:0]
        removed = np.setdiff1d(removed, varying)
        offset = view.maps[removed, 0]
        nothing = np.empty(0, np.int64)
        return Absorption(view.group, removed, offset, nothing, np.empty((count, 0))), np.concatenate(
            [unknown, varying]
        )
    chosen = _choose_basis(maps, count, constant=contraction.kernel.uniform)
    offset, coefficient, error = _combine(maps[:count], maps[chosen], constant=contraction.kernel.uniform)
    scale = np.abs(maps).max(initial=0.0)
    inexact = error > _EXACT * scale
    carriers = np.concatenate([removed, preferred])[chosen]
    inexact[[i for i in chosen if i < count]] = False
    stay = np.union1d(carriers, removed[inexact])
    left = ~np.isin(removed, stay)
    extra = np.concatenate([unknown, stay[~view.kept[stay]]])
    return Absorption(view.group, removed[left], offset[left], carriers, coefficient[left]), extra


def _choose_basis(maps: Maps, count: int, *, constant: bool) -> list[int]:
    """Rows that span the first `count` rows (together with constants): kept ones first, then the largest."""
    residual = maps - maps.mean(axis=1, keepdims=True) if constant else maps.copy()
    threshold = _INDEPENDENT * np.abs(maps).max(initial=0.0) * np.sqrt(maps.shape[1] if maps.ndim > 1 else 1)
    chosen: list[int] = []
    while count and np.linalg.norm(residual[:count], axis=1).max() > threshold:
        norms = np.linalg.norm(residual, axis=1)
        kept = norms[count:]
        pick = count + int(kept.argmax()) if (kept > threshold).any() else int(norms[:count].argmax())
        direction = residual[pick] / norms[pick]
        residual = residual - np.outer(residual @ direction, direction)
        chosen.append(pick)
    return chosen


def _combine(targets: Maps, basis: Maps, *, constant: bool) -> tuple[Maps, Maps, Maps]:
    """Offsets, coefficients and errors of `targets` written in terms of `basis`."""
    columns = basis.T if not constant else np.column_stack([np.ones(targets.shape[1]), basis.T])
    if not columns.shape[1]:
        return np.zeros(len(targets)), np.zeros((len(targets), 0)), np.abs(targets).max(axis=1, initial=0.0)
    solution = np.asarray(np.linalg.lstsq(columns, targets.T, rcond=None)[0], dtype=np.float64)
    error = np.abs(columns @ solution - targets.T).max(axis=0, initial=0.0)
    if constant:
        return solution[0], solution[1:].T, error
    return np.zeros(len(targets)), solution.T, error
