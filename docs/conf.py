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
default_role = "code"  # `names` in docstrings
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "show-inheritance": True}
python_use_unqualified_type_names = True

_SPECIAL = re.compile(r"([*|_\\])")


def _as_plain_text(app: Sphinx, what: str, name: str, documented: object, options: object, lines: list[str]) -> None:
    """Docstrings are plain text with `code`, and indented programs behind a colon: neither is markup to be guessed."""
    for i, line in enumerate(lines):
        parts = line.split("`")
        lines[i] = "`".join(part if k % 2 else _SPECIAL.sub(r"\\\1", part) for k, part in enumerate(parts))
    for i, line in enumerate(lines[:-2]):
        if line.endswith(":") and not lines[i + 1] and lines[i + 2].startswith("    "):
            lines[i] += ":"


def setup(app: Sphinx) -> None:
    app.connect("autodoc-process-docstring", _as_plain_text)
