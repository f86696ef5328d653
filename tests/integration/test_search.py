"""Whole searches: real Ray, real MLflow, the command line as a user runs it."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path

import pytest
import torch
import yaml
from mlflow.tracking import MlflowClient
from ray.cluster_utils import Cluster

from tests.integration.conftest import Finished
from tests.support.recorded import leaderboard, runs_of
from tests.support.searching import LANGUAGES, ROOT, Run, launch, write_search
from xlt_ray.config.loading import load_spec
from xlt_ray.distributed import Workers
from xlt_ray.names import OBJECTIVE, STATE
from xlt_ray.training.build import build
from xlt_ray.training.trainer import Trainer


@pytest.fixture(scope="module")
def folder(finished_search: Finished) -> Path:
    return finished_search.folder


@pytest.fixture(scope="module")
def finished(finished_search: Finished) -> Run:
    return finished_search.run


@pytest.fixture(scope="module")
def state(finished_search: Finished) -> Path:
    return finished_search.state


def test_table_names_every_trial_and_language(finished: Run) -> None:
    table = finished.output[finished.output.index("Ranked by") :]
    for name in ("paper", "01", "plain", "rs-rp", *LANGUAGES):
        assert name in table
    assert "mlflow ui" in finished.output
    assert "best.yaml" in finished.output


def test_mlflow_holds_nested_runs_with_scores_of_every_language(
    finished: Run, folder: Path, state: Path
) -> None:
    parent, trials = runs_of(folder, "tiny")
    assert set(trials) == {"paper", "01", "plain", "rs-rp", "pretrained"}
    assert trials.pop("pretrained").info.status == "FINISHED"
    rows = leaderboard(state)
    for label, run in trials.items():
        assert run.info.status == "FINISHED"
        metrics = run.data.metrics
        test = {code: metrics[f"test/accuracy/{code}"] for code in LANGUAGES}
        zero_shot = (test["de"] + test["ru"]) / 2
        assert metrics["test/accuracy/zero_shot_mean"] == pytest.approx(zero_shot)
        assert metrics["test/transfer_gap"] == pytest.approx(test["en"] - zero_shot)
        assert metrics["test/accuracy/mean"] == pytest.approx(sum(test.values()) / 3)
        assert rows[label]["test/accuracy/de"] == pytest.approx(test["de"])
    assert parent.data.metrics["best/objective"] == max(
        run.data.metrics["objective"] for run in trials.values()
    )


def test_the_driver_does_without_torch(finished_search: Finished) -> None:
    """It takes seconds and a quarter of a gigabyte, which are the trials'."""
    assert "ray.tune" in finished_search.imported
    assert not {"torch", "transformers"} & finished_search.imported


def test_tune_s_own_files_have_a_folder_of_their_own(state: Path) -> None:
    files = [path.relative_to(state) for path in state.rglob("*")]
    assert any(path.name == "tuner.pkl" for path in files)
    tune_s = ("tuner.pkl", "experiment_state", "basic-variant-state", ".validate_storage_marker")
    places = {path.parts[:2] for path in files if path.name.startswith(tune_s)}
    assert places <= {(STATE, "tune"), (STATE, "checkpoints")}


def test_what_resuming_needs_is_in_one_folder(state: Path) -> None:
    others = {path.name for path in state.iterdir()} - {STATE, "search.yaml"}
    assert others <= {
        *("leaderboard.csv", "leaderboard.json", "best.yaml", "verdict.json", "predictions"),
        *("report.html", "accuracy.png", "pictures", "assessment", "best-model"),
    }


def test_metrics_are_kept_by_step_and_the_test_set_is_scored_once(
    finished: Run, folder: Path
) -> None:
    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    _, trials = runs_of(folder, "tiny")
    run_id = trials["paper"].info.run_id
    dev = client.get_metric_history(run_id, "dev/accuracy/ru")
    # 96 pairs in batches of 16, twice; two evaluations a pass.
    assert [metric.step for metric in dev] == [3, 6, 9, 12]
    for term in ("classification", "robust", "push", "pull", "total"):
        assert len(client.get_metric_history(run_id, f"train/loss/{term}")) == 4
    assert len(client.get_metric_history(run_id, "test/accuracy/ru")) == 1
    objective = [metric.value for metric in client.get_metric_history(run_id, "objective")]
    english = [metric.value for metric in client.get_metric_history(run_id, "dev/accuracy/en")]
    assert objective[:4] == [max(english[: n + 1]) for n in range(4)]


