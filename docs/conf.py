"""How Sphinx builds these pages: `sphinx-build -W docs site`."""

from __future__ import annotations

import re

from sphinx.application import Sphinx

import sparsefx

project = "sparsefx"
author = "the sparsefx authors"
copyright = author
version = release = sparsefx.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.viewcode"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"sparsefx {version}"
pygments_style, pygments_dark_style = "tango", "monokai"

myst_heading_anchors = 3
autodoc_inherit_docstrings = False  # those of torch.fx are markup of another kind
default_role = "code"  # `names` in docstrings
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "show-inheritance": True}
python_use_unqualified_type_names = True

_SPECIAL = re.compile(r"([*|_\\])")


def _as_plain_text(app: Sphinx, what: str, name: str, documented: object, options: object, lines: list[str]) -> None:
    """Docstrings are paragraphs with `code` in them, lists with a dash, and indented programs behind a colon."""
    found: list[str] = []
    indent, program = "", False
    for line in lines:
        text = line.strip()
        begins = not found or not found[-1].strip()  # a paragraph
        if begins and text:
            deeper = line.startswith(indent + "    ")
            opens = deeper and len(found) > 1 and found[-2].endswith(":")
            if opens:
                found[-2] += ":"
            program = opens or (program and deeper)
            indent = indent if program else line[: len(line) - len(line.lstrip())]
        if program:
            found.append(line)
            continue
        if text.startswith("- ") and not begins:
            found.append("")
        behind = "" if begins or text.startswith("- ") else "  " * _is_item(found)
        found.append(indent + behind + _escaped(text) if text else "")
    lines[:] = found


def _is_item(found: list[str]) -> bool:
    """Whether the paragraph that these lines end with is an item of a list."""
    last = next((i for i in range(len(found) - 1, -1, -1) if not found[i].strip()), -1)
    return found[last + 1].lstrip().startswith("- ")


def _escaped(text: str) -> str:
    """Nothing but `code` is markup."""
    parts = text.split("`")
    return "`".join(part if k % 2 else _SPECIAL.sub(r"\\\1", part) for k, part in enumerate(parts))


def setup(app: Sphinx) -> None:
    app.connect("autodoc-process-docstring", _as_plain_text)
