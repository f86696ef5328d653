"""The stages of a search, from a checked plan to a registered model. `start` calls `run_search`."""

from __future__ import annotations

import contextlib
import datetime
import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from xlt_ray.config.loading import dump_spec
from xlt_ray.config.spec import SearchSpec
from xlt_ray.errors import in_one_line
from xlt_ray.files import relative, write_whole
from xlt_ray.names import LEDGER, OBJECTIVE, STATE, WARNING_TAG
from xlt_ray.pipeline.assess import assess_models
from xlt_ray.pipeline.average import make_soups
from xlt_ray.pipeline.confirm import confirm_winner
from xlt_ray.pipeline.deliver import drop_weights, export_best_model, register_best_model
from xlt_ray.pipeline.provenance import run_tags
from xlt_ray.pipeline.settings import RunSettings, keep_places
from xlt_ray.pipeline.stage import SearchRun
from xlt_ray.report.result_table import WIDTH, result_table
from xlt_ray.report.tables import print_whole
from xlt_ray.search import inputs, leaderboard
from xlt_ray.search.leaderboard import Entry
from xlt_ray.search.plan import Plan, parameters_of
from xlt_ray.search.summary import search_command
from xlt_ray.search.trials import TrialStatus, trial_spec
from xlt_ray.search.verdict import search_verdict
from xlt_ray.storage import is_remote
from xlt_ray.tracking.courier import Delivery
from xlt_ray.tracking.descriptions import NOTE_TAG, search_note
from xlt_ray.tracking.recorder import MlflowRecorder, TrackingSettings
from xlt_ray.tracking.results_view import results_page, results_view
from xlt_ray.tracking.ui import UI_ADDRESS, ui_command
from xlt_ray.tracking.uri import is_server

_DELIVERY_SECONDS = 60.0
"""How long a finished search waits for MLflow."""
_LAST_SECONDS = 3.0
"""How long an interrupted search waits for MLflow."""


@dataclass(frozen=True)
class Outcome:
    """How a search ended."""

    entries: Sequence[Entry]
    """The ranked trials, then those of the comparison."""
    folder: Path
    """The search's folder, with `best.yaml` and the leaderboard."""
    interrupted: bool
    """Whether the user stopped it."""
    model: Path | None = None
    """Folder of the best model; None: there is none, or it could not be written."""

    @property
    def failed(self) -> int:
        """The number of failed trials."""
        return sum(entry.status == TrialStatus.FAILED for entry in self.entries)


def new_search_folder(spec: SearchSpec, storage: str) -> Path:
    """Create the folder of a search, named after the search and the time.

    Two searches that start at the same time get different folders.

    Args:
        spec: The search.
        storage: The storage of the checkpoints; with a URI, the folder is below `runs/`.
    """
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
        settings: Where the search runs.
        console: Shows the progress and the results.
        folder: The search's folder: a new one, or that of a search to resume.

    Returns:
        The outcome, with all trials that ended, even if others failed or the search was stopped.

    Raises:
        UserError: If another process runs the search of this folder.
        KeyboardInterrupt: If the user stopped the search at once; it can be resumed.
    """
    run = begin(plan, settings, console, folder)
    try:
        run_stages(run)
    except KeyboardInterrupt:
        run.recorder.finish("KILLED", timeout_s=_LAST_SECONDS)
        raise
    except Exception as error:
        # A full disk may have caused the error; then these records cannot be written either.
        with contextlib.suppress(OSError):
            run.recorder.set_tags(None, {"error": in_one_line(error)})
            run.recorder.finish("FAILED", timeout_s=_LAST_SECONDS)
        raise
    finally:
        run.helper.shutdown()
    entries = [*run.entries, *run.confirmation, *run.report.runs]
    return Outcome(entries, run.folder, run.interrupted, run.model)


def run_stages(run: SearchRun) -> None:
    """Run the stages; a stop by the user ends them early, with what is there shown."""
    search(run)
    soup(run)
    rank(run)
    confirm(run)
    conclude(run)
    for stage in (draw, assess, compare, report, export):
        if not run.interrupted:
            stage(run)
    delivery = deliver(run)
    if not delivery.pending:
        register(run)
    show_result(run)
    show_next(run, delivery)


def begin(plan: Plan, settings: RunSettings, console: Console, folder: Path) -> SearchRun:
    """Lock the folder, write `search.yaml` and open the search's run in MLflow."""
    folder, tags = folder.resolve(), run_tags(plan)
    # The recorder comes first because it locks the folder.
    recorder = MlflowRecorder(
        TrackingSettings(settings.tracking_uri, settings.experiment, folder / STATE / "tracking")
    )
    keep_places(settings, folder)
    write_whole(folder / "search.yaml", dump_spec(plan.spec))
    note = search_note(plan, relative(folder))
    own = {"method": ", ".join(plan.spec.method_names()), NOTE_TAG: note}
    if (folder / LEDGER).exists():
        # It is resumed: what ended it before is over.
        own["error"] = ""
    recorder.start_search(
        folder.name,
        parameters_of(plan.spec),
        tags | own,
        results_view(plan.spec, plan.task.languages, round(1000 * time.time())),
    )
    recorder.log_artifact(None, folder / "search.yaml")
    return SearchRun(plan, settings, folder, recorder, tags, console)


def search(run: SearchRun) -> None:
    """Run the trials of the search."""
    run.entries = run.search_trials()


def soup(run: SearchRun) -> None:
    """Average the trials' weights; the soups compete with the trials."""
    if not run.interrupted:
        run.entries += make_soups(run)


