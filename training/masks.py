"""Sets of sparsity masks: what training hands to the compiler."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from os import PathLike
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from ..passes.errors import MaskError
from ..passes.near_names import closest
from .detect_structure import detect_structure
from .mask_file import read_mask_file, write_mask_file
from .mask_structure import MaskStructure, ablated_channels, violation
from .model_weights import ModelWeight, mask_in_place, weights_of
from .packed_mask import PackedMask, as_boolean
from .weight_layout import WeightLayout

Shapes = Mapping[str, Tensor | Sequence[int]]


class MaskSet(Mapping[str, Tensor]):
    """Boolean masks of parameters by fully qualified name, in order; one bit per weight. It does not change.

    `masks` are tensors (or arrays) of zeros and ones in the shape of their parameter, True or 1 for "keep".
    `structures` gives the structure of some of them, which is verified; the others are detected (`layouts` says
    where a parameter has its output channels if not on axis 0). `method`, `step`, `settings` (JSON-able) and
    `versions` record how the masks were made. Raises MaskError for a mask with other values than 0 and 1, a
    structure that a mask does not have, and settings that are no JSON.
    """

    def __init__(
        self,
        masks: Mapping[str, Any],
        *,
        method: str = "unknown",
        step: int | None = None,
        settings: Mapping[str, Any] | None = None,
        structures: Mapping[str, MaskStructure] | None = None,
        layouts: Mapping[str, WeightLayout] | None = None,
        versions: Mapping[str, str] | None = None,
    ) -> None:
        structures = dict(structures or {})
        _reject_unknown(structures, masks, "structure")
        self.method = method
        self.step = step
        self.settings: dict[str, Any] = _as_json(settings or {})
        self.versions = dict(versions) if versions is not None else _versions()
        self._packed: dict[str, PackedMask] = {}
        self._structures: dict[str, MaskStructure] = {}
        for name, given in masks.items():
            mask = as_boolean(name, given)
            self._packed[name] = PackedMask.pack(mask)
            layout = (layouts or {}).get(name)
            self._structures[name] = _structure(name, mask, structures.get(name), layout)

    @classmethod
    def from_zeros(cls, source: nn.Module | Mapping[str, Tensor], names: Sequence[str] | None = None) -> Self:
        """The zeros in the weights of a model or state dict as masks.

        Without `names`: every floating-point parameter with two or more axes that contains a zero. With `names`:
        exactly those; MaskError where the source does not have one. A state dict does not tell transposed
        convolutions apart, so their structure is detected along axis 0; hand over the model for them.
        """
        layouts = _layouts(source) if isinstance(source, nn.Module) else {}
        tensors = _parameters(source) if isinstance(source, nn.Module) else source
        tensors = {name: tensor for name, tensor in tensors.items() if isinstance(tensor, Tensor)}
        if not tensors:
            raise MaskError("no tensors found; of a training checkpoint, pass the entry with the model's state dict")
        if names is None:
            names = [n for n, t in tensors.items() if t.ndim >= 2 and t.is_floating_point() and not bool(t.all())]
        missing = next((name for name in names if name not in tensors), None)
        if missing is not None:
            raise MaskError(f"there is no parameter {missing}{closest(missing, tensors)}")
        masks = {name: tensors[name].detach() != 0 for name in names}
        return cls(masks, method="zeros", layouts=layouts)

    @classmethod
    def from_pruning(cls, model: nn.Module) -> Self:
        """The masks of torch.nn.utils.prune; MaskError where the model has none."""
        masks = {name: weight.pruning for name, weight in weights_of(model).items() if weight.pruning is not None}
        if not masks:
            raise MaskError(
                f"{type(model).__name__} has no masks of torch.nn.utils.prune (no ..._orig with a ..._mask beside it); "
                "after prune.remove the zeros are in the weights: use MaskSet.from_zeros"
            )
        return cls(masks, method="torch.nn.utils.prune", layouts=_layouts(model))

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Self:
        """Masks that `save` wrote; MaskError where the file is damaged, foreign or from a newer version."""
        packed, header = read_mask_file(Path(path))
        try:
            structures = {e["name"]: MaskStructure.from_dict(e["structure"]) for e in header["parameters"]}
            masks = {name: mask.unpack() for name, mask in packed.items()}
            made = {key: header[key] for key in ("method", "step", "settings", "versions")}
            return cls(masks, structures=structures, **made)
        except (MaskError, TypeError, KeyError, AttributeError) as error:
            raise MaskError(f"{path}: {error}; the file is damaged, save the masks again") from error

    def save(self, path: str | PathLike[str]) -> None:
        """Write one safetensors file, atomically: bit-packed masks, everything else as JSON in its header."""
        header = {
            "method": self.method,
            "step": self.step,
            "settings": self.settings,
            "versions": self.versions,
            "parameters": [{"name": name, "structure": self._structures[name].to_dict()} for name in self],
        }
        write_mask_file(Path(path), self._packed, header)

    def __getitem__(self, name: str) -> Tensor:
        """The mask of a parameter: a new boolean tensor on the CPU. KeyError for a name without a mask."""
        return self._packed[name].unpack()

    def __iter__(self) -> Iterator[str]:
        return iter(self._packed)

    def __len__(self) -> int:
        return len(self._packed)

    def __contains__(self, name: object) -> bool:
        return name in self._packed

    def shape(self, name: str) -> tuple[int, ...]:
        return self._packed[name].shape

    def structure(self, name: str) -> MaskStructure:
        return self._structures[name]

    def density(self, name: str | None = None) -> float:
        """Non-zeros over weights, of one mask or of all together; 1 where there are no weights."""
        chosen = [self._packed[name]] if name is not None else list(self._packed.values())
        size = sum(mask.size for mask in chosen)
        return sum(mask.nonzeros for mask in chosen) / size if size else 1.0

    def equals(self, other: MaskSet) -> bool:
        """Whether both mask the same weights of the same parameters; how they were made is not compared."""
        return self._packed.keys() == other._packed.keys() and all(
            mask.equals(other._packed[name]) for name, mask in self._packed.items()
        )

    def __eq__(self, other: object) -> bool:
        return self.equals(other) if isinstance(other, MaskSet) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        made = f"method {self.method}" + (f", step {self.step}" if self.step is not None else "")
        return f"MaskSet({len(self)} parameters, density {self.density():.4f}, {made})"

    def check(self, target: nn.Module | Shapes) -> None:
        """MaskError where a name or a shape does not fit a model, or a mapping of names to tensors or shapes."""
        weights = weights_of(target) if isinstance(target, nn.Module) else None
        shapes = _shapes({n: w.stored for n, w in weights.items()} if weights is not None else target)  # type: ignore[arg-type]
        _reject_unknown(self._packed, shapes, "mask")
        for name, mask in self._packed.items():
            if shapes[name] != mask.shape:
                raise MaskError(
                    f"the mask of {name} has shape {mask.shape}, the parameter {shapes[name]}; "
                    "masks and model do not belong together"
                )
        if weights is not None:
            self._check_ties(weights)

    def _check_ties(self, weights: Mapping[str, ModelWeight]) -> None:
        """A parameter with two names can only have one mask."""
        first: dict[int, str] = {}
        for name in self:
            other = first.setdefault(id(weights[name].stored), name)
            if not self._packed[other].equals(self._packed[name]):
                raise MaskError(f"{other} and {name} are one tied parameter with two different masks; give one mask")

    def apply(self, model: nn.Module) -> None:
        """Zero the masked weights of a model, in place. MaskError as `check`."""
        self.check(model)
        weights = weights_of(model)
        for name, mask in self.items():
            mask_in_place(model, name, weights[name], ~mask)

    def masked_state(self, model: nn.Module) -> dict[str, Tensor]:
        """The masked weights of a model by the model's own parameter names; the model is not touched.

        Every name of a tied parameter is there, and a parameter under torch.nn.utils.prune is called
        `..._orig`: `torch.func.functional_call(model, state, inputs)` computes the masked model.
        """
        self.check(model)
        weights = weights_of(model)
        masked = {
            id(weights[name].stored): weights[name]
            .stored.detach()
            .masked_fill(~mask.to(weights[name].stored.device), 0)
            for name, mask in self.items()
        }
        return {w.own_name: masked[id(w.stored)] for w in weights.values() if id(w.stored) in masked}


def _structure(name: str, mask: Tensor, given: MaskStructure | None, layout: WeightLayout | None) -> MaskStructure:
    """The given structure, verified, or the detected one."""
    if given is None:
        return detect_structure(mask, layout)
    broken = violation(mask, given)
    if broken:
        raise MaskError(f"the mask of {name}, shape {tuple(mask.shape)}, is not {given.kind}: {broken}")
    return replace(given, ablated=ablated_channels(given.layout.grid(mask)))


def _reject_unknown(names: Mapping[str, Any], known: Mapping[str, Any], what: str) -> None:
    unknown = [name for name in names if name not in known]
    if unknown:
        more = f", and {len(unknown) - 1} more" if len(unknown) > 1 else ""
        raise MaskError(f"there is a {what} for {unknown[0]}{more}, but no such parameter{closest(unknown[0], known)}")


def _shapes(named: Shapes) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape if isinstance(value, Tensor) else value) for name, value in named.items()}


def _parameters(model: nn.Module) -> dict[str, Tensor]:
    """The weights that a model computes with, by mask name; a tied parameter once."""
    first = {
        id(w.stored): name for name, w in reversed(weights_of(model).items()) if isinstance(w.stored, nn.Parameter)
    }
    return {name: w.effective for name, w in weights_of(model).items() if first.get(id(w.stored)) == name}


def _layouts(model: nn.Module) -> dict[str, WeightLayout]:
    modules = model.named_modules(remove_duplicate=False)
    return {f"{prefix}.weight".lstrip("."): WeightLayout.of(module) for prefix, module in modules}


def _as_json(settings: Mapping[str, Any]) -> dict[str, Any]:
    try:
        plain: dict[str, Any] = json.loads(json.dumps(settings, allow_nan=False))
        return plain
    except (TypeError, ValueError) as error:
        raise MaskError(f"the settings of a mask set must be JSON ({error}): {settings!r}") from error


def _versions() -> dict[str, str]:
    try:
        own = version("sparsefx")
    except PackageNotFoundError:  # a checkout that is not installed
        own = "unknown"
    return {"sparsefx": own, "torch": torch.__version__}
