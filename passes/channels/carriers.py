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

_INDEPENDENT = 1e-12  # size below which what is left of a map of size 1 counts as zero
_EXACT = 1e-12  # error up to which a combination counts as a map of size 1

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
    written = outputs.state == CONSTANT if contraction.weight is not None else False  # a mean has no bias to write
    relevant = (kept_outputs & outputs.demand & ~np.broadcast_to(written, outputs.shape)).reshape(shape_out)
    seen = (kernel.edges & relevant[:, :, None]).any(axis=1)
    leaving = seen & ~kept_inputs.reshape(shape_in) & ~contraction.inputs.is_zero().reshape(shape_in)
    absorptions, keep = [], []
    for group in np.flatnonzero(leaving.any(axis=1)).tolist():
        view = _GroupView.of(contraction, kept_inputs.reshape(shape_in), group, measured.get(contraction.node))
        absorption, extra = _absorb(view, np.flatnonzero(leaving[group] & ~view.zero), contraction)
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
    if contraction.weight is None:
        return _absorb_in_mean(view, removed, unknown)
    steady = (view.state == CONSTANT) | view.demand  # kept inputs whose values are sure to stay what they were
    preferred = np.flatnonzero(view.kept & ~view.zero & ~np.isnan(view.maps).any(axis=1) & steady)
    both = np.concatenate([removed, preferred])
    size = np.abs(view.maps[both]).max(axis=1, initial=0.0)
    unit = np.unique(view.maps[both] / size[:, None], axis=1)  # every map is judged on its own scale
    count, uniform = len(removed), contraction.kernel.uniform
    chosen = _choose_basis(unit, size, count, constant=uniform)
    offset, coefficient, error = _combine(unit[:count], unit[chosen], constant=uniform)
    inexact = (error > _EXACT) & ~np.isin(np.arange(count), chosen)
    stay = np.union1d(both[chosen], removed[inexact])
    left = ~np.isin(removed, stay)
    rescaled = coefficient * size[:count, None] / size[chosen]
    absorption = Absorption(view.group, removed[left], (offset * size[:count])[left], both[chosen], rescaled[left])
    return absorption, np.concatenate([unknown, stay[~view.kept[stay]]])


def _absorb_in_mean(view: _GroupView, removed: Indices, unknown: Indices) -> tuple[Absorption, Indices]:
    """A mean has no weights to change: only uniform constants can leave it."""
    varying = np.ptp(view.maps[removed], axis=1) > 0
    nothing = np.empty(0, np.int64)
    uniform = removed[~varying]
    absorption = Absorption(view.group, uniform, view.maps[uniform, 0], nothing, np.empty((len(uniform), 0)))
    return absorption, np.concatenate([unknown, removed[varying]])


def _choose_basis(unit: Maps, size: Maps, count: int, *, constant: bool) -> list[int]:
    """Rows that span the first `count` rows (together with constants), by pivoted orthogonalisation.

    Kept rows come first; among rows that are about equally independent, the largest original map.
    """
    residual = unit - unit.mean(axis=1, keepdims=True) if constant else unit.copy()
    threshold = _INDEPENDENT * np.sqrt(unit.shape[1])
    chosen: list[int] = []
    while count and np.linalg.norm(residual[:count], axis=1).max() > threshold:
        norms = np.linalg.norm(residual, axis=1)
        pool = np.arange(count, len(norms)) if (norms[count:] > threshold).any() else np.arange(count)
        good = pool[norms[pool] > 0.5 * norms[pool].max()]
        pick = int(good[size[good].argmax()])
        direction = residual[pick] / norms[pick]
        residual = residual - np.outer(residual @ direction, direction)
        residual[pick] = 0.0
        chosen.append(pick)
    return chosen


def _combine(targets: Maps, basis: Maps, *, constant: bool) -> tuple[Maps, Maps, Maps]:
    """Offsets, coefficients and largest errors of `targets` written in terms of `basis`."""
    ones = np.ones((targets.shape[1], int(constant)))
    columns = np.concatenate([ones, basis.T], axis=1)
    solution = np.asarray(np.linalg.lstsq(columns, targets.T, rcond=None)[0], dtype=np.float64)
    error = np.abs(columns @ solution - targets.T).max(axis=0, initial=0.0)
    offset = solution[0] if constant else np.zeros(len(targets))
    return offset, solution[int(constant) :].T, error
