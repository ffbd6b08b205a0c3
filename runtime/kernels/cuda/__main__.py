"""Compile every kernel for NVIDIA GPUs ahead of time, on any machine, and check their parameters.

    python -m sparsefx.runtime.kernels.cuda [--everything] [--architectures 80 89 90] [-o FOLDER]

Triton's kernels (PTX and cubin) and those of TensorRT's plugins (nvcc; PTX and cubin). With -o they are written there.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from ....passes.errors import SparsefxError
from .compile_nvcc import ARCHITECTURES, declared_parameters, plugin_cubin
from .compile_triton import compile_all


def main(arguments: list[str] | None = None) -> int:
    """1 where something does not compile or cannot."""
    parser = argparse.ArgumentParser(
        prog="python -m sparsefx.runtime.kernels.cuda",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--architectures", nargs="+", type=int, default=list(ARCHITECTURES), metavar="SM")
    parser.add_argument("--everything", action="store_true", help="every variant of Triton's kernels, not one a type")
    parser.add_argument("-o", "--output", type=Path, help="folder for PTX and cubin")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.output or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        try:
            _compile(options.architectures, options.everything, folder)
        except SparsefxError as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
    return 0


def _compile(architectures: list[int], everything: bool, folder: Path) -> None:
    for sm in architectures:
        cubin = plugin_cubin(sm, folder)
        print(f"sm_{sm}: {len(declared_parameters())} kernels of the plugins, {cubin.stat().st_size} bytes", flush=True)
        made = compile_all([sm], everything=everything)
        for number, compiled in enumerate(made):
            name = f"{compiled.variant.kernel}-{compiled.variant.type}-{number}-sm_{sm}"
            (folder / f"{name}.ptx").write_text(compiled.ptx)
            (folder / f"{name}.cubin").write_bytes(compiled.cubin)
        print(f"sm_{sm}: {len(made)} variants of Triton's kernels", flush=True)


if __name__ == "__main__":
    sys.exit(main())
