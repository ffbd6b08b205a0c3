"""A bundle beside that of the dense model. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ..passes.errors import BundleError
from ..runtime.inputs import check_sizes, dynamic_sizes, random_arrays
from .bundle import load, read_report
from .compare import Contender, compare, layers_of
from .figures import Comparison

_SECONDS = 5.0


def compare_bundles(
    dense: Path,
    compiled: Path,
    *,
    sizes: Mapping[str, int] | None = None,
    threads: int | None = None,
    seconds: float = _SECONDS,
    trust_kernels: bool = False,
) -> Comparison:
    """Time a bundle in turn with the dense model's, as a whole and layer by layer, on random inputs.

    Dynamic sizes default to 1; `threads` and `trust_kernels` as in `load`. Raises BundleError where they take other
    inputs, TargetError for a size that they do not have, and as `load`.
    """
    first, second = (_contender(path, threads, trust_kernels) for path in (dense, compiled))
    wanted, found = second.engine.signature, first.engine.signature
    if [(s.dtype, len(s.shape)) for s in wanted.inputs] != [(s.dtype, len(s.shape)) for s in found.inputs]:
        raise BundleError(
            f"{dense} takes {', '.join(map(str, found.inputs))}, but {compiled} takes "
            f"{', '.join(map(str, wanted.inputs))}: only bundles of the same model can be compared"
        )
    known = dynamic_sizes(wanted)
    check_sizes(sizes or {}, known)
    chosen = dict.fromkeys(known, 1) | dict(sizes or {})
    return compare(first, second, random_arrays(wanted, chosen), chosen, seconds=seconds)


def _contender(folder: Path, threads: int | None, trust_kernels: bool) -> Contender:
    engine = load(folder, threads, trust_kernels=trust_kernels)
    return Contender(engine, layers_of(read_report(folder)), sum(f.stat().st_size for f in folder.glob("model.*")))
