"""An ONNX Runtime engine and the files that it was made of."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from pathlib import Path

from torch.fx import GraphModule

from ..passes.signature import Signature
from ..runtime.engine import Engine
from ..runtime.onnxruntime.lower import lower_to_onnx
from ..runtime.onnxruntime.session import onnxruntime_engine
from ..runtime.targets import WEIGHTS


class Build:
    """A graph lowered and loaded. The files, in `folder`, go when nobody holds this object any more.

    Raises TargetError where an operator has no ONNX form, or ONNX Runtime refuses the file.
    """

    def __init__(
        self,
        graph_module: GraphModule,
        signature: Signature,
        threads: int | None,
        custom_operators: Path | None = None,
        precision: str = "fp32",
    ) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="sparsefx-"))
        weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)
        self.graph_module, self.signature, self.custom_operators = graph_module, signature, custom_operators
        self.model = lower_to_onnx(graph_module, signature, self.folder)
        self.engine: Engine = onnxruntime_engine(self.model, signature, threads, custom_operators, WEIGHTS[precision])
