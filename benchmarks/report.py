"""Write the measured tables into docs/performance.md.

    python -m benchmarks.report results/*.json

Each file is what a benchmark kept with `--json`; its table and facts go between the page's markers
`<!-- NAME -->` and `<!-- /NAME -->`, NAME being the file's. The text around them stays.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from xlt_ray.report.comparison_tables import grid

PAGE = Path(__file__).resolve().parent.parent / "docs" / "performance.md"


def main(files: Annotated[list[Path], typer.Argument(help="Files of --json.")]) -> None:
    """Replace the tables of the page."""
    page = PAGE.read_text(encoding="utf-8")
    for file in files:
        page = replace(page, file.stem, section(json.loads(file.read_text(encoding="utf-8"))))
    PAGE.write_text(page, encoding="utf-8")


def replace(page: str, name: str, text: str) -> str:
    """Put a text between the markers of a name.

    Raises:
        typer.BadParameter: If the page has no such markers.
    """
    begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    before, found, rest = page.partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise typer.BadParameter(f"{PAGE.name} has no markers {begin} and {end}")
    return f"{before}{begin}\n\n{text}\n\n{end}{after}"


def section(measured: dict[str, Any]) -> str:
    """A benchmark's table and facts as Markdown."""
    rows = measured["rows"]
    table = grid(list(rows[0]), [list(row.values()) for row in rows])
    facts = {key: value for key, value in measured.items() if key not in ("title", "rows")}
    lines = "\n".join(f"- {key[0].upper()}{key[1:]}: {value}." for key, value in facts.items())
    return f"{table}\n\n{lines}"


if __name__ == "__main__":
    typer.run(main)
