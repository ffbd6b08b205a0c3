"""Which file is which: one table of containers, one of layouts, both searched from the top."""

from __future__ import annotations

from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import Any

from torch import Tensor

from ...passes.errors import MaskError
from ..masks import MaskSet
from .checkpoint import Checkpoint
from .containers import (
    is_anything,
    is_legacy,
    is_numpy,
    is_pickle,
    is_safetensors,
    is_zip,
    read_legacy,
    read_safetensors,
    read_zip,
    refuse_numpy,
    refuse_pickle,
    refuse_unknown,
)
from .rigl_torch import is_rigl_torch, read_rigl_torch
from .shards import checkpoint_in, is_index, read_shards
from .srigl import is_srigl, read_srigl
from .torch_prune import is_pruned, read_pruned
from .zeros import is_nested, read_zeros

Container = tuple[str, Callable[[bytes], bool], Callable[[Path], Any]]
Layout = tuple[str, Callable[[Any], bool], Callable[[Any], tuple[dict[str, Tensor], MaskSet]]]

# name, recogniser of the first bytes, reader of the whole file
CONTAINERS: tuple[Container, ...] = (
    ("safetensors file", is_safetensors, read_safetensors),
    ("torch.save file", is_zip, read_zip),
    ("torch.save file", is_legacy, read_legacy),
    ("sharded checkpoint", is_index, lambda path: read_shards(path, _content)),
    ("pickle", is_pickle, refuse_pickle),
    ("NumPy file", is_numpy, refuse_numpy),
    ("unknown file", is_anything, refuse_unknown),
)

# name, recogniser of what the container held, reader of weights and masks
LAYOUTS: tuple[Layout, ...] = (
    ("SRigL: backward_masks with module_names", is_srigl, read_srigl),
    ("rigl-torch: backward_masks in order of definition", is_rigl_torch, read_rigl_torch),
    ("torch.nn.utils.prune: weight_orig with weight_mask", is_pruned, read_pruned),
    ("zeros in the weights of a training checkpoint", is_nested, read_zeros),
    ("zeros in the weights of a state dict", is_anything, read_zeros),
)


def read_checkpoint(path: str | PathLike[str]) -> Checkpoint:
    """Weights and masks of a checkpoint, whatever its name; MaskError with the file, what was found and what to do.

    Read are the layouts of rigl-torch, SRigL (converted, as the error for an unconverted one tells),
    torch.nn.utils.prune, and any state dict, nested or not, whose zeros are the mask (Chase, GraNet, sparse_learning,
    HALP). A checkpoint without a zero has no masks. No code from the file runs. A checkpoint in several files is named
    by its index (model.safetensors.index.json), or by the folder that transformers wrote.
    """
    path = Path(path)
    if path.is_dir():
        path = checkpoint_in(path)
    head = _first_bytes(path)
    try:
        container, _, open_file = next(row for row in CONTAINERS if row[1](head))
        content = open_file(path)
        layout, _, read = next(row for row in LAYOUTS if row[1](content))
        weights, masks = read(content)
    except MaskError as error:
        raise MaskError(f"{path}: {error}") from error
    except NotImplementedError as error:
        raise MaskError(f"{path}: torch cannot compute with its tensors ({error}); save them as float32") from error
    return Checkpoint(weights, masks, f"{layout}, in a {container}")


def _content(path: Path) -> Any:
    """What one file of several holds."""
    head = _first_bytes(path)
    return next(open_file for _, recognises, open_file in CONTAINERS if recognises(head))(path)


def _first_bytes(path: Path) -> bytes:
    if not path.is_file():
        raise MaskError(f"there is no weights file {path}")
    try:
        with open(path, "rb") as file:
            head = file.read(64)
    except OSError as error:
        raise MaskError(f"{path} cannot be opened: {error.strerror}") from error
    if not head:
        raise MaskError(f"{path} is empty; save the checkpoint again")
    return head
