"""A whole search, from a checked plan to its table: cluster, trials, records, leaderboard."""

from __future__ import annotations

import contextlib
import datetime
import importlib.metadata
import io
import itertools
import os
import platform
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from xlt_ray.config.spec import OBJECTIVE, SearchSpec, dump_spec
from xlt_ray.errors import UserError
from xlt_ray.evaluation.saved_predictions import Predictions
from xlt_ray.pipeline.settings import Settings
from xlt_ray.search import leaderboard
from xlt_ray.search.leaderboard import Entry
from xlt_ray.search.ledger import Ledger
from xlt_ray.search.plan import Plan, parameters_of
from xlt_ray.storage import below, filesystem, is_remote, write_whole
from xlt_ray.tracking.client import UI_ADDRESS, is_server, ui_command
from xlt_ray.tracking.descriptions import (
    NOTE_TAG,
    results_page,
    results_view,
    run_name,
    search_note,
    verdict,
)
from xlt_ray.tracking.recorder import Recorder, TrackingSettings

if TYPE_CHECKING:
    from xlt_ray.cluster.tune import Cluster
    from xlt_ray.data.sources import Examples

_PACKAGES = ("ray", "torch", "transformers", "datasets", "optuna", "mlflow")

_LOCAL_ENVIRONMENT = {
    # Keep freed memory (glibc): a training step frees and takes the same large blocks again, and
    # getting them from the kernel anew costs 5 to 25 % of a step on CPUs.
    "MALLOC_MMAP_THRESHOLD_": str(32 * 2**20),
    "MALLOC_TRIM_THRESHOLD_": str(512 * 2**20),
    "MALLOC_TOP_PAD_": str(64 * 2**20),
    # oneDNN keeps a compiled kernel for each of up to 1,024 shapes: more than a gigabyte a worker.
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "32",
    # A trial is three processes, of which one computes; Ray would warn of too many.
    "RAY_worker_maximum_startup_concurrency": "16",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
}
"""Environment of a Ray cluster that is started here, where the user set nothing else."""


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


def connect(address: str | None) -> Cluster:
    """Join a Ray cluster, or start one on this machine.

    Raises:
        UserError: If there is no cluster at the address.
    """
    import logging

    import ray

    arguments: dict[str, Any] = {
        "log_to_driver": False,
        "logging_level": logging.ERROR,
        "configure_logging": True,
    }
    if address is None and "RAY_ADDRESS" not in os.environ:
        for name, value in _LOCAL_ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        # Trials pass nothing large through the object store.
        arguments |= {
            # Not the cluster that somebody may have started on this machine.
            "address": "local",
            "object_store_memory": 256 * 2**20,
            "include_dashboard": True,
            "dashboard_host": "127.0.0.1",
        }
    else:
        arguments["address"] = address or os.environ["RAY_ADDRESS"]
    try:
        ray.init(**arguments)
    except ConnectionError:
        raise UserError(
            f"--address {arguments['address']}: no Ray cluster answers there; leave the flag out "
            "to run on this machine"
        ) from None
    except Exception as error:
        # Ray has no class of its own for it.
        if "timed out during startup" not in str(error):
            raise
        raise UserError(
            "Ray did not start on this machine in time: it is too busy, or short of memory; end "
            "what else runs on it and try again"
        ) from None
    return offered()


def offered() -> Cluster:
    """What the connected cluster offers."""
    import ray
    from ray._private.state import state as global_state

    from xlt_ray.cluster.tune import Cluster

    resources = ray.cluster_resources()
    # What the autoscaler may add counts too: a cluster's GPU nodes come only once trials ask.
    for name, most in (global_state.get_max_resources_from_cluster_config() or {}).items():
        resources[name] = max(resources.get(name, 0), most)
    return Cluster(cpus=resources.get("CPU", 0), gpus=resources.get("GPU", 0))


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


