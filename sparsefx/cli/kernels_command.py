"""`sparsefx kernels build`."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path

from sparsefx.cli.progress import stages
from sparsefx.runtime.kernels.build import build_library


def run(arguments: Namespace) -> int:
    folder = Path(arguments.output) if arguments.output is not None else None
    flags = (f"-march={arguments.march}",) if arguments.march is not None else ()
    with stages(arguments.quiet) as announce:
        announce("compile the kernels")
        library = build_library(folder, flags=flags)
    print(json.dumps({"library": str(library)}) if arguments.json else library)
    return 0