def test_params_tags_and_artifacts_say_what_ran(
    finished: Run, folder: Path, tmp_path: Path
) -> None:
    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    parent, trials = runs_of(folder, "tiny")
    paper = trials["paper"]
    assert paper.data.params["method.push_margin"] == "None"
    assert paper.data.params["method.push_weight"] == "0.1"
    assert paper.data.params["method.view.radius"] == "paper"
    assert trials["plain"].data.params["method.name"] == "plain"
    assert 0.1 <= float(trials["01"].data.params["method.pull_weight"]) <= 10
    for run in (parent, paper):
        assert run.data.tags["task"] == "tiny"
        assert run.data.tags["selection"] == "dev/accuracy/en"
        assert run.data.tags["version.ray"].startswith("2.")
    names = {item.path for item in client.list_artifacts(parent.info.run_id)}
    assert {"leaderboard.csv", "leaderboard.json", "best.yaml", "search.yaml"} <= names
    assert "report.html" in names
    pictures = {item.path for item in client.list_artifacts(parent.info.run_id, "pictures")}
    assert {f"pictures/{name}.png" for name in ("history", "learning-curves", "test-accuracy")} <= (
        pictures
    )
    of_trial = {item.path for item in client.list_artifacts(paper.info.run_id)}
    assert {"trial.html", "confusion.png"} <= of_trial
    shown = Path(client.download_artifacts(paper.info.run_id, "trial.html", str(tmp_path)))
    accuracy = 100 * paper.data.metrics["test/accuracy/ru"]
    assert f'<td>ru</td><td class="right">18</td><td class="right">{accuracy:.1f}</td>' in (
        shown.read_text(encoding="utf-8")
    )
    spec = Path(client.download_artifacts(paper.info.run_id, "spec.yaml", str(tmp_path)))
    assert load_spec(str(spec)).method.view.radius == "paper"


def test_runs_are_named_and_described_by_what_they_are(
    finished: Run, folder: Path, state: Path
) -> None:
    parent, trials = runs_of(folder, "tiny")
    assert trials["plain"].info.run_name == "plain"
    values = trials["01"].data.params
    name = trials["01"].info.run_name.split()
    assert name[:2] == ["01", "ear"]
    for sign, key in (("m", "push_margin"), ("β", "pull_weight"), ("r", "view.radius")):
        assert f"{sign}={float(values[f'method.{key}']):.3g}" in name
    note = "mlflow.note.content"
    assert f"runs/{state.name}/best.yaml" in parent.data.tags[note]
    score = 100 * trials["01"].data.metrics["test/accuracy/zero_shot_mean"]
    assert f"zero-shot mean {score:.1f} %" in trials["01"].data.tags[note]


