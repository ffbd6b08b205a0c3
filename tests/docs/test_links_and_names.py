"""Links of README lead somewhere, and the reference names what exists; Sphinx checks the rest."""

from __future__ import annotations

import importlib
import re
from typing import Any

import pytest

import sparsefx
from sparsefx.cli.commands import COMMANDS
from tests.docs.pages import PAGES, ROOT, name_of

_LINK = re.compile(r"\]\((?!\w+:)([^)#]+)(?:#[\w-]*)?\)")
_TARGETS = sorted(
    {
        target
        for page in (ROOT / "docs" / "api").glob("*.md")
        for target in re.findall(r"^\.\. auto\w+:: (\S+)$", page.read_text(), re.MULTILINE)
    }
)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_to_files(page: Any) -> None:
    links = _LINK.findall(page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


def _resolve(name: str) -> Any:
    """A module, or a name in one."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        owner, _, attribute = name.rpartition(".")
        return getattr(_resolve(owner), attribute)


@pytest.mark.parametrize("name", _TARGETS)
def test_what_the_reference_names_has_a_docstring(name: str) -> None:
    assert (_resolve(name).__doc__ or "").strip()


def test_every_command_and_error_is_in_the_guide() -> None:
    guide = ROOT / "docs" / "guide"
    rows = (guide / "command-line.md").read_text()
    assert [name for name in COMMANDS if f"`{name}`" not in rows] == []
    errors = [name for name in sparsefx.__all__ if name.endswith("Error") and name != "SparsefxError"]
    rows = (guide / "errors.md").read_text()
    assert errors and [name for name in errors if f"| `{name}` |" not in rows] == []


def test_public_names_are_in_the_reference() -> None:
    assert {"sparsefx", "sparsefx.training"} <= set(_TARGETS)  # these two list their own names
    names = [(module, name) for module in (sparsefx, sparsefx.training) for name in module.__all__]
    assert [name for module, name in names if not (getattr(module, name).__doc__ or "").strip()] == []
