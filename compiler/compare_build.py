"""A compiled model beside the masked model that is built as it is: nothing removed, every layer dense."""

from __future__ import annotations

from torch.fx import GraphModule

from ..passes.errors import TargetError
from ..passes.fold_batch_norm import FoldBatchNorm
from ..runtime.build import Build
from .backends import backend_of
from .compare import Contender, compare, dense_layers_of, layers_of
from .compiled import CompiledModel
from .figures import Comparison
from .slim_engine import EngineMaker

_SECONDS = 2.0


def compare_with_dense(compiled: CompiledModel, plain: GraphModule, maker: EngineMaker) -> Comparison:
    """Build `plain`, the masked graph, and time it in turn with the compiled engine on the example inputs.

    Where there is no engine, or none that runs here, a note says so.
    """
    FoldBatchNorm()(plain)
    report = compiled.report.to_dict()
    try:
        slim = Contender(compiled.engine(), layers_of(report), _file_bytes(compiled.build))
        dense = backend_of(maker.settings.target, maker.settings.precision).build(
            plain, maker.signature, maker.settings, maker.inputs
        )
        whole = Contender(dense.engine, dense_layers_of(report), _file_bytes(dense))
    except TargetError as error:
        return Comparison(notes=(f"not timed beside the dense engine: {error}",))
    inputs = [tensor.detach().cpu().numpy() for tensor in maker.inputs]
    shapes = zip(maker.signature.inputs, maker.inputs, strict=True)
    sizes = {n: size for spec, x in shapes for n, size in zip(spec.shape, x.shape, strict=True) if isinstance(n, str)}
    return compare(whole, slim, inputs, sizes, seconds=_SECONDS)


def _file_bytes(build: Build) -> int:
    return sum(file.stat().st_size for file in build.files)
