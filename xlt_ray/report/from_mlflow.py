"""Rebuild a search's report from MLflow, without the search's folder. The CLI calls it."""

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
from xlt_ray.config.task import TaskSpec, task_of
from xlt_ray.errors import UserError, nearest
from xlt_ray.evaluation import comparison
from xlt_ray.evaluation.intervals import Accuracy, Difference
from xlt_ray.files import write_whole
from xlt_ray.names import BOTH, VERDICT, VIRTUAL, WARNING_TAG, ZERO_SHOT_MEAN
from xlt_ray.report import comparison_tables, confirmation, search_report
from xlt_ray.search import leaderboard, summary
from xlt_ray.search.leaderboard import Entry
from xlt_ray.search.plan import SearchOutline
from xlt_ray.search.verdict import Verdict, search_verdict
from xlt_ray.tracking.client import check_begun, check_tracking, in_one_line, open_client
from xlt_ray.tracking.courier import RUN_KEY_TAG
from xlt_ray.tracking.recorder import NullRecorder

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient

_RECORDED = (
    *("search.yaml", "leaderboard.json", "comparison-runs.json", "comparison.json"),
    *("pictures", "assessment", VERDICT, confirmation.FILE),
)
"""The artifacts of a search in MLflow that the report needs."""

_NAMED = 20
"""The maximum number of searches that a message lists."""


def report_recorded(uri: str, experiment: str, search: str | None, output: Path) -> list[str]:
    """Write the report of a search that is recorded in MLflow.

    The tables are made from the recorded results. The pictures are the recorded ones, because the
    evaluations and predictions that they show are only in the search's folder.

    Args:
        uri: MLflow tracking URI.
        experiment: Name of the experiment.
        search: Name or id of the search's run; None: the latest that finished.
        output: The page; replaced if it exists.

    Returns:
        The parts of the report that MLflow does not have, such as `pictures`.

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
    """Turn any error of MLflow into one line; its stores raise errors of many types."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"tracking URI: {in_one_line(error, uri)}") from None


def _find_run(client: MlflowClient, experiment: str, search: str | None) -> Run:
    """Return the run of a search; the arguments are those of :func:`report_recorded`."""
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
    """Yield the runs of an experiment that are searches, the latest first."""
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
    """Download what the report needs into the layout of a search's folder."""
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
    """Return the page from the downloaded artifacts, and the parts that are missing."""
    try:
        spec = load_spec(str(folder / "search.yaml"))
    except UserError as error:
        # As an artifact it has no path.
        reason = str(error).replace(f"{folder}/", "")
        raise UserError(f"--search {run.info.run_name}: {reason}") from None
    # Earlier versions gave the baselines no rank.
    entries = leaderboard.ranked(leaderboard.read(folder / "leaderboard.json"))
    outline = SearchOutline(spec, _recorded_task(run, spec, entries))
    runs: list[Entry] = []
    # MLflow keeps the files of what a resumed search does not ask for any more.
    tables: list[Table] = confirmation.tables(folder) if spec.search.confirmation.seeds else []
    if spec.search.comparison_seeds and (folder / "comparison.json").exists():
        tables += comparison_tables.tables(_recorded_comparison(folder / "comparison.json"))
        if not outline.repeats:
            runs = leaderboard.read(folder / "comparison-runs.json")
    tables += search_report.correlate_objectives(
        [*entries, *runs], outline, NullRecorder(), Console(file=io.StringIO())
    )
    missing = _missing(folder, spec, entries)
    verdict = _verdict(folder, outline, entries)
    facts = _recorded_facts(run, experiment, outline, entries, verdict)
    if WARNING_TAG in run.data.tags:
        facts = {"Warning": run.data.tags[WARNING_TAG], **facts}
    if missing:
        facts["Not in MLflow"] = ", ".join(missing)
    text = search_report.report_page(
        run.info.run_name,
        entries,
        outline,
        folder,
        facts,
        tables,
        verdict,
    )
    return text, missing


def _verdict(folder: Path, outline: SearchOutline, entries: list[Entry]) -> Verdict | None:
    """Return the recorded verdict; MLflow lacks the predictions to compute it again."""
    if (folder / VERDICT).exists():
        return Verdict.read(folder / VERDICT)
    return search_verdict(entries, folder, outline.task.target_languages)


def _recorded_task(run: Run, spec: SearchSpec, entries: list[Entry]) -> TaskSpec:
    """Return the task from the scores, because its file may be on another machine."""
    scored = dict.fromkeys(
        metric.removeprefix("accuracy/")
        for entry in entries
        for metric in (*entry.selected, *entry.test)
        if metric.startswith("accuracy/")
    )
    source = next((name.removesuffix(VIRTUAL) for name in scored if name.endswith(VIRTUAL)), None)
    if source is None:
        return task_of(spec.model_copy(update={"data_dir": None}))
    others = (source, source + VIRTUAL, source + BOTH, "mean", ZERO_SHOT_MEAN)
    return TaskSpec.model_construct(
        name=run.data.tags.get("task", spec.task),
        source_language=source,
        target_languages=tuple(name for name in scored if name not in others),
    )


def _recorded_comparison(file: Path) -> comparison.Comparison:
    """Return the comparison that :func:`xlt_ray.report.comparison_tables.write` wrote."""

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
    """Return the parts that a finished search records and that are missing."""
    if all(entry.status != "finished" for entry in entries):
        return []  # Without a finished trial a search records none of them.
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
    run: Run,
    experiment: str,
    outline: SearchOutline,
    entries: list[Entry],
    verdict: Verdict | None,
) -> dict[str, str]:
    """Return the facts of a search, with its place in MLflow instead of its folder."""
    nowhere = Path(run.info.run_name)
    facts = summary.facts(outline, nowhere, entries, verdict)
    for command in summary.commands(nowhere, found=True):
        facts.pop(command, None)
    if leaderboard.best(entries) is not None:
        facts["Re-run the best"] = (
            f"`{summary.search_command('--search', 'best.yaml')}`, an artifact of the run"
        )
    facts["Recorded in"] = f"MLflow, experiment `{experiment}`, run `{run.info.run_id}`"
    if run.info.status != "FINISHED":
        facts["Not finished"] = (
            "all but the first table was recorded when the search last ended, if it ever did"
        )
    return facts
