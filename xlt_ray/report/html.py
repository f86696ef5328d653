"""A search's results as one page of HTML that needs nothing else: no scripts, no network."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import Any

from rich.table import Table
from rich.text import Text

STYLE = """\
body { font: 15px/1.45 sans-serif; color: #222; margin: 2em auto; max-width: 75em; padding: 0 1em }
h1 { font-size: 1.5em } h2 { font-size: 1.15em; margin-top: 2em }
.wide { overflow-x: auto; margin: 1em 0 }
table { border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums }
caption { text-align: left; font-weight: bold; padding: .4em 0 }
th, td { border-bottom: 1px solid #ddd; padding: .25em .6em; text-align: left; white-space: nowrap }
th { border-bottom: 2px solid #999 } .right { text-align: right } .bold { font-weight: bold }
.note { font-size: 13px; color: #555 } .cyan { background: #eef6fb }
dt { font-weight: bold; float: left; clear: left; width: 9em } dd { margin-left: 9.5em }
code { background: #f3f3f3; padding: 0 .25em; overflow-wrap: anywhere }
figure { margin: 1.5em 0 } figcaption { font-weight: bold; margin-bottom: .4em }
img { max-width: 100% }"""
"""How the project's pages look (CSS)."""

_PAGE = Template("""\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>$title</title>
<style>
$style
</style>
</head>
<body>
<h1>$title</h1>
$summary
$facts
<h2>Results</h2>
$tables
$failures
<h2>Pictures</h2>
$pictures
</body>
</html>
""")


def page(
    title: str,
    summary: str,
    facts: Mapping[str, str],
    tables: Sequence[Table],
    failures: Mapping[str, str],
    pictures: Sequence[Path],
) -> str:
    """Write the page.

    Args:
        title: The search's name.
        summary: A sentence on the outcome, may be empty.
        facts: Texts by what they tell; what is in backquotes is shown as code.
        tables: Tables as the terminal shows them.
        failures: Why trials failed, by label.
        pictures: PNG files, which become part of the page.

    Returns:
        HTML.

    Raises:
        OSError: If a picture cannot be read.
    """
    return _PAGE.substitute(
        title=escape(title),
        style=STYLE,
        summary=f"<p>{escape(summary)}</p>" if summary else "",
        facts=_list(facts),
        tables="\n".join(map(_table, tables)),
        failures=f"<h2>Failed trials</h2>\n{_list(failures)}" if failures else "",
        pictures="\n".join(map(picture, pictures)),
    )


def _list(texts: Mapping[str, str]) -> str:
    items = (f"<dt>{escape(name)}</dt><dd>{_coded(text)}</dd>" for name, text in texts.items())
    return "<dl>\n" + "\n".join(items) + "\n</dl>"


def _coded(text: str) -> str:
    """Show as code what is in backquotes."""
    return re.sub("`([^`]*)`", r"<code>\1</code>", escape(text))


def _table(view: Table) -> str:
    sides = ["right" if column.justify == "right" else "left" for column in view.columns]
    head = "".join(
        f'<th class="{side}">{_cell(column.header)}</th>'
        for side, column in zip(sides, view.columns, strict=True)
    )
    rows = zip(*(column.cells for column in view.columns), strict=True)
    body = "\n".join(
        f'<tr class="{escape(str(row.style or ""))}">'
        + "".join(
            f'<td class="{side}">{_cell(cell)}</td>'
            for side, cell in zip(sides, cells, strict=True)
        )
        + "</tr>"
        for row, cells in zip(view.rows, rows, strict=True)
    )
    note = f'<p class="note">{_cell(view.caption)}</p>\n' if view.caption else ""
    return (
        f'<div class="wide">\n<table>\n<caption>{_cell(view.title or "")}</caption>\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>\n</div>\n{note}"
    )


def _cell(content: Any) -> str:
    """A cell as it reads on the terminal."""
    return escape(Text.from_markup(str(content)).plain)


def picture(path: Path) -> str:
    """A PNG file as a part of a page, named after the file."""
    name = escape(path.stem.replace("-", " "))
    data = base64.b64encode(path.read_bytes()).decode()
    return (
        f"<figure><figcaption>{name}</figcaption>\n"
        f'<img alt="{name}" src="data:image/png;base64,{data}"></figure>'
    )
