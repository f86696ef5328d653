"""A search's report, made of what MLflow has of it: the search's folder is not needed."""

from __future__ import annotations

import contextlib
import io
import json
import tempfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from xlt_ray.config.loading import load_spec
from xlt_ray.config.spec import SearchSpec
from xlt_ray.config.task import TaskSpec, load_task
from xlt_ray.errors import UserError, nearest
from xlt_ray.evaluation import comparison
from xlt_ray.evaluation.intervals import Accuracy, Difference
from xlt_ray.files import write_whole
from xlt_ray.names import VIRTUAL, ZERO_SHOT_MEAN
from xlt_ray.report import comparison_tables, search_report
from xlt_ray.search import leaderboard, summary
from xlt_ray.search.leaderboard import Entry
from xlt_ray.search.plan import SearchOutline
from xlt_ray.search.trials import Trial, TrialStatus
from xlt_ray.tracking.client import check_begun, check_tracking, in_one_line, open_client
from xlt_ray.tracking.courier import RUN_KEY_TAG
from xlt_ray.tracking.recorder import NullRecorder

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient

_RECORDED = (
    *("search.yaml", "leaderboard.json", "comparison-runs.json", "comparison.json"),
    *("pictures", "assessment"),
)
"""What of a search's artifacts in MLflow it is made of."""

_NAMED = 20
"""Searches that a message names at most."""


def report_recorded(uri: str, experiment: str, search: str | None, output: Path) -> list[str]:
    """Write the report of a search that MLflow has; its folder is not needed.

    The tables are made anew from the recorded results. The pictures are those that the search
    recorded: what they are drawn from, such as every evaluation and every prediction, is in its
    folder only.

    Args:
        uri: MLflow tracking URI.
        experiment: Name of the experiment.
        search: Name or id of the search's run; None: the latest that finished.
        output: The page; replaced if it exists.

    Returns:
        What belongs to the report and MLflow does not have, such as `pictures`.

    Raises:
        UserError: If MLflow does not answer, there is no such search, or no outcome of it was
            recorded.
    """
    check_tracking(uri)
    check_begun(uri)
    with tempfile.TemporaryDirectory(prefix="xlt-ray-") as work:
        folder = Path(work)
        with _asking(uri):
            client = open_client(uri)
            run = _find_run(client, experiment, search)
            _download(client, run, folder)
        text, missing = _recorded_page(run, experiment, folder)
    write_whole(output, text)
    return missing


@contextlib.contextmanager
def _asking(uri: str) -> Iterator[None]:
    """Tell in one line what goes wrong with MLflow, whose stores raise errors of any kind."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"tracking URI: {in_one_line(error, uri)}") from None


def _find_run(client: MlflowClient, experiment: str, search: str | None) -> Run:
    """The run of a search; arguments as of :func:`report_recorded`."""
    found = client.get_experiment_by_name(experiment)
    if found is None or found.lifecycle_stage == "deleted":
        names = [one.name for one in client.search_experiments(max_results=_NAMED)]
        raise UserError(
            f"--experiment {experiment}: MLflow has no experiment of this name"
            f"{nearest(experiment, names)}"
        )
    for run in _searches(client, found.experiment_id):
        if search in (run.info.run_id, run.info.run_name) or (
            search is None and run.info.status == "FINISHED"
        ):
            return run
    latest = list(islice(_searches(client, found.experiment_id), _NAMED))
    if search is not None:
        names = [run.info.run_name for run in latest]
        raise UserError(
            f"--search {search}: the experiment '{experiment}' has no search of this name or id"
            f"{nearest(search, names)}"
        )
    stopped = [run.info.run_name for run in latest if run.info.status != "RUNNING"]
    others = f"; --search NAME reports on one that was stopped: {', '.join(stopped)}"
    raise UserError(
        f"--experiment {experiment}: no search in it has finished{others if stopped else ''}"
    )


def _searches(client: MlflowClient, experiment_id: str) -> Iterator[Run]:
    """The runs of an experiment that are searches, the latest first."""
    from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

    token: str | None = None
    while True:
        page = client.search_runs(
            [experiment_id],
            max_results=200,
            order_by=["attributes.start_time DESC"],
            page_token=token,
        )
        for run in page:
            if RUN_KEY_TAG in run.data.tags and MLFLOW_PARENT_RUN_ID not in run.data.tags:
                yield run
        token = page.token
        if not token:
            return


def _download(client: MlflowClient, run: Run, folder: Path) -> None:
    """Fetch what the report is made of, and put it where a search's folder has it."""
    there = {file.path for file in client.list_artifacts(run.info.run_id)}
    for name in _RECORDED:
        if name in there:
            client.download_artifacts(run.info.run_id, name, str(folder))
    if not {"search.yaml", "leaderboard.json"} <= there:
        raise UserError(
            f"--search {run.info.run_name}: no outcome of it is in MLflow yet, or its artifacts "
            "are on another machine; while it is under way its folder has what there is"
        )
    accuracy = folder / "pictures" / "accuracy.png"
    if accuracy.exists():
        accuracy.rename(folder / accuracy.name)


