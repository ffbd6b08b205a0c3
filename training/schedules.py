"""Schedules: a number for every training step."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

Schedule = Callable[[int], float]


@dataclass(frozen=True)
class Constant:
    """The same value at every step."""

    value: float

    def __call__(self, step: int) -> float:
        return self.value


@dataclass(frozen=True)
class CosineDecay:
    """From `initial` at step 0 to `final` at `steps` along half a cosine; `final` ever after.

    With `final` 0 it is RigL's drop fraction, alpha / 2 (1 + cos(pi t / T_end)) (Evci et al. 2020, section 3).
    """

    initial: float
    steps: int
    final: float = 0.0

    def __call__(self, step: int) -> float:
        if step >= self.steps:
            return self.final
        return self.final + (self.initial - self.final) / 2 * (1 + math.cos(math.pi * step / self.steps))


@dataclass(frozen=True)
class ExponentialDecay:
    """From `initial` at step 0 to `final` at `steps`, by the same factor each step; `final` ever after.

    exp(a log(final) + (1 - a) log(initial)) with a = t / T (de Jorge et al. 2021, section 5; HALP's latency targets).
    """

    initial: float
    final: float
    steps: int

    def __call__(self, step: int) -> float:
        share = min(step / self.steps, 1.0)
        return float(self.initial ** (1 - share) * self.final**share)


@dataclass(frozen=True)
class GradualSparsity:
    """From `initial` at step `start` to `final` after `steps` more, fast at first and slower towards the end.

    S_t = S_f + (S_i - S_f) (1 - (t - t_0) / (n dT))^3 (Zhu and Gupta 2017; Eq. 3 in Chase, Eq. 1 in GraNet), with
    `steps` = n dT; before `start` the initial value, after the end the final one.
    """

    initial: float
    final: float
    start: int
    steps: int

    def __call__(self, step: int) -> float:
        progress = min(max((step - self.start) / self.steps, 0.0), 1.0)
        return float(self.final + (self.initial - self.final) * (1 - progress) ** 3)
