"""Check a slim module: its outputs against the masked model, and that it can be trained."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ...passes.capture import evaluation_mode, user_frame
from ...passes.errors import VerificationError
from ...passes.signature import Signature
from ..masked_model import MaskedModel, flat_outputs
from ..sampling import Sample
from ..verify import verify

_TOLERANCE = 1e-4
_TOLERANCE_FLOAT64 = 1e-9


def check_outputs(
    small: nn.Module, reference: MaskedModel, signature: Signature, samples: Sequence[Sample], tolerance: float | None
) -> None:
    """Compare with the masked model in evaluation mode. Raises VerificationError."""

    def run(sample: Sample) -> list[Tensor]:
        with evaluation_mode(small), torch.no_grad():
            return flat_outputs(signature.result, small(*sample.args, **sample.kwargs))

    if tolerance is None:
        double = all(p.dtype == torch.float64 for p in small.parameters() if p.is_floating_point())
        tolerance = _TOLERANCE_FLOAT64 if double else _TOLERANCE
    names = [spec.name for spec in signature.outputs]
    verification = verify(run, reference, names, samples, tolerance)
    if not verification.passed:
        worst = verification.worst
        raise VerificationError(
            f"output {worst.name!r} of the slim module deviates from the masked model by {worst.max_error:.2e} "
            f"standard deviations (bound {worst.bound:.2e}, mean {worst.mean_error:.2e}); if the tolerance is right, "
            "please report this with the model and the masks"
        )


def check_training(model: nn.Module, small: nn.Module, samples: Sequence[Sample]) -> None:
    """Raise VerificationError where the slim module fails in training mode and the model does not.

    A model that fails on every sample itself, as with a BatchNorm over one value, is told in a warning.
    """
    for sample in samples:
        own = _training_error(model, sample)
        if own is None:
            break
    else:
        warnings.warn(
            f"{type(model).__name__} itself fails in training mode on these inputs ({_reason(own)}), so that nothing "
            "shows whether the slim module can be trained; give larger example_inputs to find out",
            stacklevel=3,
        )
        return
    error = _training_error(small, sample)
    if error is not None:
        frame = user_frame(error)
        place = f" at {frame.filename}:{frame.lineno} ({frame.line})" if frame is not None else ""
        raise VerificationError(
            f"the slim module fails in training mode{place}: {_reason(error)}. Training reads layers that "
            "evaluation does not, and their inputs have become smaller: remove such auxiliary outputs from the model, "
            'or use sparsefx.compile(..., target="torch").graph_module'
        ) from error


def _reason(error: Exception | None) -> str:
    return str(error).strip().split("\n")[0]


def _training_error(model: nn.Module, sample: Sample) -> Exception | None:
    """What one pass in training mode raises; parameters, buffers, modes and the random state are left as they are."""
    state = {name: t.detach().clone() for name, t in (*model.named_parameters(), *model.named_buffers())}
    with _training_mode(model), torch.no_grad(), torch.random.fork_rng(devices=[]):
        try:
            torch.func.functional_call(model, state, tuple(sample.args), dict(sample.kwargs))
        except Exception as error:
            return error
    return None


@contextmanager
def _training_mode(model: nn.Module) -> Iterator[None]:
    modes = {module: module.training for module in model.modules()}
    model.train()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training
