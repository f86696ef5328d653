"""A whole search, from a checked plan to its table: cluster, trials, records, leaderboard."""

from __future__ import annotations

import contextlib
import datetime
import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from xlt_ray.config.loading import dump_spec
from xlt_ray.config.spec import SearchSpec
from xlt_ray.files import relative, write_whole
from xlt_ray.names import OBJECTIVE
from xlt_ray.pipeline.deliver import drop_weights, export_winner, register_winner
from xlt_ray.pipeline.provenance import run_tags
from xlt_ray.pipeline.settings import RunSettings
from xlt_ray.pipeline.stage import SearchRun
from xlt_ray.report import tables as report_tables
from xlt_ray.search import leaderboard
from xlt_ray.search.leaderboard import Entry
from xlt_ray.search.plan import Plan, parameters_of
from xlt_ray.search.summary import verdict
from xlt_ray.storage import below, is_remote
from xlt_ray.tracking.descriptions import NOTE_TAG, search_note
from xlt_ray.tracking.recorder import MlflowRecorder, Recorder, TrackingSettings
from xlt_ray.tracking.results_view import results_page, results_view
from xlt_ray.tracking.ui import UI_ADDRESS, ui_command
from xlt_ray.tracking.uri import is_server

_DELIVERY_SECONDS = 60.0
"""How long a finished search waits for MLflow."""
_LAST_SECONDS = 3.0
"""How long one that was stopped does."""


@dataclass(frozen=True)
class Outcome:
    """How a search ended."""

    entries: Sequence[Entry]
    """The ranked trials."""
    folder: Path
    """Where `best.yaml` and the leaderboard are."""
    interrupted: bool
    """Whether it was stopped by hand."""

    @property
    def failed(self) -> int:
        """Number of failed trials."""
        return sum(entry.status == "failed" for entry in self.entries)


def new_folder(spec: SearchSpec, storage: str) -> Path:
    """Make a search's folder, named after it and the time; no two searches get the same one."""
    runs = Path("runs" if is_remote(storage) else storage)
    started = f"{spec.name}-{datetime.datetime.now():%Y%m%d-%H%M%S}"
    for number in itertools.count(1):
        folder = runs / (started if number == 1 else f"{started}-{number}")
        with contextlib.suppress(FileExistsError):
            folder.mkdir(parents=True)
            break
    return folder


def run_search(plan: Plan, settings: RunSettings, console: Console, folder: Path) -> Outcome:
    """Run a search on the connected cluster and show its result.

    Args:
        plan: The checked search.
        settings: Where it runs.
        console: Where progress and the table are shown.
        folder: The search's folder, new or of a search to go on with.

    Returns:
        The outcome; what had finished is in it even if trials failed or the search was stopped.

    Raises:
        UserError: If another process runs the search of this folder.
        KeyboardInterrupt: If it was stopped by hand at once; it can go on from its folder.
    """
    remote = is_remote(settings.storage)
    folder = folder.resolve()
    storage = settings.storage if remote else str(folder.parent)

    tags = run_tags(plan)
    # First of all, for it locks the folder.
    recorder = MlflowRecorder(
        TrackingSettings(settings.tracking_uri, settings.experiment, folder / "tracking")
    )
    write_whole(folder / "search.yaml", dump_spec(plan.spec))
    note = search_note(plan, relative(folder))
    recorder.start_search(
        folder.name,
        parameters_of(plan.spec),
        tags | {"method": plan.spec.method.name, NOTE_TAG: note},
        results_view(plan.spec, plan.task.languages, round(1000 * time.time())),
    )
    recorder.log_artifact(None, folder / "search.yaml")
    run = SearchRun(plan, folder, storage, recorder, tags, console)
    try:
        return _run_stages(run, settings)
    except KeyboardInterrupt:
        recorder.finish("KILLED", timeout_s=_LAST_SECONDS)
        raise


