"""Rebuild a search's report from its folder, without training and without Ray. The CLI calls it."""

from __future__ import annotations

import io
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from xlt_ray.config.loading import load_spec
from xlt_ray.config.task import task_of
from xlt_ray.errors import UserError
from xlt_ray.files import relative, write_whole
from xlt_ray.inference.text_files import check_place
from xlt_ray.names import LEDGER, LEDGER_FILE, STATE, VERDICT
from xlt_ray.report import confirmation
from xlt_ray.report.search_report import STAGE as COMPARISON
from xlt_ray.report.search_report import SearchReport
from xlt_ray.search import leaderboard
from xlt_ray.search.leaderboard import Entry
from xlt_ray.search.ledger import Ledger
from xlt_ray.search.plan import SearchOutline
from xlt_ray.search.soup_recipes import FILE as SOUPS
from xlt_ray.search.soup_recipes import is_of_search, read_soups, soup_entry
from xlt_ray.search.trials import Trial
from xlt_ray.search.verdict import Verdict, search_verdict
from xlt_ray.tracking.recorder import NullRecorder

_READ = (
    *(LEDGER, "predictions", "assessment", "accuracy.png"),
    *(SOUPS, confirmation.FILE, VERDICT),
    f"{STATE}/{COMPARISON}/{LEDGER_FILE}",
)
"""Parts of a search's folder that the report needs."""


def check_page(output: Path) -> None:
    """Check that a report can be written to a file.

    Args:
        output: The file.

    Raises:
        UserError: If the file does not end in .html, or its folder does not exist or is read-only.
    """
    if output.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"--output {output}: it must end in .html")
    check_place(output)


def rebuild_report(folder: Path, output: Path) -> None:
    """Write the report of a search again.

    The report is made in a copy of the folder: the search may be running, and only one process may
    use a ledger at a time.

    Args:
        folder: The search's folder.
        output: The HTML file to write or replace.

    Raises:
        UserError: If the search or its task cannot be read, or no trial has started.
    """
    spec = load_spec(str(folder / "search.yaml"))
    outline = SearchOutline(spec, task_of(spec.model_copy(update={"data_dir": None})))
    folder = folder.resolve()
    with tempfile.TemporaryDirectory(prefix="xlt-ray-") as work:
        # The name of the folder is the title of the page.
        copy = Path(work) / folder.name
        _copy(folder, copy)
        if not (copy / LEDGER).is_file():
            raise UserError(
                f"--search {relative(folder)}: no trial has started, so there is nothing to report"
            )
        text = _page(outline, copy, relative(folder))
    write_whole(output, text)


def _copy(folder: Path, copy: Path) -> None:
    """Copy what the report needs."""
    copy.mkdir()
    for name in _READ:
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        if (folder / name).is_dir():
            shutil.copytree(folder / name, copy / name)
        elif (folder / name).exists():
            shutil.copyfile(folder / name, copy / name)


def _page(outline: SearchOutline, copy: Path, typed: Path) -> str:
    """Make the report in a copy of the folder, in the same steps as at the end of a search."""
    import optuna

    def recorded(fixed: Sequence[Trial], name: str = "") -> list[Entry]:
        ledger = copy / STATE / name / LEDGER_FILE
        return leaderboard.stage_entries(Ledger(ledger), fixed) if ledger.is_file() else []

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    found = read_soups(copy) if outline.spec.search.soups else {}
    soups = [soup_entry(*one) for one in found.items() if is_of_search(*one)]
    trials = recorded(outline.fixed_trials())
    trials += leaderboard.earlier_baselines(Ledger(copy / LEDGER), outline)
    entries = leaderboard.ranked([*trials, *soups])
    quiet = Console(file=io.StringIO())
    if (copy / VERDICT).exists():
        verdict: Verdict | None = Verdict.read(copy / VERDICT)
    else:
        verdict = search_verdict(entries, copy, outline.task.target_languages)
    report = SearchReport(outline, copy, typed, NullRecorder(), quiet, entries, verdict)
    report.draw()
    report.compare(recorded)
    report.write()
    page = copy / "report.html"
    if not page.exists():
        raise UserError(f"--search {typed}: the report could not be made, for the reason above")
    return page.read_text(encoding="utf-8")
