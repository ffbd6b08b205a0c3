"""The masks of a slim module."""

from __future__ import annotations

from torch import Tensor, nn

from ...training.mask_structure import MaskStructure, violation
from ...training.masks import MaskSet
from ...training.weight_layout import WeightLayout
from .cuts import Cuts
from .sites import ModuleTensors


def remap_masks(masks: MaskSet, model: nn.Module, small: nn.Module, cuts: Cuts) -> MaskSet:
    """Masks of `model` for `small`: method, step and settings stay, and structures where the cut masks have them."""
    tensors = ModuleTensors(model)
    cut_of = {id(tensors.by_name[name]): cut for name, cut in cuts.tensors.items()}
    found: dict[str, Tensor] = {}
    for name, mask in masks.items():
        cut = cut_of.get(id(tensors.by_name[name]))
        if cut is not None:
            mask = cut.narrow(mask)
            mask = mask if cut.silent is None else mask & ~cut.silent
            mask = mask | (cut.value != 0)  # what carries the constants of removed channels
        found[name] = mask
    layouts = {f"{p}.weight".lstrip("."): WeightLayout.of(m) for p, m in small.named_modules(remove_duplicate=False)}
    structures = {
        n: s for n in masks if (s := _kept_structure(masks.structure(n), found[n], layouts.get(n))) is not None
    }
    return MaskSet(
        found,
        method=masks.method,
        step=masks.step,
        settings=masks.settings,
        structures=structures,
        layouts=layouts,
        versions=masks.versions,
    )


def _kept_structure(structure: MaskStructure, mask: Tensor, layout: WeightLayout | None) -> MaskStructure | None:
    """The structure as far as the mask still has it; None where it has to be found anew."""
    data = structure.to_dict() | {"ablated": ()}
    kept = MaskStructure.from_dict(data | {"layout": (layout or structure.layout).__dict__})
    return kept if violation(mask, kept) is None else None
