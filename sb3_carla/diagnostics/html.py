"""What pages, tables and figures have in common."""

from __future__ import annotations

import html
from collections.abc import Sequence

__all__ = ["COLOURS", "escaped", "html_page", "html_table", "markdown_table"]

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C564B")
"""Okabe and Ito's, which people with any colour vision tell apart; brown for their black, which is lost on black."""

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
    :return: its text, safe in HTML
    """
    return html.escape(str(value))


def html_page(title: str, body: str, style: str = "") -> str:
    """
    :param title: of the page, and its heading
    :param body: HTML after the heading
    :param style: CSS after what all pages share
    :return: a document that needs no other file and no network
    """
    return _PAGE.format(title=escaped(title), body=body, style=style)


def html_table(rows: Sequence[Sequence[object]]) -> str:
    """
    :param rows: the first one holds the headings
    :return: HTML
    """
    tags = ["th"] + ["td"] * (len(rows) - 1)
    lines = ("".join(f"<{tag}>{escaped(cell)}</{tag}>" for cell in row) for tag, row in zip(tags, rows, strict=True))
    return f"<table>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"


def markdown_table(rows: Sequence[Sequence[str]]) -> str:
    """
    :param rows: the first one holds the headings
    :return: Markdown
    """
    lines = [f"| {' | '.join(row)} |" for row in rows]
    lines.insert(1, "|" + " --- |" * len(rows[0]))
    return "\n".join(lines)
