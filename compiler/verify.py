"""Verification: the engine against the masked model, output by output.

The unit of every error is the output's standard deviation over inputs: the root mean square, over the output's
entries, of their deviation between random inputs. The bound is the tolerance, or three times the error that the
masked model itself makes in its own precision, whichever is larger. Integer outputs count the share of entries
that differ.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from ..passes.errors import VerificationError
from .masked_model import MaskedModel
from .sampling import Sample

Run = Callable[[Sample], list[Tensor]]  # a sample's outputs, in the signature's order

EAGER_FACTOR = 3.0
SAME_SHAPE = 3  # leading samples of one shape: the deviation over inputs is measured on them
_STEADY = 1e-2  # largest rounding error of a masked model that can serve as a reference
_WEAK = 0.05  # an output that varies less than this share of its total deviation hardly tests the model


@dataclass(frozen=True)
class OutputCheck:
    """Errors of one output, in units of `scale`; `eager` is the masked model's own rounding error."""

    name: str
    max_error: float
    mean_error: float
    eager: float
    bound: float
    scale: float
    varies: float  # deviation over inputs as a share of the total deviation

    @property
    def passed(self) -> bool:
        return self.max_error <= self.bound


@dataclass(frozen=True)
class Verification:
    """The checks of all outputs over a number of samples."""

    outputs: tuple[OutputCheck, ...]
    samples: int
    tolerance: float

    @property
    def passed(self) -> bool:
        return all(check.passed for check in self.outputs)

    @property
    def worst(self) -> OutputCheck:
        """The output that is nearest to its bound, or furthest beyond it."""
        return max(self.outputs, key=lambda check: check.max_error / check.bound)

    @property
    def max_error(self) -> float:
        return max((check.max_error for check in self.outputs), default=0.0)

    @property
    def notes(self) -> list[str]:
        """What weakens the verification."""
        weak = [c.name for c in self.outputs if c.varies < _WEAK]
        return [f"output {name!r} hardly depends on the input, so its check says little" for name in weak]

    def to_dict(self) -> dict[str, Any]:
        return {"samples": self.samples, "tolerance": self.tolerance, "outputs": [asdict(c) for c in self.outputs]}


def verify(
    run: Run,
    reference: MaskedModel,
    names: Sequence[str],
    samples: Sequence[Sample],
    tolerance: float,
    rounded: Run | None = None,
    on_progress: Callable[[float], None] | None = None,
) -> Verification:
    """Compare `run` with the masked model in float64; the first samples must have one shape (see SAME_SHAPE).

    `rounded` is a model of the engine's own lower precision: what it loses counts as the masked model's own rounding.
    `on_progress` is told the share of the runs that is done.
    """
    runs: list[Run] = [
        lambda sample: reference.run_own(sample.args, sample.kwargs),
        lambda sample: reference.run_float64(sample.args, sample.kwargs),
        run,
    ]
    eager, exact, found = _outputs(runs, samples, on_progress)
    _require_numbers(names, exact)
    _require_steady_reference(names, exact, eager)
    if rounded is not None:
        eager += [rounded(s) for s in samples]
    checks = []
    for i, name in enumerate(names):
        want, own, have = ([outputs[i] for outputs in each] for each in (exact, eager, found))
        checks.append(_check(name, want, own, have, tolerance))
    return Verification(tuple(checks), len(samples), tolerance)


def _outputs(
    runs: Sequence[Run], samples: Sequence[Sample], on_progress: Callable[[float], None] | None
) -> list[list[list[Tensor]]]:
    """Outputs of every run for every sample."""
    outputs: list[list[list[Tensor]]] = [[] for _ in runs]
    for done, (into, run, sample) in enumerate(
        (into, run, sample) for into, run in zip(outputs, runs, strict=True) for sample in samples
    ):
        if on_progress is not None:
            on_progress(done / (len(runs) * len(samples)))
        into.append(run(sample))
    return outputs


def _check(name: str, exact: list[Tensor], eager: list[Tensor], found: list[Tensor], tolerance: float) -> OutputCheck:
    for want, have in zip(exact, found, strict=True):
        if want.shape != have.shape:
            raise VerificationError(
                f"output {name!r} has shape {list(have.shape)}, the masked model gives {list(want.shape)}"
            )
    scale, varies = _scale(exact[:SAME_SHAPE])
    errors = [_errors(w, h, scale) for w, h in zip(exact, found, strict=True)]
    eager_error = max(_errors(w, e, scale)[0] for w, e in zip(itertools.cycle(exact), eager, strict=False))
    total, count = sum(e[1] for e in errors), sum(w.numel() for w in exact)
    bound = max(tolerance, EAGER_FACTOR * eager_error)
    return OutputCheck(name, max(e[0] for e in errors), total / max(count, 1), eager_error, bound, scale, varies)


def _scale(same_shape: list[Tensor]) -> tuple[float, float]:
    """Deviation over inputs, and its share of the total deviation; an output that is constant has its own size."""
    if not same_shape[0].is_floating_point():
        return 1.0, 1.0
    stacked = torch.stack([t.double() for t in same_shape])
    finite = torch.where(stacked.isfinite(), stacked, 0.0)
    over_inputs = float(finite.var(dim=0).mean().sqrt()) if len(same_shape) > 1 and finite.numel() else 0.0
    total = float(finite.std()) if finite.numel() > 1 else 0.0
    size = float(finite.square().mean().sqrt()) if finite.numel() else 0.0
    if over_inputs > 1e-6 * size:
        return over_inputs, over_inputs / total if total else 1.0
    return size or 1.0, 0.0


def _errors(want: Tensor, have: Tensor, scale: float) -> tuple[float, float]:
    """Largest error and sum of errors; entries that are not finite must be the same in both."""
    if not want.is_floating_point():
        differs = (want != have).double()
        return float(differs.mean()) if want.numel() else 0.0, float(differs.sum())
    if not want.numel():
        return 0.0, 0.0
    want, have = want.double(), have.double()
    same = (want == have) | (want.isnan() & have.isnan())
    error = torch.where(same, 0.0, (want - have).abs() / scale)
    error = torch.where(error.isnan(), torch.inf, error)
    return float(error.max()), float(error.sum())


def _require_numbers(names: Sequence[str], exact: list[list[Tensor]]) -> None:
    """An output without a single finite entry compares equal to any other like it."""
    for i, name in enumerate(names):
        entries = [outputs[i] for outputs in exact if outputs[i].is_floating_point() and outputs[i].numel()]
        if entries and not any(bool(entry.isfinite().any()) for entry in entries):
            raise VerificationError(
                f"output {name!r} of the masked model has no finite entry on any of {len(entries)} batches (NaN or "
                "infinite), so nothing can be compared; look for weights that are too large, or give verify_inputs of "
                "your own data"
            )


def _require_steady_reference(names: Sequence[str], exact: list[list[Tensor]], eager: list[list[Tensor]]) -> None:
    """The masked model must agree with its own float64 run up to rounding, or there is nothing to compare with."""
    for i, name in enumerate(names):
        scale, _ = _scale([outputs[i] for outputs in exact[:SAME_SHAPE]])
        error = max(_errors(w[i], h[i], scale)[0] for w, h in zip(exact, eager, strict=True))
        if error > _STEADY:
            raise VerificationError(
                f"output {name!r} of the masked model itself differs by {error:.1e} standard deviations between its "
                "own precision and float64: it is random, numerically unstable, or was not captured as it runs; "
                "make it deterministic, or pass verify=False and check the engine on your own data"
            )
