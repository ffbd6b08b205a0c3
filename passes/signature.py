"""What a captured model takes and returns: names, types and shapes of its tensors, and the structures around them.

Free of torch, so that an engine can check its inputs where torch is not installed. Everything is plain JSON.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class TensorSpec:
    """One tensor: its dtype as NumPy spells it, and per axis a size or the name of a dynamic one."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, "dtype": self.dtype, "shape": list(self.shape)}

    @staticmethod
    def from_json(data: dict[str, Any]) -> TensorSpec:
        return TensorSpec(data["name"], data["dtype"], tuple(data["shape"]))

    def __str__(self) -> str:
        return f"{self.name}: {self.dtype}[{', '.join(map(str, self.shape))}]"


@dataclass(frozen=True)
class Tree:
    """A nested structure: `kind` is tensor (by `index`), literal (`value`), tuple, list or dict (with `keys`)."""

    kind: str
    index: int = -1
    value: Any = None
    keys: tuple[str | int, ...] = ()
    items: tuple[Tree, ...] = ()

    def to_json(self) -> dict[str, Any]:
        fields = {"kind": self.kind}
        if self.kind == "tensor":
            return fields | {"index": self.index}
        if self.kind == "literal":
            return fields | {"value": self.value}
        return fields | {"keys": list(self.keys), "items": [item.to_json() for item in self.items]}

    @staticmethod
    def from_json(data: dict[str, Any]) -> Tree:
        items = tuple(Tree.from_json(item) for item in data.get("items", ()))
        return Tree(data["kind"], data.get("index", -1), data.get("value"), tuple(data.get("keys", ())), items)

    def build(self, tensors: Sequence[Any]) -> Any:
        """The structure with its tensors put in; a dataclass of the model comes back as a dict of its fields."""
        if self.kind == "tensor":
            return tensors[self.index]
        if self.kind == "literal":
            return self.value
        items = [item.build(tensors) for item in self.items]
        if self.kind == "dict":
            return dict(zip(self.keys, items, strict=True))
        return items if self.kind == "list" else tuple(items)

    def collect(self, value: Any, path: str, mismatch: Callable[[str], Exception]) -> dict[int, Any]:
        """Tensors by index out of a value of this structure; raises mismatch(message) where it differs."""
        if self.kind == "tensor":
            return {self.index: value}
        if self.kind == "literal":
            if value is not self.value and value != self.value:
                raise mismatch(f"{path} was captured as {self.value!r}, found {value!r}")
            return {}
        parts = self._parts(value, path, mismatch)
        found: dict[int, Any] = {}
        for (label, part), item in zip(parts, self.items, strict=True):
            found |= item.collect(part, f"{path}{label}", mismatch)
        return found

    def _parts(self, value: Any, path: str, mismatch: Callable[[str], Exception]) -> list[tuple[str, Any]]:
        if self.kind == "dict":
            if not isinstance(value, dict) or set(value) != set(self.keys):
                found = sorted(map(str, value)) if isinstance(value, dict) else type(value).__name__
                raise mismatch(f"{path} must be a dict with the keys {list(self.keys)}, found {found}")
            return [(f"[{key!r}]", value[key]) for key in self.keys]
        if not isinstance(value, tuple | list) or len(value) != len(self.items):
            found = f"{len(value)} items" if isinstance(value, tuple | list) else type(value).__name__
            raise mismatch(f"{path} must be a {self.kind} of {len(self.items)}, found {found}")
        return [(f"[{i}]", part) for i, part in enumerate(value)]


@dataclass(frozen=True)
class Signature:
    """Tensors in and out in flat order; `arguments` maps parameter names to trees, the first ones positional."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    arguments: tuple[tuple[str, Tree], ...]
    positional: int
    result: Tree

    def to_json(self) -> dict[str, Any]:
        return {
            "inputs": [spec.to_json() for spec in self.inputs],
            "outputs": [spec.to_json() for spec in self.outputs],
            "arguments": [[name, tree.to_json()] for name, tree in self.arguments],
            "positional": self.positional,
            "result": self.result.to_json(),
        }

    @staticmethod
    def from_json(data: dict[str, Any]) -> Signature:
        return Signature(
            tuple(TensorSpec.from_json(spec) for spec in data["inputs"]),
            tuple(TensorSpec.from_json(spec) for spec in data["outputs"]),
            tuple((name, Tree.from_json(tree)) for name, tree in data["arguments"]),
            data["positional"],
            Tree.from_json(data["result"]),
        )

    def flatten(self, args: Sequence[Any], kwargs: dict[str, Any], mismatch: Callable[[str], Exception]) -> list[Any]:
        """The input tensors of a call in flat order; raises mismatch(message) where an argument does not fit."""
        names = [name for name, _ in self.arguments]
        given = dict(zip(names[: self.positional], args, strict=False))
        twice, unknown = given.keys() & kwargs.keys(), kwargs.keys() - set(names)
        missing = [name for name in names if name not in given and name not in kwargs]
        if len(args) > self.positional or twice or unknown or missing:
            raise mismatch(
                f"expected the arguments ({', '.join(names)}), {_problem(args, self, twice, unknown, missing)}; call "
                "it as the model's forward"
            )
        given |= kwargs
        found: dict[int, Any] = {}
        for name, tree in self.arguments:
            found |= tree.collect(given[name], name, mismatch)
        return [found[i] for i in range(len(self.inputs))]


def _problem(args: Sequence[Any], signature: Signature, twice: Any, unknown: Any, missing: list[str]) -> str:
    if len(args) > signature.positional:
        return f"found {len(args)} positional ones where {signature.positional} may be"
    if twice:
        return f"found {sorted(twice)} twice"
    return f"found the unknown {sorted(unknown)}" if unknown else f"{missing} missing"
