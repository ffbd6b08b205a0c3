"""What every backend makes of a graph: files, and an engine that runs them where the device is there."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..passes.errors import TargetError
from ..passes.signature import Signature
from .engine import Engine
from .states import States
from .targets import BuildSettings

if TYPE_CHECKING:
    from torch import Tensor
    from torch.fx import GraphModule

    from .latency.table import LatencyTable
    from .onnxruntime.layer_models import LayerForm
    from .onnxruntime.layer_times import LayerTime


@dataclass(frozen=True)
class StandIn:
    """An engine on the CPU in place of one whose device is missing: `what` it is, and in which `precision`."""

    engine: Engine
    what: str
    precision: str = "fp32"


class Build(ABC):
    """A graph lowered for one target. The files, in `folder`, go when nobody holds this object any more.

    `inputs` are example tensors in the signature's order; `custom_operators` is what `kernels` returned, for a graph
    with condensed layers. Raises TargetError where an operator has no form there, or the backend refuses the graph.
    """

    model: Path | None = None  # the ONNX file in float32, where the backend is reached through one

    def __init__(
        self,
        graph_module: GraphModule,
        signature: Signature,
        settings: BuildSettings,
        inputs: Sequence[Tensor],
        custom_operators: Path | None = None,
    ) -> None:
        self.graph_module, self.signature, self.settings = graph_module, signature, settings
        self.inputs, self.custom_operators = inputs, custom_operators
        self.states = States()
        self.folder = Path(tempfile.mkdtemp(prefix="sparsefx-"))
        weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)
        self._engine: Engine | None = None
        self.lower()

    @classmethod
    def builder(cls, settings: BuildSettings) -> str:
        """What builds engines with these settings, with its version.

        Raises TargetError, saying what to install or change, where that is impossible on this machine.
        """
        return "sparsefx"

    @classmethod
    def kernels(cls) -> Path | None:
        """The library that runs condensed layers; None where none is needed. Raises TargetError where it is missing."""
        return None

    @abstractmethod
    def lower(self) -> None:
        """Write the files, and record the states `parsed` and `built`."""

    @abstractmethod
    def load(self) -> Engine:
        """The engine of the files. Raises TargetError where this machine cannot run it."""

    @property
    def engine(self) -> Engine:
        """The engine, loaded once. Raises TargetError where this machine cannot run it."""
        if self._engine is None:
            try:
                self._engine = self.load()
            except TargetError as error:
                self.states.miss("loaded", str(error))
                raise
            self.states.reach("loaded", self.device)
        return self._engine

    @property
    def device(self) -> str:
        """What the engine runs on, by the name it has."""
        return self.settings.target

    @property
    def files(self) -> list[Path]:
        """What a bundle takes along."""
        return sorted(self.folder.iterdir())

    @property
    def facts(self) -> dict[str, Any]:
        """What the backend told of the engine, for report and manifest; plain JSON."""
        return {}

    @property
    def details(self) -> dict[str, Any]:
        """What is too long for a report, for the manifest alone."""
        return {}

    def layer_times(self, forms: Sequence[LayerForm]) -> list[LayerTime] | None:
        """Times of layers, dense and condensed, measured on the target; None where only whole engines are."""
        return None

    def foretold_time(self, layer: str, form: LayerForm, table: LatencyTable) -> LayerTime | None:
        """What a latency table of the target says of a layer, dense and condensed; None where it lacks one of them."""
        return None

    def notes(self, before: GraphModule) -> list[str]:
        """What is worth a line in the report, beside the graph as it was with all its channels."""
        return []

    def stand_in(self) -> StandIn | None:
        """Where the device is missing: an engine for the same file on the CPU."""
        return None
