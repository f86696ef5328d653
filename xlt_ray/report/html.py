"""HTML pages that need nothing else: no scripts, no network. Report and trial page use them."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

_MOST_CHARACTERS = 1000
"""The longest text on a page; a model reads only a few characters more."""


def render(template: str, **values: Any) -> str:
    """Return a page from one of the package's templates; all values are escaped.

    Args:
        template: The name of a file in `templates/`.
        values: The variables of the template.

    Returns:
        HTML.
    """
    return _environment().get_template(template).render(values)


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("xlt_ray.report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=StrictUndefined,
    )
    environment.filters |= {"code": _coded, "percent": _percent, "shortened": _shortened}
    return environment


def page(
    title: str,
    summary: str,
    facts: Mapping[str, str],
    tables: Sequence[Table],
    failures: Mapping[str, str],
    pictures: Sequence[Path],
) -> str:
    """Return the report of a search.

    Args:
        title: The search's name.
        summary: A sentence on the outcome; may be empty.
        facts: Texts by heading; text in backquotes is shown as code.
        tables: The tables as the terminal shows them.
        failures: Why trials failed, by label.
        pictures: PNG files, which are embedded in the page.

    Returns:
        HTML.

    Raises:
        OSError: If a picture cannot be read.
    """
    return render(
        "search.html.j2",
        title=title,
        summary=summary,
        facts=facts,
        tables=[_table(view) for view in tables],
        failures=failures,
        pictures=[picture(path) for path in pictures],
    )


def picture(path: Path) -> dict[str, str]:
    """Return a PNG file for the templates: its name and its content in base64.

    Args:
        path: The file.

    Raises:
        OSError: If it cannot be read.
    """
    data = base64.b64encode(path.read_bytes()).decode()
    return {"name": path.stem.replace("-", " "), "data": data}


def _table(view: Table) -> dict[str, Any]:
    """Return a rich table for the template, as plain texts."""
    sides = ["right" if column.justify == "right" else "left" for column in view.columns]

    def cells(contents: Sequence[Any]) -> list[dict[str, str]]:
        return [
            {"side": side, "text": _plain(content)}
            for side, content in zip(sides, contents, strict=True)
        ]

    rows = zip(*(column.cells for column in view.columns), strict=True)
    return {
        "title": _plain(view.title or ""),
        "caption": _plain(view.caption or ""),
        "header": cells([column.header for column in view.columns]),
        "rows": [
            {"style": str(row.style or ""), "cells": cells(contents)}
            for row, contents in zip(view.rows, rows, strict=True)
        ],
    }


def _plain(content: Any) -> str:
    """Return a cell as the terminal shows it, without its markup."""
    return Text.from_markup(str(content)).plain


def _coded(text: str) -> Markup:
    """Show text in backquotes as code."""
    from markupsafe import Markup, escape

    return Markup(re.sub("`([^`]*)`", r"<code>\1</code>", str(escape(text))))


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"


def _shortened(text: str) -> str:
    return text if len(text) <= _MOST_CHARACTERS else f"{text[:_MOST_CHARACTERS]}…"
