"""The blocks of code in README and in the pages of docs/."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from markdown_it import MarkdownIt

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]

_NEEDS = "# needs "  # what a block starts with that not every machine can run
_MACHINES: dict[str, Callable[[], bool]] = {
    "an NVIDIA GPU": torch.cuda.is_available,
    "TensorRT": lambda: importlib.util.find_spec("tensorrt") is not None,
    "TensorRT-RTX": lambda: importlib.util.find_spec("tensorrt_rtx") is not None,
    "Torch-TensorRT": lambda: importlib.util.find_spec("torch_tensorrt") is not None,
    "Lightning": lambda: importlib.util.find_spec("lightning") is not None,
    "Accelerate": lambda: importlib.util.find_spec("accelerate") is not None,
    "transformers": lambda: importlib.util.find_spec("transformers") is not None,
    "timm": lambda: importlib.util.find_spec("timm") is not None,
}


@dataclass(frozen=True)
class Block:
    """A fenced block: ```bash run``` has the language bash and the attribute run."""

    page: Path
    line: int  # of the fence, from 1
    language: str
    attributes: tuple[str, ...]
    text: str

    def __str__(self) -> str:
        return f"{name_of(self.page)}:{self.line}"

    @property
    def missing(self) -> str | None:
        """What the block says it needs and this machine lacks; KeyError for a need that is not in the table."""
        first = self.text.split("\n", 1)[0]
        if not first.startswith(_NEEDS):
            return None
        need = first.removeprefix(_NEEDS).split(":")[0].split(",")[0].strip()
        return None if _MACHINES[need]() else need


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks_of(page: Path) -> list[Block]:
    """Every fenced block of a page with a language; directives, as ```{toctree}```, are none."""
    found = []
    for token in MarkdownIt().parse(page.read_text()):
        words = token.info.split()
        if token.type == "fence" and token.map is not None and words and not words[0].startswith("{"):
            found.append(Block(page, token.map[0] + 1, words[0], tuple(words[1:]), token.content))
    return found
