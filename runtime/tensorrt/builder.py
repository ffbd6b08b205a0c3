"""Run a builder's process, and turn whatever becomes of it into an outcome or a TargetError."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from ...passes.errors import TargetError
from .drivers import FAMILIES
from .job import Job, Outcome

SECONDS = 1800.0  # for a model; RTX takes seconds, full TensorRT minutes
_LAST_LINES = 5


def run_job(job: Job, seconds: float = SECONDS) -> Outcome:
    """Build in a process of its own. Files are there in whole, or not at all.

    Raises TargetError where it dies, takes longer than `seconds`, or is refused, with the last lines of its log.
    """
    with tempfile.TemporaryDirectory(prefix="sparsefx-build-") as folder:
        asked, answer, log = (Path(folder) / name for name in ("job.json", "outcome.json", "log.txt"))
        job.write(asked)
        command = [sys.executable, "-m", "sparsefx.runtime.tensorrt.child", str(asked), str(answer)]
        with log.open("wb") as stream:
            try:
                done = subprocess.run(
                    command, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream, timeout=seconds, check=False
                )
            except subprocess.TimeoutExpired as error:
                stage = _outcome(answer).stage
                raise TargetError(
                    f"{_name(job)} did not finish to {stage} in {seconds:.0f} seconds{_tail(log)}"
                ) from error
        outcome = _outcome(answer)
        if outcome.problem:
            raise TargetError(outcome.problem + _tail(log))
        if done.returncode or outcome.stage != "done":
            raise TargetError(
                f"{_name(job)} died while it was to {outcome.stage} ({_ended(done.returncode)}){_tail(log)}"
            )
        return outcome


def _outcome(file: Path) -> Outcome:
    try:
        return Outcome.from_dict(json.loads(file.read_text()))
    except FileNotFoundError:
        return Outcome("import")


def _name(job: Job) -> str:
    return f"the process of {FAMILIES[job.backend].name}"


def _ended(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit status {code}"


def _tail(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return ". Its log ends: " + " | ".join(lines[-_LAST_LINES:]) if lines else ""
