"""What a command that ends with an error says, in one screen, and its exit code."""

from __future__ import annotations

import os
import sys
import traceback
from argparse import Namespace

from sparsefx.cli.exit_codes import BUG, INTERRUPTED, NEGATIVE, USER
from sparsefx.passes.errors import SparsefxError, VerificationError
from sparsefx.passes.exhaustion import exhausted

TRACEBACK = "SPARSEFX_TRACEBACK"  # environment variable: as --traceback
# What `pip install --no-deps` leaves away, to run bundles with less
_DEPENDENCIES = ("numpy", "onnx", "onnxruntime", "onnxscript", "rich", "safetensors", "torch")
# What messages advise in Python, and the flag that does it
_FLAGS = {
    "verify=False": "--no-verify",
    "dynamic_batch=False": "--static-batch",
    "trust_kernels=True": "--trust-kernels",
    "MaskSet.from_zeros": "--weights without --masks",
}
_LINES = 16  # of a message, so that it fits a screen with the prompt around it


def report_failure(error: BaseException, arguments: Namespace, interrupted: str) -> int:
    """Print what went wrong and what to do on standard error; the exit code."""
    if arguments.traceback or os.environ.get(TRACEBACK, "") not in ("", "0"):
        traceback.print_exception(error)
    code, text = _explain(error, interrupted)
    print(f"sparsefx {arguments.command}: {text}", file=sys.stderr)
    return code


def _explain(error: BaseException, interrupted: str) -> tuple[int, str]:
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED, f"interrupted; {interrupted}"
    if isinstance(error, SparsefxError):
        return NEGATIVE if isinstance(error, VerificationError) else USER, _short(error) + _as_flags(str(error))
    if isinstance(error, ModuleNotFoundError) and error.name in _DEPENDENCIES:
        return USER, (
            f"this needs {error.name}, which is not installed: pip install {error.name}. Bundles of ONNX Runtime are "
            "inspected, timed and drawn as reports without torch"
        )
    found = exhausted(error)
    if found is not None:
        return USER, found
    if isinstance(error, OSError) and error.strerror:
        return USER, f"{error.strerror}: {error.filename or 'while reading or writing'}; see that it can be used"
    return BUG, _bug(error)


def _as_flags(message: str) -> str:
    found = [f"{flag} ({advice})" for advice, flag in _FLAGS.items() if advice in message]
    return f"\nOn the command line: {', '.join(found)}" if found else ""


def _short(error: BaseException) -> str:
    lines = f"{type(error).__name__}: {error}".splitlines()
    if len(lines) <= _LINES:
        return "\n".join(lines)
    return "\n".join([*lines[:_LINES], f"... {len(lines) - _LINES} more lines with --traceback"])


def _bug(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({os.path.basename(frames[-1].filename)}, line {frames[-1].lineno})" if frames else ""
    first = (str(error).strip().splitlines() or ["no message"])[0]
    return (
        f"a bug of sparsefx: {type(error).__name__}: {first}{place}\n"
        f"Please report it with the model, the output of the same command with --traceback (or {TRACEBACK}=1), and of "
        "`sparsefx --version`."
    )
