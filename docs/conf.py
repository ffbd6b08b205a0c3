"""How Sphinx builds these pages: `sphinx-build -W docs site`."""

from __future__ import annotations

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
