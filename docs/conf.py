"""Sphinx settings: every page is checked with ``-W -n``, offline."""

import re
from typing import Any

import pyg_peft

project = "pyg_peft"
author = "the pyg_peft authors"
copyright = "2026, the pyg_peft authors"
version = release = pyg_peft.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.mathjax",
]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"pyg_peft {release}"

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "none"
autodoc_inherit_docstrings = False
autodoc_default_options = {"members": True, "show-inheritance": True}
autoclass_content = "class"

# The sections of our docstrings that Google's style does not know.
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_custom_sections = [
    "Shapes",
    "Symmetries",
    "Differences",
    "Placement",
    "Files",
]
SECTIONS = "|".join([*napoleon_custom_sections, "Args", "Raises", "Example"])
INLINE = re.compile(rf"({SECTIONS}): (.+)")

# Other projects' names are not looked up: that would need their inventories from the network.
nitpick_ignore_regex = [
    (r"py:.*", r"(torch|torch_geometric|numpy|np|nn|lightning|L|pytorch_lightning|matplotlib)\..*"),
    (r"py:.*", r"(jaxtyping|jsonargparse|torchmetrics|plotly)\..*"),
    (r"py:.*", r"(collections|pathlib|abc|enum|typing)\..*"),
    (r"py:.*", r"(Tensor|Module|MessagePassing|Generator|optional|callable|str|int|float|bool)"),
]


def open_inline_sections(
    app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]
) -> None:
    """Turn a section that begins on its heading's line, ``Shapes: x (N, C)``, into a rubric."""
    opened: list[str] = []
    inside = False
    for line in lines:
        found = INLINE.fullmatch(line)
        if found:
            opened += ["", f".. rubric:: {found[1]}", "", found[2]]
            inside = True
        elif inside and line.startswith("    "):
            opened.append(line.strip())
        else:
            if inside and line:
                opened.append("")
            inside = False
            opened.append(line)
    lines[:] = opened


def setup(app: Any) -> None:
    """Run before napoleon, whose priority is 500."""
    app.connect("autodoc-process-docstring", open_inline_sections, priority=100)
