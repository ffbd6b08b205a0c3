"""Checkpoints in several files, with an index that says which tensor is in which, as transformers writes them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from torch import Tensor

from ...passes.errors import MaskError

# What transformers calls the files of a model's folder, the preferred one first.
_IN_FOLDERS = (
    "model.safetensors.index.json",
    "model.safetensors",
    "pytorch_model.bin.index.json",
    "pytorch_model.bin",
)
_SHOWN = 3


def checkpoint_in(folder: Path) -> Path:
    """The checkpoint (or index) in a folder that transformers wrote; MaskError where there is none."""
    found = next((folder / name for name in _IN_FOLDERS if (folder / name).is_file()), None)
    if found is None:
        raise MaskError(f"{folder} is a directory without {', '.join(_IN_FOLDERS[:2])}; name the checkpoint file in it")
    return found


def is_index(head: bytes) -> bool:
    return head.lstrip()[:1] == b"{"


def read_shards(path: Path, read_file: Callable[[Path], Any]) -> dict[str, Tensor]:
    """The tensors of all files that an index names, each read by `read_file`.

    Raises MaskError for an index without `weight_map`, a file that is missing or lies elsewhere, and a tensor that is
    not where the index says.
    """
    where = _weight_map(path)
    tensors: dict[str, Tensor] = {}
    for name in sorted(set(where.values())):
        content = _read(path.parent / name, read_file)
        wanted = [tensor for tensor, file in where.items() if file == name]
        _check_complete(name, wanted, content)
        tensors |= {tensor: content[tensor] for tensor in wanted}
    return {name: tensors[name] for name in where}


def _weight_map(path: Path) -> dict[str, str]:
    try:
        index = json.loads(path.read_text())
    except (ValueError, OSError) as error:
        raise MaskError(f"no index of shards: it is not JSON ({error})") from error
    where = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(where, dict) or not where or not all(isinstance(v, str) for v in where.values()):
        raise MaskError('JSON without "weight_map": expected an index of shards, as model.safetensors.index.json')
    outside = next((file for file in where.values() if Path(file).name != file), None)
    if outside is not None:
        raise MaskError(f"the index names {outside!r}; files of a sharded checkpoint lie beside their index")
    return where


def _read(path: Path, read_file: Callable[[Path], Any]) -> dict[str, Any]:
    if not path.is_file():
        raise MaskError(f"the index names {path.name}, which is not beside it; copy all files of the checkpoint")
    content = read_file(path)
    if not isinstance(content, dict):
        raise MaskError(f"{path.name} holds a {type(content).__name__}; expected names and tensors")
    return content


def _check_complete(file: str, wanted: Iterable[str], content: dict[str, Any]) -> None:
    missing = [name for name in wanted if name not in content]
    if missing:
        shown = ", ".join(missing[:_SHOWN]) + (f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else "")
        raise MaskError(
            f"{file} has no tensor {shown}, which the index says it has; the files are not of one checkpoint"
        )
