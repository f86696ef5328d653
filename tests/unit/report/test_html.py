"""The report is one page that has everything and needs nothing."""

from __future__ import annotations

import base64
from html.parser import HTMLParser
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from tests.support.search_results import LANGUAGES, OBJECTIVE, PARAMETERS, search
from xlt_ray.report import tables as report_tables
from xlt_ray.report.html import page

# A picture of one pixel.
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNkYAAAAAYAAjCB0C8AAAAASUVORK5CYII="
)


class Page(HTMLParser):
    """What a browser would find in a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.rows: list[list[str]] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in ("meta", "img"):
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" in self.open:
            return
        self.text += data
        if self.open and self.open[-1] in ("td", "th"):
            self.rows[-1][-1] += data


def write(folder: Path) -> str:
    (folder / "learning-curves.png").write_bytes(PNG)
    further = Table(title="Difference <of> methods", caption="read & think")
    further.add_column("method")
    further.add_row(escape("[+0.1, -0.2]"))
    board = report_tables.leaderboard_table(search(12), OBJECTIVE, list(PARAMETERS), LANGUAGES)
    return page(
        title="demo <1>",
        summary="Best: 06, +1.0 points",
        facts={"Task": "demo, en → de", "Go on": "`python launch.py --resume runs/a&b`"},
        tables=[board, further],
        failures={"05": "ValueError: <script>alert(1)</script>"},
        pictures=[folder / "learning-curves.png"],
    )


def test_the_page_has_every_trials_row_as_the_table_does(tmp_path: Path) -> None:
    entries = search(12)
    found = Page(write(tmp_path))
    header, *rows = found.rows[: len(entries) + 1]
    assert header[:2] == ["rank", "trial"] and header[-len(LANGUAGES) :] == list(LANGUAGES)
    assert [row[1] for row in rows] == [entry.label for entry in entries]
    for row, entry in zip(rows, entries, strict=True):
        shown = dict(zip(header, row, strict=True))
        for code in LANGUAGES:
            accuracy = entry.test.get(f"accuracy/{code}")
            assert shown[code] == ("" if accuracy is None else f"{100 * accuracy:.1f}")
    assert found.rows[len(entries) + 1 :] == [["method"], ["[+0.1, -0.2]"]]


def test_the_page_says_all_it_is_given(tmp_path: Path) -> None:
    text = Page(write(tmp_path)).text
    for said in (
        "demo <1>",
        "Best: 06, +1.0 points",
        "demo, en → de",
        "python launch.py --resume runs/a&b",
        "Difference <of> methods",
        "read & think",
        "<script>alert(1)</script>",
        "learning curves",
    ):
        assert said in text
    assert "`" not in text


def test_the_page_needs_nothing_else(tmp_path: Path) -> None:
    html = write(tmp_path)
    found = Page(html)
    assert not {"script", "link", "iframe", "object", "base"} & set(found.tags)
    assert "http" not in html and "url(" not in html and "@import" not in html
    (source,) = (value for name, value in found.attributes if name in ("src", "href"))
    assert source is not None
    kind, _, data = source.partition(",")
    assert kind == "data:image/png;base64" and base64.b64decode(data) == PNG
    assert not [name for name, _ in found.attributes if name.startswith("on")]
