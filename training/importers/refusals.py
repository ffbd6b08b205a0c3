"""Why a pickled file is not read, and what to do instead; it is judged by names, never by unpickling it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from .pickle_names import PickleNames

_SHOWN = 4
_DANGER = "loading it can run code from the file"
_TRUST = "Where you trust the file and can import these, convert it:\n"
SAVE_ALONE = "save model.state_dict() alone, with safetensors.torch.save_file or torch.save"


def explain_unloadable(path: Path, names: PickleNames, error: Exception) -> str:
    """Why torch.load(weights_only=True) failed on a torch.save file."""
    if not names.foreign:
        first = (str(error).strip() or "no message").splitlines()[0]
        return (
            f"cannot be read safely ({type(error).__name__}: {first}); if a new copy of it fails as well, {SAVE_ALONE}"
        )
    explain = next(explain for recognise, explain in _UNLOADABLE if recognise(names))
    return explain(path, names)


def explain_pickle(names: PickleNames) -> str:
    """Why a file of pickle.dump is not read."""
    if "torch.storage._load_from_bytes" in names.imports and not names.foreign:
        return (
            f"a plain pickle of tensors, as HALP writes its group masks; {_DANGER}. "
            "The weights of HALP's checkpoint have the same zeros: read that file instead"
        )
    objects = f" with {_objects(names)}" if names.foreign else ""
    return f"a plain pickle{objects}; {_DANGER}. Instead, {SAVE_ALONE}"


def _is_srigl(names: PickleNames) -> bool:
    return {"cfg", "pruner", "backward_masks"} <= names.strings


def _is_rigl_torch(names: PickleNames) -> bool:
    return {"pruner", "backward_masks"} <= names.strings


def _is_whole_model(names: PickleNames) -> bool:
    return any(name.startswith("torch.nn.modules.") for name in names.imports)


def _is_anything(names: PickleNames) -> bool:
    return True


def _explain_srigl(path: Path, names: PickleNames) -> str:
    return (
        f"a checkpoint of SRigL's training code, pickled with its configuration (cfg) and {_objects(names)}; "
        f"{_DANGER}. {_TRUST}{_conversion(path, names, 'model')}"
    )


def _explain_rigl_torch(path: Path, names: PickleNames) -> str:
    model = "state_dict" if "state_dict" in names.strings else "model"
    return (
        f"a checkpoint of rigl-torch that holds more than tensors, {_objects(names)}; {_DANGER}. "
        f"{_TRUST}{_conversion(path, names, model)}"
    )


def _explain_whole_model(path: Path, names: PickleNames) -> str:
    return f"cannot be read safely: a whole pickled model, {_objects(names)}; {_DANGER}. Instead, {SAVE_ALONE}"


def _explain_anything(path: Path, names: PickleNames) -> str:
    return f"cannot be read safely: it holds more than tensors, {_objects(names)}; {_DANGER}. Instead, {SAVE_ALONE}"


_UNLOADABLE: tuple[tuple[Callable[[PickleNames], bool], Callable[[Path, PickleNames], str]], ...] = (
    (_is_srigl, _explain_srigl),
    (_is_rigl_torch, _explain_rigl_torch),
    (_is_whole_model, _explain_whole_model),
    (_is_anything, _explain_anything),
)


def _conversion(path: Path, names: PickleNames, model: str) -> str:
    """Two lines of Python that keep what the importer reads."""
    kept = [key for key in ("backward_masks", "module_names") if key in names.strings]
    pruner = ", ".join(f'"{key}": c["pruner"]["{key}"]' for key in kept)
    return (
        f'import torch; c = torch.load({str(path)!r}, map_location="cpu", weights_only=False)\n'
        f'torch.save({{"model": c["{model}"], "pruner": {{{pruner}}}}}, "converted.pt")'
    )


def _objects(names: PickleNames) -> str:
    shown = ", ".join(names.foreign[:_SHOWN])
    more = len(names.foreign) - _SHOWN
    return f"{shown} and {more} more" if more > 0 else shown
