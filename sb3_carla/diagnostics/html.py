"""HTML pages, HTML and Markdown tables, and colours of figures."""

from __future__ import annotations

import html
from collections.abc import Sequence

__all__ = ["COLOURS", "escaped", "html_page", "html_table", "markdown_table"]

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C564B")
"""Okabe and Ito's palette, which suits colour-blind readers; brown replaces its black, invisible on a dark page."""

_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{title}</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 1500px; margin: 1.5rem auto; padding: 0 1rem; }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; display: block; overflow-x: auto; }}
td, th {{ padding: .15rem .8rem; text-align: right; border-bottom: 1px solid #8884; white-space: nowrap; }}
td:first-child, th:first-child {{ text-align: left; }}
figure {{ margin: 0; background: #fff; color: #222; border-radius: 6px; padding: .5rem; }}
svg {{ width: 100%; height: auto; font-family: system-ui, sans-serif; }}
{style}
</style>
<h1>{title}</h1>{body}
</html>
"""


def escaped(value: object) -> str:
    """
    :param value: anything
    :return: ``str(value)``, escaped for HTML
    """
    return html.escape(str(value))


def html_page(title: str, body: str, style: str = "") -> str:
    """
    :param title: title and heading of the page
    :param body: HTML below the heading
    :param style: CSS in addition to the common style
    :return: a complete document, which needs no other file and no network
    """
    return _PAGE.format(title=escaped(title), body=body, style=style)


def html_table(rows: Sequence[Sequence[object]]) -> str:
    """
    :param rows: headings, then the rows of the table
    :return: HTML
    """
    tags = ["th"] + ["td"] * (len(rows) - 1)
    lines = ("".join(f"<{tag}>{escaped(cell)}</{tag}>" for cell in row) for tag, row in zip(tags, rows, strict=True))
    return f"<table>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"


def markdown_table(rows: Sequence[Sequence[str]]) -> str:
    """
    :param rows: headings, then the rows of the table
    :return: Markdown
    """
    lines = [f"| {' | '.join(row)} |" for row in rows]
    lines.insert(1, "|" + " --- |" * len(rows[0]))
    return "\n".join(lines)
