"""Time of one kind of operator over its two widths, from scattered measurements.

In units that the engine itself works in (channels padded to its blocks) time is close to a + b x + c y + d x y: what
is called, read, written and multiplied. That is fitted to the relative errors; what remains is added back from the
measurements around, by inverse distance.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_NEAREST = 6  # measurements that correct the fit
_NEAR = 0.02  # distance, in logarithms of the widths, below which measurements count alike
_AT_ONCE = 4096  # points
_TINY = 1e-9  # seconds


class Surface:
    """`widths` (n, 2) and `seconds` (n,) are the measurements; equal widths are pooled by their median."""

    def __init__(self, widths: Floats, seconds: Floats, *, products: bool) -> None:
        self.widths, inverse = np.unique(widths.astype(np.float64), axis=0, return_inverse=True)
        groups = [seconds[inverse.reshape(-1) == i] for i in range(len(self.widths))]
        self.seconds = np.array([np.median(group) for group in groups])
        self._products = products
        self._logs = np.log(self.widths)

    def covers(self, widths: Floats) -> NDArray[np.bool_]:
        """Whether points (n, 2) lie within the measured range of both widths."""
        inside: NDArray[np.bool_] = ((widths >= self.widths.min(0)) & (widths <= self.widths.max(0))).all(axis=1)
        return inside

    def __call__(self, widths: Floats) -> Floats:
        """Seconds at points (n, 2)."""
        points = np.atleast_2d(np.asarray(widths, np.float64))
        parts = [self._at(points[i : i + _AT_ONCE]) for i in range(0, len(points), _AT_ONCE)]
        return np.concatenate(parts)

    def errors_left_out(self) -> Floats:
        """Relative error at every measurement, predicted from all others."""
        found = []
        for i in range(len(self.seconds)):
            others = np.arange(len(self.seconds)) != i
            if others.sum() < 2:
                continue
            without = Surface(self.widths[others], self.seconds[others], products=self._products)
            found.append(float(without(self.widths[i])[0] / self.seconds[i] - 1))
        return np.array(found)

    def _at(self, points: Floats) -> Floats:
        seconds: Floats = self.trend(points) * np.exp(self._correction(points, self._logs, self._residuals))
        return seconds

    @cached_property
    def _coefficients(self) -> Floats:
        """Of the fit with all terms, or with one or two of them where it would not be positive everywhere."""
        columns = self._terms(self.widths)
        for terms in (range(columns.shape[1]), (0, columns.shape[1] - 1), (0,)):
            chosen = columns[:, list(terms)] / self.seconds[:, None]
            if len(self.seconds) <= len(chosen[0]) and len(chosen[0]) > 1:
                continue
            scale = np.abs(chosen).max(axis=0)
            solved = np.linalg.lstsq(chosen / scale, np.ones(len(self.seconds)), rcond=1e-9)[0] / scale
            coefficients = np.zeros(columns.shape[1])
            coefficients[list(terms)] = solved
            if (columns @ coefficients > 0.2 * self.seconds).all():
                return coefficients
        constant: Floats = np.eye(columns.shape[1])[0] * float(np.median(self.seconds))
        return constant

    @cached_property
    def _residuals(self) -> Floats:
        logs: Floats = np.log(self.seconds / self.trend(self.widths))
        return logs

    def _terms(self, widths: Floats) -> Floats:
        x, y = widths[:, 0], widths[:, 1]
        return np.stack([np.ones(len(x)), x, y, *([x * y] if self._products else [])], axis=1)

    def trend(self, widths: Floats) -> Floats:
        """The fit alone, without what the measurements around add to it."""
        floor = max(_TINY, 0.5 * float(self.seconds.min()))
        values: Floats = np.maximum(self._terms(widths) @ self._coefficients, floor)
        return values

    @staticmethod
    def _correction(points: Floats, logs: Floats, residuals: Floats) -> Floats:
        distances = ((np.log(points)[:, None, :] - logs[None]) ** 2).sum(axis=2)
        nearest = np.argsort(distances, axis=1)[:, :_NEAREST]
        weights = 1 / (np.take_along_axis(distances, nearest, axis=1) + _NEAR**2)
        corrections: Floats = (weights * residuals[nearest]).sum(axis=1) / weights.sum(axis=1)
        return corrections
