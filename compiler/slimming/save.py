"""A slim module as a folder: weights, configuration and masks."""

from __future__ import annotations

import json
import os
from pathlib import Path

from safetensors.torch import save_model
from torch import nn

from ...passes.errors import BundleError
from ...runtime.files import folder_beside, sync
from ...training.masks import MaskSet
from .config import config_of

WEIGHTS, CONFIG, MASKS = "slim.safetensors", "slim.json", "masks.safetensors"


def save_slim(path: str | os.PathLike[str], small: nn.Module, masks: MaskSet) -> None:
    """Write what `sparsefx.slim` returned to a folder, each file atomically.

    Raises BundleError where the folder holds something else, or cannot be written.
    """
    place = Path(path)
    if place.exists() and (not place.is_dir() or (any(place.iterdir()) and not (place / CONFIG).is_file())):
        raise BundleError(f"{place} exists and holds no slim module; choose another path or remove it")
    with folder_beside(place, BundleError) as folder:
        save_model(small, str(folder / WEIGHTS))  # tied parameters once
        masks.save(folder / MASKS)
        (folder / CONFIG).write_text(json.dumps(config_of(small), indent=1))
        sync(folder)
        place.mkdir(parents=True, exist_ok=True)
        for name in (WEIGHTS, MASKS, CONFIG):
            (folder / name).replace(place / name)
