"""Mask files: one safetensors file with bit-packed masks and JSON in its header. Nothing is ever unpickled."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from ..passes.errors import MaskError
from ..runtime.files import write_whole
from .packed_mask import PackedMask

FORMAT = "sparsefx.masks"
SCHEMA = 1
_KEYS = {"method", "step", "settings", "versions", "parameters"}


def write_mask_file(path: Path, packed: Mapping[str, PackedMask], header: Mapping[str, Any]) -> None:
    """Write masks and their JSON header; `header["parameters"]` has one entry per mask, in order.

    The file appears whole or not at all: it is written under a temporary name in the same folder, synced and moved.
    """
    described = [
        {**entry, "shape": list(mask.shape), "sha256": _digest(name, mask)}
        for entry, (name, mask) in zip(header["parameters"], packed.items(), strict=True)
    ]
    text = json.dumps({**header, "parameters": described}, allow_nan=False)
    metadata = {"format": FORMAT, "schema": str(SCHEMA), "masks": text}
    write_whole(path, save({name: mask.bits for name, mask in packed.items()}, metadata), MaskError)


def read_mask_file(path: Path) -> tuple[dict[str, PackedMask], dict[str, Any]]:
    """Masks by name, in order, and the JSON header. MaskError where the file is not exactly what was written."""
    header = _read_header(path, _read_metadata(path))
    tensors = _read_tensors(path)
    entries = header["parameters"]
    named, stored = [entry["name"] for entry in entries], set(tensors)
    if len(set(named)) != len(named):
        raise MaskError(f"{path}: its metadata names a parameter twice; save the masks again")
    if stored - set(named):
        extra = sorted(stored - set(named))[0]
        raise MaskError(f"{path}: holds a mask of {extra} that its metadata does not name; save the masks again")
    return {entry["name"]: _packed(path, entry, tensors) for entry in entries}, header


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """The open safetensors file; its own errors become a MaskError with the path."""
    if path.is_dir():
        raise MaskError(f"{path} is a folder; expected a mask file as MaskSet.save writes it, such as one in it")
    if not path.is_file():
        raise MaskError(f"{path}: no such file; expected a mask file as MaskSet.save writes it")
    try:
        with safe_open(path, framework="numpy") as file:
            yield file
    except (SafetensorError, OSError, TypeError, AttributeError) as error:
        raise MaskError(
            f"{path}: not a readable safetensors file ({error}); it is truncated, damaged or something else. "
            "Save the masks again with MaskSet.save"
        ) from error


def _read_metadata(path: Path) -> dict[str, str]:
    with _opened(path) as file:
        return dict(file.metadata() or {})


def _read_tensors(path: Path) -> dict[str, NDArray[Any]]:
    with _opened(path) as file:
        names = file.keys()
        return {name: file.get_tensor(name) for name in names}


def _read_header(path: Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    if metadata.get("format") != FORMAT:
        raise MaskError(
            f"{path}: a safetensors file, but no mask file (format {metadata.get('format')!r}, expected {FORMAT!r}). "
            "For the weights of a sparse model use MaskSet.from_zeros"
        )
    schema = metadata.get("schema", "")
    if not schema.isdigit():
        raise MaskError(f"{path}: schema version {schema!r} is no number; save the masks again")
    if int(schema) > SCHEMA:
        raise MaskError(
            f"{path}: written in schema version {schema}, this sparsefx reads up to {SCHEMA}; upgrade sparsefx"
        )
    try:
        header = json.loads(metadata["masks"])
    except (KeyError, json.JSONDecodeError) as error:
        raise MaskError(f"{path}: its metadata is no JSON ({error}); save the masks again") from error
    _check_header(path, header)
    assert isinstance(header, dict)
    return header


def _check_header(path: Path, header: Any) -> None:
    """Types of everything that is read from the header."""
    if not isinstance(header, dict) or set(header) != _KEYS:
        raise MaskError(f"{path}: expected metadata with {', '.join(sorted(_KEYS))}; save the masks again")
    types = {"method": str, "step": int | None, "settings": dict, "versions": dict, "parameters": list}
    wrong = next((key for key, kind in types.items() if not isinstance(header[key], kind)), None)
    if wrong:
        raise MaskError(f"{path}: {wrong} in its metadata is a {type(header[wrong]).__name__}; save the masks again")
    for entry in header["parameters"]:
        whole = isinstance(entry, dict) and {"name", "shape", "sha256", "structure"} == set(entry)
        if not whole or not isinstance(entry["name"], str) or not _is_shape(entry["shape"]):
            raise MaskError(f"{path}: the parameter entry {entry!r} is incomplete; save the masks again")


def _is_shape(value: Any) -> bool:
    return isinstance(value, list) and all(type(size) is int and size >= 0 for size in value)


def _packed(path: Path, entry: Mapping[str, Any], tensors: Mapping[str, NDArray[Any]]) -> PackedMask:
    """The mask of one parameter, checked byte by byte against its description."""
    name, shape = entry["name"], tuple(entry["shape"])
    if name not in tensors:
        raise MaskError(f"{path}: names {name}, but holds no mask of it; save the masks again")
    bits, size = tensors[name], prod(shape)
    expected = (size + 7) // 8
    if bits.dtype != np.uint8 or bits.shape != (expected,):
        raise MaskError(
            f"{path}: the mask of {name} is {bits.dtype} of shape {bits.shape}; its shape {shape} takes "
            f"{expected} bytes. Save the masks again"
        )
    if size % 8 and bits[-1] & (0xFF >> size % 8):
        raise MaskError(f"{path}: the mask of {name} has bits set behind its last weight; save the masks again")
    bits.flags.writeable = False
    mask = PackedMask(shape, bits, int(np.unpackbits(bits).sum()))
    if _digest(name, mask) != entry["sha256"]:
        raise MaskError(f"{path}: the mask of {name} does not match its checksum; the file is damaged, save it again")
    return mask


def _digest(name: str, mask: PackedMask) -> str:
    return hashlib.sha256(f"{name}{list(mask.shape)}".encode() + mask.bits.tobytes()).hexdigest()