def test_best_yaml_trains_to_the_same_scores(
    state: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XLT_RAY_CACHE", str(folder / "cache"))
    spec = load_spec(str(state / "best.yaml"))
    assert spec.search.baselines == ("plain", "rs-rp") and not spec.search.parameters
    reports: list[dict[str, float]] = []
    Trainer(
        build(spec, torch.device("cpu")),
        spec.training,
        selection=spec.search.objective,
        workers=Workers(),
        folder=tmp_path,
        report=lambda metrics, checkpoint: reports.append(dict(metrics)),
    ).train()
    (winner,) = [row for row in leaderboard(state).values() if row["rank"] == 1]
    assert reports[-1][OBJECTIVE] == winner["objective"]
    for code in LANGUAGES:
        assert reports[-1][f"test/accuracy/{code}"] == winner[f"test/accuracy/{code}"]


def test_alignment_is_measured_before_and_after(finished: Run, folder: Path, state: Path) -> None:
    _, trials = runs_of(folder, "tiny")
    written = json.loads((state / "assessment" / "assessment.json").read_text())
    assert set(written) == {"pretrained", "plain", "best"}
    for name in ("pretrained", "plain"):
        metrics = trials[name].data.metrics
        for place in ("", "embedding/", "pulled/"):
            by_language = [metrics[f"alignment/{place}retrieval/{code}"] for code in ("de", "ru")]
            mean = metrics[f"alignment/{place}retrieval/mean"]
            assert mean == pytest.approx(sum(by_language) / 2)
            assert written[name][f"alignment/{place}retrieval/mean"] == mean
    for picture in ("assessment/alignment.png", "assessment/projection.png", "accuracy.png"):
        assert (state / picture).read_bytes().startswith(b"\x89PNG")


@pytest.fixture(scope="module")
def compared(finished: Run, folder: Path, state: Path) -> Run:
    """The finished search, resumed for a comparison and for every pair of languages."""
    run = launch("--resume", str(state), "--seeds", "1", "--generalized", folder=folder)
    assert run.code == 0, run.output + run.errors
    return run


def test_comparison_follows_a_finished_search(compared: Run, folder: Path, state: Path) -> None:
    assert "Difference to plain" in compared.output
    _, trials = runs_of(folder, "tiny")
    names = ("best", "plain", "rs-rp")
    written = json.loads((state / "comparison.json").read_text())
    assert written["seeds"] == [8] and written["methods"] == list(names)
    scores = {}
    # The run of the best configuration is named after it: another one has runs of its own.
    ranked = json.loads((state / "leaderboard.json").read_text())
    best = next(row["trial"] for row in ranked if row["trial"] in ("paper", "01"))
    labels = {name: f"best-{best}" if name == "best" else name for name in names}
    for name in names:
        run = trials[f"{labels[name]}-seed8"]
        assert run.data.tags["stage"] == "comparison" and run.data.params["training.seed"] == "8"
        scores[name] = run.data.metrics["test/accuracy/zero_shot_mean"]
        mean = written["accuracy"][name]["zero_shot_mean"]["mean"]
        assert mean == pytest.approx(scores[name])
    difference = written["difference"]["best"]["plain"]["zero_shot_mean"]
    assert difference["mean"] == pytest.approx(scores["best"] - scores["plain"])
    assert difference["low"] <= difference["mean"] <= difference["high"]


def test_comparison_leaves_the_search_as_it_was(compared: Run, folder: Path, state: Path) -> None:
    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    _, trials = runs_of(folder, "tiny")
    for label in ("paper", "01", "plain", "rs-rp"):
        history = client.get_metric_history(trials[label].info.run_id, "test/accuracy/ru")
        assert len(history) == 1
    # Going on, it makes the pages of what is new only.
    lines = (state / STATE / "tracking" / "journal.jsonl").read_text("utf-8").splitlines()
    pages = Counter(
        record["trial"]
        for record in map(json.loads, lines)
        if record["kind"] == "artifact" and record["file"].endswith("/trial.html")
    )
    assert pages == Counter(trials.keys() - {"pretrained"})


def test_pairs_of_languages_agree_with_the_test_set(compared: Run, state: Path) -> None:
    rows = leaderboard(state)
    # If plain fine-tuning wins, "best" is the best of the others.
    others = [row for label, row in rows.items() if label != "plain"]
    best = min(others, key=lambda row: row["rank"])
    for name, row in (("best", best), ("plain", rows["plain"])):
        lines = (state / "assessment" / f"generalized-{name}.csv").read_text().splitlines()
        header, *body = [line.split(",") for line in lines]
        assert header[1:] == [line[0] for line in body] == list(LANGUAGES)
        for number, code in enumerate(LANGUAGES):
            assert float(body[number][number + 1]) == pytest.approx(row[f"test/accuracy/{code}"])


def test_dry_run_trains_nothing_and_joins_only_the_cluster_that_is_named(tmp_path: Path) -> None:
    dry = ("--search", str(write_search(tmp_path)), "--dry-run")
    head = {"num_cpus": 57, "include_dashboard": False}
    other = Cluster(initialize_head=True, head_node_args=head)
    join = ("--address", other.address)
    try:
        own = launch(*dry, folder=tmp_path)
        joined = launch(*dry, *join, folder=tmp_path)
        too_large = launch(*dry, *join, "--set", "resources.cpus_per_worker=58", folder=tmp_path)
    finally:
        other.shutdown()
    assert own.code == 0, own.output + own.errors
    assert "tiny: en -> de ru" in own.output and "3 trials" in own.output
    assert f"on {os.cpu_count()} CPU" in own.output
    assert joined.code == 0, joined.errors
    assert "on 57 CPU" in joined.output
    assert too_large.code == 2 and "58 CPU" in too_large.errors
    assert not (tmp_path / "runs").exists()
    assert not (tmp_path / "mlflow.db").exists()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--search", "dmo"], "did you mean 'demo'"),
        (["--search", "demo", "--set", "method.push_wieght=1"], "did you mean 'push_weight'"),
        (["--search", "demo", "--set", "training.batch_size=0"], "training.batch_size"),
        (["--search", "demo", "--set", "training.batch_size"], "expected key=value"),
        (["--search", "demo", "--num-trials", "0"], "num_trials"),
        (["--search", "nowhere.yaml"], "no such file"),
        (["--search", "xnli_xlmr", "--data-dir", "nowhere"], "nowhere"),
        (["--search", "demo", "--tracking-uri", "htp://localhost"], "tracking URI"),
        (["--resume", "nowhere"], "--resume nowhere"),
        ([], "--search NAME is missing"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(
    arguments: list[str], expected: str, tmp_path: Path
) -> None:
    run = launch(*arguments, folder=tmp_path, timeout_s=60)
    assert run.code == 2
    assert expected in run.errors
    assert len(run.errors.strip().splitlines()) == 1
    assert "Traceback" not in run.output + run.errors


def test_mistyped_flag_suggests_the_right_one(tmp_path: Path) -> None:
    run = launch("--serch", "demo", folder=tmp_path, timeout_s=60)
    assert run.code == 2
    assert "--search" in run.errors


def test_searches_are_listed_with_what_they_are_for(tmp_path: Path) -> None:
    run = launch("--list", folder=tmp_path, timeout_s=60)
    assert run.code == 0
    for path in (ROOT / "search_spaces").glob("*.yaml"):
        assert path.stem in run.output
        assert yaml.safe_load(path.read_text())["description"][:30] in run.output