def run_search(plan: Plan, settings: Settings, console: Console, folder: Path) -> Outcome:
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

    tags = _tags(plan)
    # First of all, for it locks the folder.
    recorder = Recorder(
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
    run = _Run(plan, folder, storage, recorder, tags, console)
    try:
        return _run_stages(run, settings)
    except KeyboardInterrupt:
        recorder.finish("KILLED", timeout_s=_LAST_SECONDS)
        raise


def _run_stages(run: _Run, settings: Settings) -> Outcome:
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
        search_report.assess_models(entries, plan, folder, storage, recorder, tags, console)
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
        exported = _export(winner, run)
        if exported is not None and not plan.spec.search.keep_weights:
            _drop_weights(entries, run)
    delivery = recorder.finish(
        "KILLED" if interrupted else "FINISHED",
        timeout_s=_LAST_SECONDS if interrupted else _DELIVERY_SECONDS,
    )
    if winner is not None and exported is not None and not delivery.pending:
        _register(winner, exported, run, settings)
    _show_next(winner, folder, settings, recorder.experiment_id(), console)
    if delivery.pending:
        console.print(
            f"MLflow: {delivery.pending} records could not be delivered ({delivery.problem}); "
            f"they are kept in {folder / 'tracking'}",
            soft_wrap=True,
        )
    return Outcome(entries, folder, interrupted)


@dataclass(frozen=True)
class _Run:
    """What the stages of one search share."""

    plan: Plan
    folder: Path
    storage: str
    recorder: Recorder
    tags: dict[str, str]
    console: Console

    def tell(self, line: str) -> None:
        """Print a line as it is."""
        self.console.print(line, soft_wrap=True, highlight=False, markup=False)

    def stage(
        self,
        fixed: list[dict[str, Any]],
        trials: int,
        storage: str,
        name: str,
    ) -> list[Entry]:
        """Run a stage's trials, or what is left of them; keep and show the test predictions of
        those that finished."""
        from xlt_ray.cluster.recording import RecordTrials, ShowProgress
        from xlt_ray.cluster.tune import run_tune
        from xlt_ray.search.study import Study

        search = name == self.folder.name
        folder = self.folder if search else self.folder / name
        folder.mkdir(exist_ok=True)
        ledger = Ledger(folder / "trials.jsonl")
        ledger.begin(self.plan.spec.model_dump(mode="json"))
        study = Study(self.plan.spec, folder / "study.log" if search else None)
        wanted = {config["label"] for config in fixed}
        before = sum(record.ended for record in ledger.records.values())
        concurrent = offered().concurrent_trials(self.plan.spec)
        ended = f" ({before} ended before)" if before else ""
        self.console.print(
            f"{trials} trials{ended}, {concurrent} side by side, in {relative(folder)}",
            soft_wrap=True,
        )
        tags = self.tags | {"stage": "search" if search else "comparison"}
        record = RecordTrials(self.recorder, ledger, study, self.plan, tags)
        record.catch_up()
        progress = ShowProgress(
            self.console, trials, self.plan.spec.search.objective, search, ledger.records
        )
        run_tune(
            self.plan,
            fixed,
            trials,
            study=study,
            ledger=ledger,
            concurrent=concurrent,
            storage=storage,
            folder_name=name,
            callbacks=[record, progress],
        )
        entries = [
            leaderboard.entry_of(record)
            for label, record in ledger.records.items()
            if label in wanted or label.isdigit()
        ]
        for entry in entries:
            if entry.status == "finished" and entry.checkpoint:
                self._keep_predictions(entry, entry.checkpoint)
        return entries

    def _keep_predictions(self, entry: Entry, checkpoint: str) -> None:
        """Copy a trial's test predictions next to the tables, from wherever the storage is; show
        those that are new."""
        kept = self.folder / "predictions" / f"{entry.label}.npz"
        kept.parent.mkdir(exist_ok=True)
        with filesystem(self.storage).open_input_file(f"{checkpoint}/predictions.npz") as file:
            content = file.read()
        if kept.exists() and kept.read_bytes() == content:
            return
        # First: where the search ends in between, it shows them when it goes on.
        self._show_predictions(entry, content)
        kept.write_bytes(content)

    def _show_predictions(self, entry: Entry, content: bytes) -> None:
        """Give MLflow a trial's page; whatever hinders it is told and costs nothing else."""
        from xlt_ray.report import trial_page

        try:
            trial_page.record_trial(
                self.recorder,
                entry.label,
                run_name(self.plan.spec, {"label": entry.label, **entry.values}),
                Predictions.load(io.BytesIO(content)),
                self.plan.task,
                self._test_texts,
            )
        except Exception as error:
            self.tell(f"{entry.label}: {trial_page.PAGE} was not made: {_in_a_line(error)}")

    @cached_property
    def _test_texts(self) -> dict[str, Examples]:
        """The texts of the test set, read when the first trial is shown."""
        from xlt_ray.report import trial_page

        return trial_page.read_test_texts(self.plan.task, self.plan.spec.data.test_limit)


def _export(winner: Entry | None, run: _Run) -> Path | None:
    """Write the best trial's model; whatever hinders it is told and costs nothing else."""
    from xlt_ray.inference.export import export_best

    if winner is None:
        return None
    try:
        folder = export_best(winner, run.plan, run.folder, run.storage)
    except Exception as error:
        run.tell(f"The best model was not written: {_in_a_line(error)}")
        return None
    run.recorder.log_artifact(None, folder / "README.md", folder.name)
    run.tell(f"Model:   {relative(folder)}")
    return folder


def _drop_weights(entries: Sequence[Entry], run: _Run) -> None:
    """Delete the weights that nothing will ask for: a search of large models leaves dozens of them.
    What the trials predicted stays."""
    from pyarrow.fs import FileType

    kept = [leaderboard.best(entries), leaderboard.baseline(entries)]
    files = filesystem(run.storage)
    weights = [
        f"{entry.checkpoint}/model.safetensors"
        for entry in entries
        if entry.checkpoint and entry not in kept
    ]
    try:
        for found in files.get_file_info(weights):
            if found.type == FileType.File:
                files.delete_file(found.path)
    except OSError as error:
        run.tell(f"The other trials' weights were not deleted: {_in_a_line(error)}")


def _register(winner: Entry, model: Path, run: _Run, settings: Settings) -> None:
    """Give the best model to MLflow's registry; as with writing it."""
    from xlt_ray.inference.registry import CHAMPION, register_model

    spec, run_id = run.plan.spec, run.recorder.run_id(None)
    assert run_id is not None and winner.objective is not None
    try:
        own = register_model(
            model,
            settings.tracking_uri,
            run_id,
            spec.name,
            spec.search.objective,
            winner.objective,
        )
    except Exception as error:
        run.tell(f"The best model was not registered in MLflow: {_in_a_line(error)}")
        return
    known = f"{own.name}@{CHAMPION}" if own.champion else f"{own.name}/{own.version}"
    rank = "the champion" if own.champion else f"not the {CHAMPION}"
    run.tell(f"Serve:   models:/{known} is version {own.version}, {rank}: {own.reason}")


def _in_a_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _conclude(entries: Sequence[Entry], plan: Plan, folder: Path, recorder: Recorder) -> None:
    """Write and record what the search found."""
    from xlt_ray.cluster.trial import trial_spec

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
    from xlt_ray.report.search_report import print_whole

    view = leaderboard.table(
        entries, plan.spec.search.objective, list(plan.spec.search.parameters), plan.task.languages
    )
    console.print()
    print_whole(view, console)
    if sentence := verdict(entries):
        console.print(sentence, soft_wrap=True, highlight=False)


def _show_next(
    winner: Entry | None, folder: Path, settings: Settings, experiment: str | None, console: Console
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


def relative(path: Path) -> Path:
    """A path as a person in this folder would type it."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _tags(plan: Plan) -> dict[str, str]:
    tags = {
        "task": plan.task.name,
        "model": plan.spec.model,
        "selection": plan.spec.search.objective,
        "search": plan.spec.name,
        "version.python": platform.python_version(),
    }
    for package in ("xlt-ray", *_PACKAGES):
        try:
            tags[f"version.{package}"] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    commit = _git_commit()
    return tags | ({"git_commit": commit} if commit else {})


def _git_commit() -> str | None:
    """The commit of the source tree that this package is imported from, if it is one."""
    try:
        result = subprocess.run(
            ["git", "rev-parse", "HEAD"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return result.stdout.strip()
