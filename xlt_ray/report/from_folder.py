"""A search's report, written again from its folder: nothing is trained, and Ray is not needed."""

from __future__ import annotations

import io
import shutil
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from xlt_ray.config.loading import load_spec
from xlt_ray.config.task import load_task
from xlt_ray.errors import UserError
from xlt_ray.files import relative, write_whole
from xlt_ray.inference.text_files import check_place
from xlt_ray.report import search_report
from xlt_ray.search import leaderboard
from xlt_ray.search.leaderboard import Entry
from xlt_ray.search.ledger import Ledger
from xlt_ray.search.plan import SearchOutline
from xlt_ray.tracking.recorder import NullRecorder

_READ = ("trials.jsonl", "predictions", "assessment", "accuracy.png")
"""What of a search's folder the report is made of, beside the comparisons' ledgers."""


def check_page(output: Path) -> None:
    """Check that the report could be written.

    Raises:
        UserError: If its ending is another than .html, or its folder does not exist or takes no
            files.
    """
    if output.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"--output {output}: it must end in .html")
    check_place(output)


def rebuild_report(folder: Path, output: Path) -> None:
    """Write a search's report again.

    All is drawn from a copy: the search may be under way, and its ledger has one user at a time.

    Args:
        folder: The search's folder.
        output: The page; replaced if it exists.

    Raises:
        UserError: If the search or its task cannot be read, or no trial was begun.
    """
    spec = load_spec(str(folder / "search.yaml"))
    outline = SearchOutline(spec, load_task(spec.task))
    folder = folder.resolve()
    with tempfile.TemporaryDirectory(prefix="xlt-ray-") as work:
        # By its name, for that is the page's title.
        copy = Path(work) / folder.name
        _copy(folder, copy)
        if not (copy / "trials.jsonl").is_file():
            raise UserError(
                f"--search {relative(folder)}: no trial was begun, so there is nothing to report"
            )
        text = _page(outline, copy, relative(folder))
    write_whole(output, text)


def _copy(folder: Path, copy: Path) -> None:
    """Copy what the report is made of."""
    copy.mkdir()
    comparisons = [path.relative_to(folder) for path in folder.glob("comparison-*/trials.jsonl")]
    for name in (*map(Path, _READ), *comparisons):
        (copy / name).parent.mkdir(exist_ok=True)
        if (folder / name).is_dir():
            shutil.copytree(folder / name, copy / name)
        elif (folder / name).exists():
            shutil.copyfile(folder / name, copy / name)


def _page(outline: SearchOutline, copy: Path, typed: Path) -> str:
    """The page, made in a copy of the folder by what makes it at the end of a search."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    records, quiet = NullRecorder(), Console(file=io.StringIO())
    entries = leaderboard.ranked(
        _entries(copy, {trial.label for trial in outline.fixed_trials()}, search=True)
    )
    winner = leaderboard.best(entries)
    runs: list[Entry] = []
    tables: list[Table] = []
    if outline.repeats:
        tables += search_report.compare_methods(_kept(entries, copy), outline, copy, records, quiet)
    elif outline.spec.search.comparison_seeds and winner is not None:
        place = copy / f"comparison-{winner.label}"
        wanted = {trial.label for trial in outline.comparison_trials(winner.values)}
        runs = _kept(_entries(place, wanted, search=False), copy)
        tables += search_report.compare_methods(runs, outline, copy, records, quiet)
    elif not outline.spec.search.comparison_seeds:
        search_report.draw_search(_kept(entries, copy), outline, copy, records)
    search_report.picture_search(entries, outline, copy, records)
    tables += search_report.correlate_objectives([*entries, *runs], outline, records, quiet)
    search_report.report_search(entries, outline, copy, typed, tables, records)
    page = copy / "report.html"
    if not page.exists():
        raise UserError(f"--search {typed}: the report could not be made, for the reason above")
    return page.read_text(encoding="utf-8")


def _kept(entries: list[Entry], copy: Path) -> list[Entry]:
    """The trials but those that finished and whose predictions are not there yet: they are kept
    when a stage ends."""
    return [
        entry
        for entry in entries
        if entry.status != "finished" or (copy / "predictions" / f"{entry.label}.npz").exists()
    ]


def _entries(place: Path, wanted: set[str], *, search: bool) -> list[Entry]:
    """The trials of a stage.

    Args:
        place: The stage's folder.
        wanted: Labels of its fixed trials.
        search: Whether it has proposals too.
    """
    if not (place / "trials.jsonl").is_file():
        return []
    return [
        leaderboard.entry_of(record)
        for label, record in Ledger(place / "trials.jsonl").records.items()
        if label in wanted or (search and record.trial.proposed)
    ]
