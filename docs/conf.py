"""Sphinx: ``make docs`` writes the site to build/docs. Pages are MyST Markdown, docstrings reST."""

from __future__ import annotations

import inspect
import re
from itertools import groupby
from typing import Any

import sb3_carla

project = "sb3_carla"
author = "sb3_carla contributors"
release = sb3_carla.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "sphinx.ext.viewcode"]
exclude_patterns = ["_templates"]
templates_path = ["_templates"]
html_theme = "furo"
html_title = "sb3_carla"
html_copy_source = False
html_show_copyright = False
html_static_path = ["_static"]
html_css_files = ["site.css"]

myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence"]
autosummary_generate = True
autodoc_typehints_format = "short"
autodoc_member_order = "bysource"
python_maximum_signature_line_length = 100
default_role = "literal"  # single backticks, as the Markdown docstrings have them

DOCSTRING = re.compile(r"^<!-- docstring of (\w+)\.(\w+) -->$", re.MULTILINE)
ROLE = re.compile(r":(func|class|mod|meth|data|attr):`")


def insert_docstrings(app: Any, name: str, source: list[str]) -> None:
    """Put a Markdown docstring in the place of ``<!-- docstring of sb3_carla.CarlaLaneEnv -->``."""

    def text(match: re.Match[str]) -> str:
        docstring = inspect.getdoc(getattr(sb3_carla, match[2])) or ""
        return ROLE.sub(r"{py:\1}`", docstring)

    source[0] = DOCSTRING.sub(text, source[0])


def tables_to_rest(app: Any, kind: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """A reST docstring may hold a Markdown table; a docstring with Markdown headings has a page of its own."""
    if any(line.startswith("## ") for line in lines):
        page = "carla-recorded" if "Recorded" in name else "environment"
        lines[:] = [f"Its class docstring is the :doc:`manual of the environment </{page}>`.", ""]
    rest: list[str] = []
    for is_table, block in groupby(lines, key=lambda line: line.startswith("|")):
        rows = list(block)
        rest += list_table(rows) if is_table else rows
    lines[:] = rest


def list_table(rows: list[str]) -> list[str]:
    """Lines of a Markdown table as a reST list-table."""
    table = [".. list-table::", "   :header-rows: 1", ""]
    for row in (rows[0], *rows[2:]):
        cells = [cell.strip() for cell in row.strip().removeprefix("|").removesuffix("|").split("|")]
        table += [f"   {'  ' if i else '* '}- {cell}".rstrip() for i, cell in enumerate(cells)]
    return [*table, ""]


def setup(app: Any) -> None:
    """Sphinx calls this."""
    app.connect("source-read", insert_docstrings)
    app.connect("autodoc-process-docstring", tables_to_rest)
