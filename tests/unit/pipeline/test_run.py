"""The stages run in their order, and an interrupted search skips those after it."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from rich.console import Console

from tests.support.search_results import LANGUAGES, entry, search
from tests.support.searching import write_search
from xlt_ray.config.loading import load_spec
from xlt_ray.config.spec import ConfirmationSpec
from xlt_ray.config.task import load_task
from xlt_ray.data.batching import BatchSchedule
from xlt_ray.encoders.loading import EncoderInfo
from xlt_ray.evaluation.saved_predictions import Predictions
from xlt_ray.names import LEDGER, STATE
from xlt_ray.pipeline import run as pipeline
from xlt_ray.pipeline.settings import RunSettings
from xlt_ray.pipeline.stage import SearchRun
from xlt_ray.search.confirmation import Confirmed, choose
from xlt_ray.search.leaderboard import Entry, complexity, ranked
from xlt_ray.search.ledger import Ledger
from xlt_ray.search.plan import Plan
from xlt_ray.search.trials import Trial, TrialStatus
from xlt_ray.tracking.client import open_client
from xlt_ray.tracking.recorder import MlflowRecorder, NullRecorder, TrackingSettings


class MadeUp(SearchRun):
    """A search whose trials have made-up results instead of training."""

    def search_trials(self) -> list[Entry]:
        ledger = Ledger(self.folder / LEDGER)
        entries = [self._scored(one) for one in search(6, LANGUAGES[:3])]
        for one in entries:
            ledger.start(one.trial)
        return entries

    def run_fixed_trials(self, fixed: Sequence[Trial], name: str) -> list[Entry]:
        assert name == "comparison"
        donor = next(one for one in search(6, LANGUAGES[:3]) if one.rank == 1)
        return [self._scored(replace(donor, trial=trial, rank=None)) for trial in fixed]

    def _scored(self, entry: Entry) -> Entry:
        kept = self.folder / "predictions" / f"{entry.label}.npz"
        kept.parent.mkdir(exist_ok=True)
        if entry.status == TrialStatus.FINISHED:
            rng = np.random.default_rng(len(entry.label))
            labels = rng.integers(0, 2, 30)
            language = np.repeat([0, 1, 2], 10)
            predicted = np.where(rng.random(30) < 0.7, labels, 1 - labels)
            with kept.open("wb") as file:
                Predictions(predicted, labels, language, LANGUAGES[:3]).save(file)  # type: ignore[arg-type]
        names = ("en", "en_virtual", "zero_shot_mean")
        return replace(entry, selected={f"accuracy/{name}": 0.5 for name in names})


class Stopped(MadeUp):
    """The user stops it during the search."""

    def search_trials(self) -> list[Entry]:
        self.interrupted = True
        return super().search_trials()


class PlainWins(MadeUp):
    """No configuration reaches the dev score of plain fine-tuning."""

    def search_trials(self) -> list[Entry]:
        plain = Trial.of_method("plain")
        return [
            replace(entry, trial=plain, objective=0.95) if entry.label == "plain" else entry
            for entry in super().search_trials()
        ]


class SoupWins(MadeUp):
    """The average of two trials has a higher dev score than every trial."""

    def search_trials(self) -> list[Entry]:
        entries = super().search_trials()
        trial = Trial.labelled("soup")
        soup = replace(entries[0], trial=trial, objective=0.99, members=("01", "02"))
        return [*entries, self._scored(soup)]


def made_up(kind: type[SearchRun], folder: Path, seeds: int) -> SearchRun:
    spec = load_spec(str(write_search(folder / "files")))
    spec = spec.model_copy(
        update={
            "search": spec.search.model_copy(update={"comparison_seeds": seeds}),
            "assessment": spec.assessment.model_copy(
                update={"alignment_rows": 0, "generalized": False}
            ),
        }
    )
    task = load_task(spec.task).model_copy(update={"target_languages": LANGUAGES[1:3]})
    steps = BatchSchedule(np.ones(96, dtype=np.int64), 16, 2, None, 7)
    plan = Plan(spec, task, EncoderInfo("x", "xlm-roberta", 2, 32, 100, 512), {}, steps)
    state = folder / "runs" / "made-up"
    state.mkdir(parents=True)
    settings = RunSettings(None, str(state.parent), "sqlite:///unused.db", "tests")
    return kind(plan, settings, state, NullRecorder(), {}, Console(file=io.StringIO(), width=200))


def run(state: SearchRun, monkeypatch: pytest.MonkeyPatch) -> tuple[pipeline.Outcome, str]:
    monkeypatch.setattr(pipeline, "begin", lambda *_: state)
    outcome = pipeline.run_search(state.plan, state.settings, state.console, state.folder)
    assert isinstance(state.console.file, io.StringIO)
    return outcome, state.console.file.getvalue()


def test_a_search_leaves_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = made_up(MadeUp, tmp_path, seeds=0)
    outcome, printed = run(state, monkeypatch)
    assert not outcome.interrupted and outcome.failed == 1
    left = {path.name for path in state.folder.iterdir()}
    assert {"leaderboard.csv", "best.yaml", "accuracy.png", "pictures", "report.html"} <= left
    assert {"verdict.json"} <= left
    rows = json.loads((state.folder / "leaderboard.json").read_text())
    assert [row["trial"] for row in rows] == [entry.label for entry in outcome.entries]
    order = (
        "The best model was not written",
        "Chosen on dev data: ",
        "Ranked by",
        "Report: ",
        "Table: ",
        "MLflow:",
        "Re-run:",
    )
    assert [printed.index(text) for text in order] == sorted(printed.index(t) for t in order)


def test_the_comparison_follows_the_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = made_up(MadeUp, tmp_path, seeds=2)
    outcome, _ = run(state, monkeypatch)
    best = next(e for e in outcome.entries if e.rank and not e.trial.baseline)
    labels = [trial.label for trial in state.plan.comparison_trials(best.trial)]
    assert [entry.label for entry in outcome.entries][-len(labels) :] == labels
    compared = json.loads((state.folder / "comparison.json").read_text())
    assert compared["seeds"] == list(state.plan.comparison_seeds)
    assert (state.folder / "report.html").is_file()


def test_an_interrupted_search_is_ranked_but_not_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = made_up(Stopped, tmp_path, seeds=2)
    outcome, printed = run(state, monkeypatch)
    assert outcome.interrupted and "Ranked by" in printed
    left = {path.name for path in state.folder.iterdir()}
    assert "leaderboard.json" in left
    assert not left & {"report.html", "pictures", "comparison.json", "best-model"}


def test_trials_on_different_data_are_marked_in_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = made_up(MadeUp, tmp_path, seeds=0)
    ledger = Ledger(state.folder / LEDGER)
    ledger.begin({}, {"dev-de.tsv (dev, de)": "before"})
    ledger.start(Trial.labelled("01"))
    ledger.begin({}, {"dev-de.tsv (dev, de)": "after"})
    run(state, monkeypatch)
    with (state.folder / "leaderboard.csv").open(encoding="utf-8") as file:
        notes = [row["warning"] for row in csv.DictReader(file)]
    assert len(notes) > 1
    assert all("different data: dev-de.tsv (dev, de) changed" in note for note in notes)


@pytest.mark.parametrize(
    ("error", "status"), [(RuntimeError, "FAILED"), (KeyboardInterrupt, "KILLED")]
)
def test_an_error_ends_the_run_in_mlflow(
    error: type[BaseException], status: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state, uri = made_up(MadeUp, tmp_path, seeds=0), f"sqlite:///{tmp_path}/mlflow.db"

    def fails(*_: object) -> None:
        raise error("no\nluck")

    monkeypatch.setattr(pipeline, "rank", fails)
    records = state.folder / STATE / "tracking"
    state.recorder = MlflowRecorder(TrackingSettings(uri, "tests", records))
    state.recorder.start_search("made-up", {}, {})
    state.recorder.start_trial("01", "01", {}, {})
    monkeypatch.setattr(pipeline, "_LAST_SECONDS", 60.0)
    with pytest.raises(error, match="no\nluck"):
        run(state, monkeypatch)
    found = open_client(uri).search_runs([state.recorder.experiment_id()])
    [ended] = [one for one in found if one.info.run_name == "made-up"]
    assert ended.info.status == status
    [left] = [one for one in found if one.info.run_name == "01"]
    assert left.info.status == status
    assert ended.data.tags.get("error") == ("no luck" if status == "FAILED" else None)


def test_records_that_wait_for_mlflow_are_where_the_last_line_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = made_up(MadeUp, tmp_path, seeds=0)
    spool, refuses = state.folder / STATE / "tracking", "http://127.0.0.1:9"
    state.recorder = MlflowRecorder(TrackingSettings(refuses, "tests", spool))
    monkeypatch.setattr(pipeline, "_DELIVERY_SECONDS", 0.0)
    _, printed = run(state, monkeypatch)
    kept = Path(printed.rpartition("they are kept in ")[2].strip())
    assert kept.is_dir() and kept.samefile(spool)


def test_values_that_mlflow_refused_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state, uri = made_up(MadeUp, tmp_path, seeds=0), f"sqlite:///{tmp_path}/mlflow.db"
    spool = state.folder / STATE / "tracking"
    recorder = MlflowRecorder(TrackingSettings(uri, "tests", spool))
    recorder.start_search("made-up", {}, {})
    # Of a run that was never started.
    recorder.log_metrics("plain", {"alignment": 0.5}, step=1)
    state.recorder = recorder
    _, printed = run(state, monkeypatch)
    assert "MLflow: some records are missing there: MLflow refused 1 values" in printed


def test_the_error_of_a_search_that_goes_on_is_gone_from_mlflow(tmp_path: Path) -> None:
    state, uri = made_up(MadeUp, tmp_path, seeds=0), f"sqlite:///{tmp_path}/mlflow.db"
    settings = replace(state.settings, tracking_uri=uri)
    for error in ("no space left", None):
        begun = pipeline.begin(state.plan, settings, state.console, state.folder)
        if error:
            begun.recorder.set_tags(None, {"error": error})
            (state.folder / LEDGER).touch()
        begun.recorder.finish("FAILED" if error else "FINISHED")
    [found] = open_client(uri).search_runs([begun.recorder.experiment_id()])
    assert found.info.status == "FINISHED" and not found.data.tags["error"]


def written_best(state: SearchRun) -> dict[str, Any]:
    return dict(yaml.safe_load((state.folder / "best.yaml").read_text(encoding="utf-8")))


def test_plain_fine_tuning_can_win(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = made_up(PlainWins, tmp_path, seeds=1)
    outcome, _ = run(state, monkeypatch)
    plain, *others = outcome.entries
    assert (plain.label, plain.rank, others[0].rank) == ("plain", 1, 2)
    assert state.winner is plain
    assert written_best(state)["method"]["name"] == "plain"
    # The comparison repeats the best configuration that is not a baseline.
    assert (state.folder / "comparison.json").is_file()
    [again] = [entry for entry in outcome.entries if entry.label.startswith("best-")]
    assert {**others[0].values, "training.seed": again.values["training.seed"]} == again.values


def test_a_soup_that_wins_leaves_the_configuration_of_the_best_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = made_up(SoupWins, tmp_path, seeds=0)
    outcome, _ = run(state, monkeypatch)
    soup, second = outcome.entries[:2]
    assert (soup.label, soup.members) == ("soup", ("01", "02"))
    written = written_best(state)
    for key, value in second.values.items():
        section, _, name = key.partition(".")
        assert value == (
            written[section]["view"][name.removeprefix("view.")]
            if name.startswith("view.")
            else written[section][name]
        )
    rows = json.loads((state.folder / "leaderboard.json").read_text())
    assert rows[0]["members"] == "01 02"


def confirmed(label: str, *objectives: float) -> Confirmed:
    own = np.array(objectives)
    return Confirmed(label, complexity(Trial.labelled(label)), 0.8, own, own)


def test_the_winner_of_a_confirmation_is_what_is_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = made_up(MadeUp, tmp_path, seeds=2)

    def confirm(run: SearchRun) -> None:
        second = [e.label for e in run.entries if e.rank and not e.trial.baseline][1]
        run.choice = choose([confirmed("plain", 0.5, 0.5), confirmed(second, 0.8, 0.9)])
        run.confirmed_seeds = (10_008, 10_009)

    monkeypatch.setattr(pipeline, "confirm", confirm)
    outcome, _ = run(state, monkeypatch)
    assert state.winner is not None and state.winner.rank != 1
    repeated = [entry.label for entry in outcome.entries if entry.label.startswith("best-")]
    assert repeated == [f"best-{state.winner.label}-seed{seed}" for seed in (8, 9)]


def test_a_confirmation_that_is_not_asked_for_any_more_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = made_up(MadeUp, tmp_path, seeds=0)
    scores = {"searched": 0.8, "objectives": [0.7], "zero_shot": [0.6]}
    earlier = {"seeds": [8], "winner": "02", "candidates": [{"label": "02", **scores}]}
    (state.folder / "confirmation.json").write_text(json.dumps(earlier), encoding="utf-8")
    (state.folder / "confirmation-runs.csv").touch()
    run(state, monkeypatch)
    assert not list(state.folder.glob("confirmation*"))
    page = (state.folder / "report.html").read_text(encoding="utf-8")
    assert "(winner)" not in page and "dev, anew" not in page


def test_a_candidate_whose_weights_are_deleted_is_not_confirmed(tmp_path: Path) -> None:
    state = made_up(MadeUp, tmp_path, seeds=0)
    state.plan = with_confirmation(state.plan, top=3, seeds=1)
    entries = []
    for label, objective in {"01": 0.9, "02": 0.8, "03": 0.7, "plain": 0.6}.items():
        checkpoint = state.folder / label
        checkpoint.mkdir()
        if label != "02":
            (checkpoint / "model.safetensors").touch()
        made = entry(label, LANGUAGES[:3], objective=objective)
        trial = replace(made.trial, values={"method.pull_weight": objective})
        entries.append(replace(made, trial=trial, checkpoint=str(checkpoint)))
    state.entries = ranked(entries)
    asked: list[Trial] = []
    state.run_fixed_trials = lambda fixed, _: asked.extend(fixed) or []  # type: ignore[method-assign]
    pipeline.confirm(state)
    assert {trial.label.partition("-")[0] for trial in asked} == {"plain", "01", "03"}
    assert isinstance(state.console.file, io.StringIO)
    assert "Not confirmed: 02; the weights were deleted" in state.console.file.getvalue()


def with_confirmation(plan: Plan, **values: int) -> Plan:
    search = plan.spec.search.model_copy(update={"confirmation": ConfirmationSpec(**values)})
    return replace(plan, spec=plan.spec.model_copy(update={"search": search}))


def test_folders_of_searches_that_start_together_differ(tmp_path: Path) -> None:
    spec = load_spec(str(write_search(tmp_path / "files")))
    folders = {pipeline.new_search_folder(spec, str(tmp_path / "runs")) for _ in range(3)}
    assert len(folders) == 3 and all(folder.is_dir() for folder in folders)