def _run_stages(run: SearchRun, settings: RunSettings) -> Outcome:
    from xlt_ray.pipeline import assess
    from xlt_ray.report import search_report

    plan, folder, storage, recorder, tags, console = (
        run.plan,
        run.folder,
        run.storage,
        run.recorder,
        run.tags,
        run.console,
    )
    entries = leaderboard.ranked(run.stage(plan.fixed_trials(), plan.trials, storage, folder.name))
    _conclude(entries, plan, folder, recorder)
    _show(entries, plan, console)
    interrupted = len(entries) < plan.trials or any(e.status == "interrupted" for e in entries)
    exported: Path | None = None
    winner = leaderboard.best(entries)
    if not interrupted and not plan.spec.search.comparison_seeds:
        search_report.draw_search(entries, plan, folder, recorder)
    ranked = entries
    tables: list[Table] = []
    if not interrupted:
        search_report.picture_search(entries, plan, folder, recorder)
        assess.assess_models(entries, plan, folder, storage, recorder, tags, console)
    if plan.repeats and not interrupted:
        tables += search_report.compare_methods(entries, plan, folder, recorder, console)
    elif plan.spec.search.comparison_seeds and winner is not None and not interrupted:
        trials = plan.comparison_trials(winner.values)
        # Another best configuration is another comparison; more seeds are not.
        name = f"comparison-{winner.label}"
        runs = run.stage(trials, len(trials), below(storage, folder.name), name)
        interrupted = len(runs) < len(trials) or any(e.status == "interrupted" for e in runs)
        tables += search_report.compare_methods(runs, plan, folder, recorder, console)
        entries = [*entries, *runs]
    if not interrupted:
        tables += search_report.correlate_objectives(entries, plan, recorder, console)
        search_report.report_search(ranked, plan, folder, relative(folder), tables, recorder)
        exported = export_winner(winner, run)
        if exported is not None and not plan.spec.search.keep_weights:
            drop_weights(entries, run)
    delivery = recorder.finish(
        "KILLED" if interrupted else "FINISHED",
        timeout_s=_LAST_SECONDS if interrupted else _DELIVERY_SECONDS,
    )
    if winner is not None and exported is not None and not delivery.pending:
        register_winner(winner, exported, run, settings)
    _show_next(winner, folder, settings, recorder.experiment_id(), console)
    if delivery.pending:
        console.print(
            f"MLflow: {delivery.pending} records could not be delivered ({delivery.problem}); "
            f"they are kept in {folder / 'tracking'}",
            soft_wrap=True,
        )
    return Outcome(entries, folder, interrupted)


def _conclude(entries: Sequence[Entry], plan: Plan, folder: Path, recorder: Recorder) -> None:
    """Write and record what the search found."""
    from xlt_ray.search.trials import trial_spec

    recorder.set_tags(None, {NOTE_TAG: search_note(plan, relative(folder), entries)})
    for path in leaderboard.write(entries, folder):
        recorder.log_artifact(None, path)
    winner = leaderboard.best(entries)
    if winner is None:
        return
    spec = trial_spec(plan.spec, winner.values)
    beside = spec.search.model_copy(update={"baselines": plan.spec.search.baselines})
    best = spec.model_copy(update={"name": f"{spec.name}-best", "search": beside})
    (folder / "best.yaml").write_text(dump_spec(best), encoding="utf-8")
    recorder.log_artifact(None, folder / "best.yaml")
    figures = {f"best/test/{name}": value for name, value in winner.test.items()}
    figures[f"best/{OBJECTIVE}"] = winner.objective or 0.0
    plain = leaderboard.baseline(entries)
    if plain is not None:
        figures |= {f"baseline/test/{name}": value for name, value in plain.test.items()}
    recorder.log_metrics(None, figures, step=0)


def _show(entries: Sequence[Entry], plan: Plan, console: Console) -> None:
    """Print the table and a sentence on the best trial."""
    from xlt_ray.report.tables import print_whole

    view = report_tables.table(
        entries, plan.spec.search.objective, list(plan.spec.search.parameters), plan.task.languages
    )
    console.print()
    print_whole(view, console)
    if sentence := verdict(entries):
        console.print(sentence, soft_wrap=True, highlight=False)


def _show_next(
    winner: Entry | None,
    folder: Path,
    settings: RunSettings,
    experiment: str | None,
    console: Console,
) -> None:
    """Print where to look and what to type next."""
    place = ui_command(settings.tracking_uri)
    console.print(f"MLflow:  {place}", soft_wrap=True, highlight=False)
    if experiment is not None:
        address = place if is_server(settings.tracking_uri) else UI_ADDRESS
        page = results_page(address, experiment)
        console.print(f"Results: {page}", soft_wrap=True, highlight=False)
    if winner:
        console.print(
            f"Re-run:  python launch.py --search {relative(folder / 'best.yaml')}",
            soft_wrap=True,
            highlight=False,
        )
