"""The few error classes of sparsefx; the lowest floor defines them so that every floor can raise them.

Each message names the thing at fault, what was found, what was expected and what to do next.
Anything else that escapes from sparsefx is a bug of ours.
"""

from __future__ import annotations

from typing import Any


class SparsefxError(Exception):
    """Base of every error that sparsefx raises on purpose."""


class CaptureError(SparsefxError):
    """The model could not be exported to a torch.fx graph."""


class MaskError(SparsefxError):
    """A mask, or a file of masks, does not fit the model it is meant for."""


class PassError(SparsefxError):
    """A graph handed to a pass does not meet the pass's precondition, or a pass broke its graph."""


class VerificationError(SparsefxError):
    """The compiled model deviates from the masked model by more than the tolerance."""


class TargetError(SparsefxError):
    """The target is unknown, not installed, or cannot run this model."""


class BundleError(SparsefxError):
    """A bundle is damaged, foreign, or was written by a newer version."""


class TableError(SparsefxError):
    """A latency table is damaged, or does not cover what was asked of it."""


class EvaluationError(SparsefxError):
    """The user's own evaluation failed. `compiled` is the compiled model, where there was one by then."""

    def __init__(self, message: str, compiled: Any = None) -> None:
        super().__init__(message)
        self.compiled = compiled
        if compiled is not None:
            self.add_note("Nothing is lost: the compiled model is this error's `compiled`.")
