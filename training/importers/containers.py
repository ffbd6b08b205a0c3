"""Files that hold a checkpoint, told by their first bytes: safetensors, and both formats of torch.save."""

from __future__ import annotations

import io
import mmap
import zipfile
import zlib
from pathlib import Path
from typing import IO, Any, cast

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ...passes.errors import MaskError
from ..mask_file import FORMAT
from .pickle_names import PickleNames
from .refusals import SAVE_ALONE, explain_pickle, explain_unloadable

_LEGACY_MAGIC = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."  # what torch.save wrote first before version 1.6
_LONGEST_HEADER = 100_000_000  # of safetensors, whose JSON header follows its length
_NUMPY = "NumPy arrays, which are no checkpoint of PyTorch"


def is_safetensors(head: bytes) -> bool:
    return head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= _LONGEST_HEADER


def is_zip(head: bytes) -> bool:
    return head.startswith(b"PK\x03\x04")


def is_legacy(head: bytes) -> bool:
    return head.startswith(_LEGACY_MAGIC)


def is_pickle(head: bytes) -> bool:
    return head[:1] == b"\x80"


def is_numpy(head: bytes) -> bool:
    return head.startswith(b"\x93NUMPY")


def is_anything(content: object) -> bool:
    return True


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Every tensor of the file; MaskError where it is damaged, or holds masks of sparsefx."""
    try:
        with safe_open(path, framework="pt") as file:
            if (file.metadata() or {}).get("format") == FORMAT:
                raise MaskError("a file of masks without weights; read it with MaskSet.load, or pass it as --masks")
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, it is no mapping
    except (SafetensorError, OSError, AttributeError, TypeError, ValueError) as error:
        raise MaskError(
            f"cannot be read safely as a safetensors file ({error}); it is truncated or damaged, copy it again"
        ) from error


def read_zip(path: Path) -> Any:
    """The content of a torch.save file; MaskError with the reason where it needs more than tensors to be loaded."""
    try:
        with zipfile.ZipFile(path) as archive:
            records = {name.rpartition("/")[2]: name for name in archive.namelist()}
    except (zipfile.BadZipFile, OSError, RuntimeError, ValueError) as error:
        raise MaskError(
            f"cannot be read safely as a torch.save file ({error}); it is truncated or damaged, copy it again"
        ) from error
    _refuse_other_archives(records)
    try:
        return _load_tensors(path)
    except Exception as error:  # torch.load has no error class of its own
        pickled = io.BytesIO(_record(path, records["data.pkl"]))
        raise MaskError(explain_unloadable(path, PickleNames.found_in(pickled, str(error)), error)) from error


def read_legacy(path: Path) -> Any:
    """The content of a torch.save file from before torch 1.6; MaskError as `read_zip`."""
    try:
        return _load_tensors(path)
    except Exception as error:
        raise MaskError(explain_unloadable(path, _names_in(path, str(error)), error)) from error


def refuse_pickle(path: Path) -> Any:
    raise MaskError(explain_pickle(_names_in(path)))


def refuse_numpy(path: Path) -> Any:
    raise MaskError(f"{_NUMPY}; {SAVE_ALONE}")


def refuse_unknown(path: Path) -> Any:
    with open(path, "rb") as file:
        start = file.read(12)
    raise MaskError(f"cannot be read safely: it starts with {start!r}, as no checkpoint does; {SAVE_ALONE}")


def _load_tensors(path: Path) -> Any:
    with open(path, "rb") as file:  # of a path, torch.load would judge the name
        return torch.load(file, map_location="cpu", weights_only=True)


def _refuse_other_archives(records: dict[str, str]) -> None:
    if any(name.endswith(".npy") for name in records):
        raise MaskError(f"{_NUMPY}; {SAVE_ALONE}")
    if "constants.pkl" in records:
        raise MaskError(f"a TorchScript archive, whose code is not loaded; {SAVE_ALONE}")
    if "data.pkl" not in records:
        found = ", ".join(sorted(records)[:3]) or "nothing"
        raise MaskError(f"a zip archive without data.pkl, so not from torch.save (it has {found}); {SAVE_ALONE}")


def _names_in(path: Path, complaint: str = "") -> PickleNames:
    # mapped, because a damaged length would make a file allocate that many bytes before it reads them
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        return PickleNames.found_in(cast(IO[bytes], mapped), complaint)


def _record(path: Path, name: str) -> bytes:
    """A file of a zip archive, or nothing where it is damaged."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.read(name)
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, RuntimeError, ValueError):
        return b""