def rank(run: SearchRun) -> None:
    """Rank the trials; write and record the leaderboard."""
    run.entries = leaderboard.ranked(run.entries)
    warned = inputs.warning(run.folder / LEDGER)
    for path in leaderboard.write(run.entries, run.folder, warning=warned):
        run.recorder.log_artifact(None, path)
    if warned:
        run.recorder.set_tags(None, {WARNING_TAG: warned})


def confirm(run: SearchRun) -> None:
    """Train the best candidates anew with fresh seeds, and choose the winner by them."""
    if not run.interrupted:
        confirm_winner(run)


def conclude(run: SearchRun) -> None:
    """Write and record the verdict, and write `best.yaml`."""
    run.verdict = search_verdict(
        run.entries, run.folder, run.plan.task.target_languages, run.choice, run.confirmed_seeds
    )
    note = search_note(run.plan, relative(run.folder), run.entries, run.verdict)
    run.recorder.set_tags(None, {NOTE_TAG: note})
    _keep_best(run)
    if run.verdict is not None:
        run.recorder.log_artifact(None, run.verdict.write(run.folder))


def draw(run: SearchRun) -> None:
    """Draw the search."""
    run.report.draw()


def assess(run: SearchRun) -> None:
    """Measure alignment and language pairs of the best model, plain fine-tuning and the encoder."""
    assess_models(run)


def compare(run: SearchRun) -> None:
    """Train the best configuration and the baselines with more seeds, and compare them."""
    run.report.compare(run.run_fixed_trials)


def report(run: SearchRun) -> None:
    """Write `report.html`."""
    run.report.write()


def export(run: SearchRun) -> None:
    """Write the best model, then delete the weights of the trials that nothing needs."""
    run.model = export_best_model(run)
    if run.model is not None and not run.plan.spec.search.keep_weights:
        drop_weights([*run.entries, *run.confirmation, *run.report.runs], run)


def deliver(run: SearchRun) -> Delivery:
    """Close the search's run in MLflow and wait for the delivery of its records."""
    if run.interrupted:
        return run.recorder.finish("KILLED", timeout_s=_LAST_SECONDS)
    return run.recorder.finish("FINISHED", timeout_s=_DELIVERY_SECONDS)


def register(run: SearchRun) -> None:
    """Register the exported model in MLflow."""
    if run.winner is not None and run.model is not None:
        register_best_model(run.winner, run.model, run)


def show_result(run: SearchRun) -> None:
    """Print the verdict and the trials."""
    run.console.print()
    if run.verdict is not None:
        run.tell(run.verdict.sentence)
        run.console.print()
    if warned := inputs.warning(run.folder / LEDGER):
        run.tell(f"Warning: {warned}")
    # A file has no width of its own; rich would assume a narrow terminal.
    width = run.console.width if run.console.is_terminal else WIDTH
    objective, languages = run.plan.spec.search.objective, run.plan.task.languages
    print_whole(result_table(run.entries, run.winner, objective, languages, width), run.console)
    run.console.print()


def show_next(run: SearchRun, delivery: Delivery) -> None:
    """Print where the results are and how to use them."""
    uri, experiment = run.settings.tracking_uri, run.recorder.experiment_id()
    place = ui_command(uri)
    for what, name in (("Report:  ", "report.html"), ("Table:   ", "leaderboard.csv")):
        if (run.folder / name).exists():
            run.tell(f"{what}{relative(run.folder / name)}")
    run.tell(f"MLflow:  {place}")
    if experiment is not None:
        run.tell(f"Results: {results_page(place if is_server(uri) else UI_ADDRESS, experiment)}")
    if leaderboard.best_single(run.entries) is not None:
        best = str(relative(run.folder / "best.yaml"))
        run.tell(f"Re-run:  {search_command('--search', best)}")
    if delivery.pending:
        run.tell(
            f"MLflow: {delivery.pending} records could not be delivered ({delivery.problem}); "
            f"they are kept in {run.folder / STATE / 'tracking'}"
        )
    elif delivery.problem is not None:
        run.tell(f"MLflow: some records are missing there: {delivery.problem}")


def _keep_best(run: SearchRun) -> None:
    """Write `best.yaml` and record the scores of the winner and of plain fine-tuning.

    `best.yaml` has the winner's configuration. A soup has none, so if a soup wins, the file has
    that of the best single trial.
    """
    single, winner = leaderboard.best_single(run.entries), run.winner
    if winner is not None and not winner.trial.soup:
        single = winner
    if single is not None:
        spec = trial_spec(run.plan.spec, single.values)
        # It has been found: neither a target nor a budget may end what is run with it.
        kept = {"baselines": run.plan.spec.search.baselines, "target": None, "time_budget": None}
        own = spec.search.model_copy(update=kept)
        # A name has 100 characters at most.
        best = spec.model_copy(update={"name": f"{spec.name[:95]}-best", "search": own})
        (run.folder / "best.yaml").write_text(dump_spec(best), encoding="utf-8")
        run.recorder.log_artifact(None, run.folder / "best.yaml")
    if winner is None:
        return
    scores = {f"best/test/{name}": value for name, value in winner.test.items()}
    scores[f"best/{OBJECTIVE}"] = winner.objective or 0.0
    plain = leaderboard.baseline(run.entries)
    if plain is not None:
        scores |= {f"baseline/test/{name}": value for name, value in plain.test.items()}
    run.recorder.log_metrics(None, scores, step=0)
