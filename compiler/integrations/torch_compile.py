"""A backend for torch.compile that removes channels, and hands what is left to another backend.

torch.compile takes a model apart at graph breaks and gives every piece to the backend, with the weights among its
inputs. A piece is slimmed by itself: what crosses its borders keeps its channels. Weights are looked at
again in every call: new ones, or a write to them, make the piece be slimmed anew. So do new sizes of the data, but only
where torch.export cannot leave a size open.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from ...passes.channels.rules import OperatorRule
from ...passes.condense import Condense
from ...passes.errors import TargetError
from ...runtime.kernels.operators import use_kernels
from ..choice import CONDENSED, DENSE
from ..pipeline import run_pipeline
from .subgraph import Subgraph

Inner = str | Callable[..., Any]


class TorchBackend:
    """For `torch.compile(model, backend=TorchBackend())`: inference on graphs without the channels that can go.

    Zeros in the weights are the mask. `inner` runs what is left: any backend of torch.compile, by name ("eager",
    "inductor", "torch_tensorrt") or as a function. With the representation "condensed", layers with at most 30%
    non-zeros run by our kernels. `rules` as in RemoveChannels. `graphs` holds the slim graphs, in the order in which
    they were made.

    Calling the compiled model raises TargetError (inside torch's BackendCompilerFailed) where it is trained: under
    gradients, or with layers in training mode; and CaptureError where a piece cannot be captured. Writes to weights
    through `.data` are not seen.
    """

    def __init__(
        self,
        *,
        inner: Inner = "eager",
        representation: str = DENSE,
        rules: Mapping[str, OperatorRule] | None = None,
    ) -> None:
        if representation not in (DENSE, CONDENSED):
            raise TargetError(f"representation must be {DENSE} or {CONDENSED}, found {representation!r}")
        if representation == CONDENSED:
            use_kernels()
        self.inner, self.representation, self.rules = inner, representation, rules
        self.graphs: list[GraphModule] = []

    def __call__(self, graph_module: GraphModule, example_inputs: Sequence[Any]) -> Callable[..., Any]:
        """torch.compile's protocol: a callable for flat inputs."""
        _refuse_gradients(example_inputs)
        piece = _Piece(Subgraph(graph_module, example_inputs), self._slim)
        piece.version_for(example_inputs)  # now, so that what is wrong is said when the model is compiled
        return piece

    def __repr__(self) -> str:
        return f"TorchBackend(inner={self.inner!r}, representation={self.representation!r})"

    def _slim(self, subgraph: Subgraph, inputs: Sequence[Any]) -> tuple[Callable[..., Any], bool]:
        graph, fixed = subgraph.capture(inputs)
        run_pipeline(graph, self.rules)
        if self.representation == CONDENSED:
            Condense()(graph)
        self.graphs.append(graph)
        return (graph if self.inner == "eager" else torch.compile(graph, backend=self.inner)), fixed


def backend(
    graph_module: GraphModule, example_inputs: Sequence[Any], *, options: Mapping[str, Any] | None = None
) -> Callable[..., Any]:
    """`torch.compile(model, backend="sparsefx", options={"inner": "inductor"})`."""
    return TorchBackend(**(options or {}))(graph_module, example_inputs)


@dataclass(frozen=True)
class _Version:
    """A slim graph, and the weights it was made from: each with the number of writes it had seen.

    `shapes` are those of the data, where it is for no other.
    """

    weights: tuple[tuple[weakref.ref[Tensor], int], ...]
    shapes: tuple[torch.Size, ...] | None
    run: Callable[..., Any]

    def fits(self, weights: Sequence[Tensor], data: Sequence[Tensor]) -> bool:
        if self.shapes is not None and self.shapes != _shapes(data):
            return False
        return all(
            known() is weight and writes == weight._version
            for (known, writes), weight in zip(self.weights, weights, strict=True)
        )

    def outdated(self) -> bool:
        return any((weight := known()) is None or weight._version != writes for known, writes in self.weights)


class _Piece:
    """One graph of torch.compile's, as a function; models of the same code share it, each with its weights."""

    def __init__(
        self, subgraph: Subgraph, slim: Callable[[Subgraph, Sequence[Any]], tuple[Callable[..., Any], bool]]
    ) -> None:
        self._subgraph, self._slim = subgraph, slim
        self._versions: list[_Version] = []

    def __call__(self, *inputs: Any) -> Any:
        version = self.version_for(inputs)
        return version.run(*self._subgraph.data_of(inputs))

    def version_for(self, inputs: Sequence[Any]) -> _Version:
        weights, data = self._subgraph.weights_of(inputs), self._subgraph.data_of(inputs)
        found = next((version for version in self._versions if version.fits(weights, data)), None)
        if found is None:
            self._versions = [version for version in self._versions if not version.outdated()]
            known = tuple((weakref.ref(weight), weight._version) for weight in weights)
            run, fixed = self._slim(self._subgraph, inputs)
            found = _Version(known, _shapes(data) if fixed else None, run)
            self._versions.append(found)
        return found


def _shapes(data: Sequence[Tensor]) -> tuple[torch.Size, ...]:
    return tuple(tensor.shape for tensor in data)


def _refuse_gradients(inputs: Sequence[Any]) -> None:
    wanted = [value for value in inputs if isinstance(value, Tensor) and value.requires_grad]
    if torch.is_grad_enabled() and wanted:
        kinds = "weights" if any(isinstance(value, nn.Parameter) for value in wanted) else "inputs"
        raise TargetError(
            f"sparsefx's backend is for inference, and {kinds} require gradients: call the compiled model under "
            "torch.no_grad() or torch.inference_mode()"
        )
