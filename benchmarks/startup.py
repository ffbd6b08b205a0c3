"""How long the command line and the import take before anything is done, in new processes, one after the other in turn.

    python -m benchmarks.startup [--seconds 60]

Every contender is a process of its own, the bare interpreter among them, whose time is in all the others. What is
heavy is imported at first use, so that `import sparsefx` is over before torch is loaded; two more contenders tell what
torch's import takes and what the compiler's adds to it.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable

from benchmarks.results_file import write_results
from sparsefx.runtime.latency.measure import Measurement, measure

_LIMIT = 0.3  # seconds: what is promised for the import and for --help
_PYTHON = {
    "python": "pass",
    "import sparsefx": "import sparsefx",
    "import torch": "import torch",
    "import torch, sparsefx.compile": "import torch, sparsefx; sparsefx.compile",
}
_COMMANDS = ("--help", "--version", "compile --help", "train --help", "completion bash")
_PROMISED = ("import sparsefx", *(f"sparsefx {command}" for command in _COMMANDS))


def _process(*command: str) -> Callable[[], object]:
    return lambda: subprocess.run([sys.executable, *command], stdout=subprocess.DEVNULL, check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0)
    options = parser.parse_args()
    contenders = {name: _process("-c", code) for name, code in _PYTHON.items()}
    contenders |= {f"sparsefx {c}": _process("-m", "sparsefx", *c.split()) for c in _COMMANDS}
    found = measure(contenders, seconds=options.seconds, least_runs=15, warm_up=2)
    for name, row in found.items():
        promised = f"   {'under' if row.median < _LIMIT else 'NOT under'} {_LIMIT} s" if name in _PROMISED else ""
        print(f"{name:32s} {row.median:7.3f} s   middle half {row.spread:6.3f} s{promised}")
    write_results("startup", {"limit": _LIMIT, "seconds": {name: _row(row) for name, row in found.items()}})


def _row(row: Measurement) -> dict[str, float | int]:
    return {"median": row.median, "spread": row.spread, "p99": row.p99, "runs": len(row.seconds)}


if __name__ == "__main__":
    main()
