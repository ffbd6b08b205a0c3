"""Checkpoints and weights of a training: files written whole or not at all, loaded without unpickling code."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import nn

from ...passes.errors import SparsefxError
from ...runtime.files import write_whole

CHECKPOINT = "checkpoint.pt"
FORMAT = "sparsefx.training"
SCHEMA = 1
_KEYS = {"format", "schema", "config", "epoch", "batch", "model", "optimizer", "schedule", "random", "log"}


def write_checkpoint(path: Path, content: dict[str, Any]) -> None:
    """`content` has the keys of a checkpoint but for format and schema; tensors, numbers, strings, dicts and lists."""
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, "schema": SCHEMA, **content}, buffer)
    write_whole(path, buffer.getvalue())


def write_weights(path: Path, model: nn.Module) -> None:
    """The state dict of a model as a safetensors file."""
    write_whole(path, save({name: tensor.contiguous() for name, tensor in model.state_dict().items()}))


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Raises SparsefxError for a file that is missing, damaged, something else, or from a newer version."""
    if not path.is_file():
        raise SparsefxError(f"there is no checkpoint {path}; start the training without --resume")
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise SparsefxError(f"{path} is no readable checkpoint ({first}); start the training again") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise SparsefxError(f"{path} is no checkpoint of `sparsefx train`; start the training again")
    if content["schema"] > SCHEMA:
        raise SparsefxError(f"{path} has schema {content['schema']}, this sparsefx reads up to {SCHEMA}; upgrade it")
    if set(content) != _KEYS:
        raise SparsefxError(f"{path} lacks {sorted(_KEYS - set(content))}; it is damaged, start the training again")
    return content