def _recorded_page(run: Run, experiment: str, folder: Path) -> tuple[str, list[str]]:
    """The page from downloaded artifacts, and what they lack."""
    try:
        spec = load_spec(str(folder / "search.yaml"))
    except UserError as error:
        # As an artifact it has no path.
        told = str(error).replace(f"{folder}/", "")
        raise UserError(f"--search {run.info.run_name}: {told}") from None
    entries = _recorded_entries(folder / "leaderboard.json")
    outline = SearchOutline(spec, _recorded_task(run, spec, entries))
    runs: list[Entry] = []
    tables: list[Table] = []
    if spec.search.comparison_seeds and (folder / "comparison.json").exists():
        tables += comparison_tables.tables(_recorded_comparison(folder / "comparison.json"))
        if not outline.repeats:
            runs = _recorded_entries(folder / "comparison-runs.json")
    tables += search_report.correlate_objectives(
        [*entries, *runs], outline, NullRecorder(), Console(file=io.StringIO())
    )
    missing = _missing(folder, spec, entries)
    facts = _recorded_facts(run, experiment, outline, entries)
    if missing:
        facts["Not in MLflow"] = ", ".join(missing)
    text = search_report.report_page(run.info.run_name, entries, outline, folder, facts, tables)
    return text, missing


def _recorded_entries(file: Path) -> list[Entry]:
    """The trials in a written leaderboard; none if there is no file."""
    if not file.exists():
        return []
    entries = []
    for row in json.loads(file.read_text(encoding="utf-8")):
        sections: dict[str, Any] = {"test": {}, "selected": {}, "seconds": {}}
        own = {}
        for column, value in row.items():
            section, _, name = column.partition("/")
            if section in sections:
                sections[section][name] = value
            else:
                own[column] = value
        known: dict[str, Any] = {name: own.pop(name) for name in ("objective", "reason", "rank")}
        status = TrialStatus(own.pop("status"))
        trial = Trial.labelled(own.pop("trial"), own)
        entries.append(Entry(trial, status, **known, **sections))
    return entries


def _recorded_task(run: Run, spec: SearchSpec, entries: list[Entry]) -> TaskSpec:
    """What the report tells of the task, from the scores: its file may be on another machine."""
    scored = dict.fromkeys(
        metric.removeprefix("accuracy/")
        for entry in entries
        for metric in (*entry.selected, *entry.test)
        if metric.startswith("accuracy/")
    )
    source = next((name.removesuffix(VIRTUAL) for name in scored if name.endswith(VIRTUAL)), None)
    if source is None:
        return load_task(spec.task)
    others = (source, source + VIRTUAL, "mean", ZERO_SHOT_MEAN)
    return TaskSpec.model_construct(
        name=run.data.tags.get("task", spec.task),
        source_language=source,
        target_languages=tuple(name for name in scored if name not in others),
    )


def _recorded_comparison(file: Path) -> comparison.Comparison:
    """What :func:`xlt_ray.report.comparison_tables.write` wrote."""

    def difference(found: dict[str, Any]) -> Difference:
        return Difference(**{name: found[name] for name in found if name != "verdict"})

    record = json.loads(file.read_text(encoding="utf-8"))
    return comparison.Comparison(
        seeds=tuple(record["seeds"]),
        source=record["source"],
        languages=tuple(record["languages"]),
        methods=tuple(record["methods"]),
        accuracy={
            name: {column: Accuracy(**found) for column, found in columns.items()}
            for name, columns in record["accuracy"].items()
        },
        difference={
            name: {
                reference: {column: difference(found) for column, found in columns.items()}
                for reference, columns in references.items()
            }
            for name, references in record["difference"].items()
        },
    )


def _missing(folder: Path, spec: SearchSpec, entries: list[Entry]) -> list[str]:
    """What a search of this kind records when it ends, and what is not there."""
    if all(entry.status != "finished" for entry in entries):
        return []  # Without a finished trial there is none of it.
    asked = {
        "comparison": ("comparison.json", spec.search.comparison_seeds > 0),
        "pictures": ("pictures", True),
        "assessment": (
            "assessment",
            spec.assessment.alignment_rows > 0 or spec.assessment.generalized,
        ),
    }
    return [what for what, (name, on) in asked.items() if on and not (folder / name).exists()]


def _recorded_facts(
    run: Run, experiment: str, outline: SearchOutline, entries: list[Entry]
) -> dict[str, str]:
    """What the search is and what came of it, with the place in MLflow instead of the folder."""
    nowhere = Path(run.info.run_name)
    facts = summary.facts(outline, nowhere, entries)
    for command in summary.commands(nowhere, found=True):
        facts.pop(command, None)
    if leaderboard.best(entries) is not None:
        facts["Re-run the best"] = "`python launch.py --search best.yaml`, an artifact of the run"
    facts["Recorded in"] = f"MLflow, experiment `{experiment}`, run `{run.info.run_id}`"
    if run.info.status != "FINISHED":
        facts["Not finished"] = (
            "what is beside the first table was recorded when the search last ended, if it had"
        )
    return facts
