"""Where a traced graph reads the parameters and buffers of a module, and whether a layer can take over constants."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from torch import Tensor, nn
from torch.fx import Node
from torch.nn.modules.conv import _ConvNd

from ...passes.channels.arrays import Indices
from ...passes.channels.rules.call import Contraction
from ...passes.channels.trace import GraphTrace
from ...passes.channels.transfer import Value
from ...passes.graph import origin_of


@dataclass(frozen=True, eq=False)
class ModuleTensors:
    """Parameters and buffers of a module by every name that they have."""

    model: nn.Module

    @cached_property
    def by_name(self) -> dict[str, Tensor]:
        model = self.model
        return {
            **dict(model.named_parameters(remove_duplicate=False)),
            **dict(model.named_buffers(remove_duplicate=False)),
        }

    @cached_property
    def first_names(self) -> dict[str, str]:
        """The first name of every tensor, by every name that it has."""
        first: dict[int, str] = {}
        return {name: first.setdefault(id(tensor), name) for name, tensor in self.by_name.items()}

    def key(self, node: Node | None) -> int | None:
        """What identifies the tensor that a get_attr node reads; None where it is none of the module's own."""
        tensor = self.by_name.get(origin_of(node)) if node is not None else None
        return id(tensor) if tensor is not None else None

    def owner(self, name: str) -> nn.Module:
        return self.model.get_submodule(name.rpartition(".")[0])


@dataclass(frozen=True, eq=False)
class Site:
    """One operator that reads a tensor: as a layer's weight or bias, or element by element."""

    kind: str  # weight, bias or values
    contraction: Contraction | None = None
    value: Value | None = None

    @property
    def elements(self) -> list[Indices]:
        """The elements that its channels belong to, per role."""
        if self.value is not None:
            return [self.value.elements]
        assert self.contraction is not None
        outputs = self.contraction.outputs.elements.reshape(-1)
        return [outputs, self.contraction.inputs.elements.reshape(-1)] if self.kind == "weight" else [outputs]

    def alike(self, other: Site) -> bool:
        """Whether the tensor's indices mean the same at both sites."""
        if self.kind != other.kind or [e.shape for e in self.elements] != [e.shape for e in other.elements]:
            return False
        if self.value is not None and other.value is not None:
            return self.value.axes == other.value.axes
        assert self.contraction is not None and other.contraction is not None
        one, two = self.contraction.kernel, other.contraction.kernel
        return one.layout is two.layout and one.groups == two.groups


@dataclass(frozen=True, eq=False)
class Sites:
    """The sites of all tensors of a module in a traced graph."""

    tensors: ModuleTensors
    of: Mapping[int, list[Site]] = field(repr=False)

    @staticmethod
    def find(trace: GraphTrace, tensors: ModuleTensors) -> Sites:
        found: dict[int, list[Site]] = defaultdict(list)
        for node, value in trace.constants():
            if (key := tensors.key(node)) is not None:
                found[key].append(Site("values", value=value))
        for contraction in trace.contractions:
            for kind, read in (("weight", contraction.weight), ("bias", contraction.bias)):
                if (key := tensors.key(read)) is not None:
                    found[key].append(Site(kind, contraction))
        return Sites(tensors, found)

    def absorbs(self, contraction: Contraction) -> bool:
        """Whether a layer can take over constants: its weight and bias are its own, or it can be given a bias."""
        if contraction.weight is None or not self._sole(contraction.weight):
            return False
        if contraction.bias is not None:
            own = self.tensors.by_name.get(origin_of(contraction.bias))
            return isinstance(own, nn.Parameter) and self._sole(contraction.bias)
        return contraction.bias_name is not None and self._takes_bias(origin_of(contraction.weight))

    def _sole(self, node: Node) -> bool:
        key = self.tensors.key(node)
        return key is not None and len(self.of[key]) == 1

    def _takes_bias(self, weight: str) -> bool:
        owner, names = self.tensors.owner(weight), list(self.tensors.first_names.values())
        if names.count(self.tensors.first_names[weight]) > 1:
            return False  # which of the layers that share it would need the bias is not known
        standard = isinstance(owner, nn.Linear | _ConvNd) and weight.rpartition(".")[2] == "weight"
        return standard and "bias" in owner._parameters and owner._parameters["bias"] is None
