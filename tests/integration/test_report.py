"""The commands `report` and `train`.

The report from a folder or from MLflow equals the one that the search wrote. `train` runs one
configuration with several seeds.
"""

from __future__ import annotations

import contextlib
import csv
import json
import re
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from mlflow import MlflowClient

from tests.integration.conftest import Recorded
from tests.support.search_results import search
from tests.support.searching import LANGUAGES, ROOT, Run, environment, launch
from tests.support.tracking_server import MlflowServer
from tests.unit.report.test_html import Page
from xlt_ray.cli.app import main
from xlt_ray.config.loading import dump_spec, load_spec
from xlt_ray.config.task import load_task
from xlt_ray.evaluation import comparison
from xlt_ray.evaluation.intervals import rank_correlation
from xlt_ray.names import LEDGER, LEDGER_FILE, STATE
from xlt_ray.report import comparison_tables
from xlt_ray.report import html as html_report
from xlt_ray.report import tables as report_tables
from xlt_ray.search import leaderboard
from xlt_ray.search.plan import SearchOutline
from xlt_ray.search.trials import Trial
from xlt_ray.tracking.courier import RUN_KEY_TAG

Ended = tuple[int | str | None, str, str]
"""Exit code, output and errors."""
Report = Callable[..., Ended]

PLACES = ("model", "mean", "margin", "embedding", "pulled layer")
"""Columns of the table of alignment, before the languages."""


@pytest.fixture(scope="module")
def folder(recorded_search: Recorded) -> Path:
    return recorded_search.folder


@pytest.fixture(scope="module")
def config(recorded_search: Recorded) -> Path:
    """A search over parameters, which `train` is to leave out."""
    return recorded_search.config


@pytest.fixture(scope="module")
def trained(folder: Path, config: Path) -> Run:
    run = launch("train", "--config", str(config), "--seeds", "2", folder=folder)
    assert run.code == 0, run.output + run.errors
    return run


@pytest.fixture(scope="module")
def state(trained: Run, folder: Path) -> Path:
    (state,) = (folder / "runs").glob("tiny-*")
    return state


@pytest.fixture(scope="module")
def server(recorded_search: Recorded) -> MlflowServer:
    return recorded_search.server


@pytest.fixture(scope="module")
def compared(recorded_search: Recorded) -> Path:
    """The folder of a search with a comparison, recorded on a server."""
    return recorded_search.state


@pytest.fixture
def store(folder: Path, state: Path, tmp_path: Path) -> MlflowClient:
    """A copy of the database that the first search was recorded in."""
    shutil.copy(folder / "mlflow.db", tmp_path / "copy.db")
    return MlflowClient(f"sqlite:///{tmp_path}/copy.db")


@pytest.fixture
def report(
    store: MlflowClient,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Report:
    """Runs `report` over that copy, in the test's folder."""
    monkeypatch.chdir(tmp_path)
    stored = ["report", "--tracking-uri", store.tracking_uri]
    return lambda *flags: run([*stored, *flags], monkeypatch, capsys)


def run(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Ended:
    monkeypatch.setattr(sys, "argv", ["xlt-ray", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code, *capsys.readouterr()


def run_without_ray(*arguments: str, folder: Path, **variables: str) -> str:
    """Run `report` in a process that has no Ray; return what it prints."""
    code = "import sys; sys.modules['ray'] = None; from xlt_ray.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "report", *arguments],
        cwd=folder,
        env=environment(folder) | variables,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0 and done.stderr == "", done.stderr
    return done.stdout


def test_train_runs_each_seed_once_and_nothing_else(trained: Run, state: Path) -> None:
    rows = json.loads((state / "leaderboard.json").read_text())
    assert {row["trial"] for row in rows} == {"best-seed5", "best-seed6"}
    assert {row["training.seed"] for row in rows} == {5, 6}
    assert all(row["status"] == "finished" for row in rows)
    assert [path.relative_to(state) for path in state.rglob(LEDGER_FILE)] == [Path(LEDGER)]
    asked = yaml.safe_load((state / "search.yaml").read_text())
    assert asked["search"]["parameters"] == {} and asked["search"]["baselines"] == []
    assert "2 trials, " in trained.output and (state / "best-model" / "config.json").is_file()


def test_train_tells_mean_and_deviation_of_each_language(trained: Run, state: Path) -> None:
    rows = json.loads((state / "leaderboard.json").read_text())
    with (state / "comparison.csv").open(newline="") as file:
        table = {row["column"]: row for row in csv.DictReader(file)}
    (line,) = (
        line for line in trained.output.splitlines() if line.startswith("│ best ") and "±" in line
    )
    assert "mean ± standard deviation over 2 seeds" in trained.output
    for code in LANGUAGES:
        values = [row[f"test/accuracy/{code}"] for row in rows]
        mean, deviation = statistics.mean(values), statistics.stdev(values)
        assert float(table[code]["accuracy"]) == pytest.approx(mean)
        assert float(table[code]["deviation"]) == pytest.approx(deviation)
        assert f"{100 * mean:.1f} ± {100 * deviation:.1f}" in line


def test_one_seed_is_the_configurations_own(config: Path) -> None:
    changes = {"search.parameters": {}, "search.baselines": []}
    for seeds, expected in ((0, ["config"]), (3, [5, 6, 7])):
        spec = load_spec(str(config), changes | {"search.comparison_seeds": seeds})
        outline = SearchOutline(spec, load_task(spec.task))
        trials = outline.fixed_trials()
        assert outline.trials == len(trials) == len(expected) and outline.compared_runs == 0
        assert outline.comparison_trials(Trial.labelled("01")) == []
        assert [trial.values.get("training.seed", trial.label) for trial in trials] == expected


@pytest.mark.parametrize("which", ["state", "compared"])
def test_the_report_anew_is_what_the_search_wrote(
    which: str, folder: Path, request: pytest.FixtureRequest
) -> None:
    place: Path = request.getfixturevalue(which)
    written = (place / "report.html").read_text(encoding="utf-8")
    for lost in ("report.html", "comparison.csv", "pictures"):
        target = place / lost
        shutil.rmtree(target) if target.is_dir() else target.unlink()
    before = {path: path.stat().st_mtime_ns for path in place.rglob("*") if path.is_file()}
    shown = run_without_ray("--search", "tiny", "--storage", str(place.parent), folder=folder)
    assert "report.html" in shown
    anew = (place / "report.html").read_text(encoding="utf-8")
    assert without_pictures(anew) == without_pictures(written)
    assert pictures(anew) == pictures(written) and "learning curves" in pictures(anew)
    (place / "report.html").rename(aside := folder / f"{which}.html")
    after = {path: path.stat().st_mtime_ns for path in place.rglob("*") if path.is_file()}
    assert after == before
    aside.rename(place / "report.html")


def without_pictures(page: str) -> str:
    """A page's text; which pixels a figure has may depend on fonts and their cache."""
    return re.sub(r"data:image/png;base64,[\w+/=]+", "", page)


def pictures(page: str) -> list[str]:
    return re.findall(r'<img alt="([^"]+)" src="data:image/png;base64,iVBOR', page)


@contextlib.contextmanager
def gone(*places: Path) -> Iterator[None]:
    """Take files and folders away for a while."""
    for place in places:
        place.rename(place.with_name(f"{place.name}-gone"))
    try:
        yield
    finally:
        for place in places:
            place.with_name(f"{place.name}-gone").rename(place)


@pytest.mark.parametrize("which", ["state", "compared"])
def test_the_report_from_mlflow_alone_is_what_the_search_wrote(
    which: str, folder: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """The first search is in a database, the second on a server; its folder and its task are not
    there."""
    place: Path = request.getfixturevalue(which)
    if which == "state":
        uri = f"sqlite:///{folder}/mlflow.db"
        flags, variables = ["--tracking-uri", uri, "--search", place.name], {}
    else:
        uri = request.getfixturevalue("server").uri
        flags, variables = ["--output", "page.html"], {"MLFLOW_TRACKING_URI": uri}
    with gone(place.parent, folder / "data", folder / "encoder"):
        shown = run_without_ray("--experiment", "tiny", *flags, folder=tmp_path, **variables)
    (made,) = tmp_path.iterdir()
    assert made.name == ("report.html" if which == "state" else "page.html")
    assert shown == f"Report:  {made.name}\n"
    anew = made.read_text(encoding="utf-8")
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("tiny")
    assert experiment is not None
    named = f"attributes.run_name = '{place.name}'"
    (search,) = client.search_runs([experiment.experiment_id], named)
    kept = tmp_path / "kept"
    kept.mkdir()
    client.download_artifacts(search.info.run_id, "report.html", str(kept))
    written = (kept / "report.html").read_text(encoding="utf-8")
    # All from the tables on: figures, notes and the pictures' very bytes.
    assert anew.partition("<h2>Results")[2] == written.partition("<h2>Results")[2] != ""
    assert anew.partition("<dl>")[0] == written.partition("<dl>")[0]
    assert "learning curves" in pictures(anew)
    facts, before = (page.partition("<h2>Results")[0] for page in (anew, written))
    assert before.partition("<dt>Re-run")[0] == facts.partition("<dt>Re-run")[0]
    assert search.info.run_id in facts and "--search best.yaml" in facts
    # There is no folder to go on in.
    assert "Go on" in before and "Go on" not in facts
    assert "Not in MLflow" not in facts and "Not finished" not in facts


@pytest.mark.parametrize("which", ["state", "compared"])
def test_the_report_tells_how_near_translations_lie(
    which: str, request: pytest.FixtureRequest
) -> None:
    place: Path = request.getfixturevalue(which)
    measured = json.loads((place / "assessment" / "assessment.json").read_text())
    plain = ["plain"] if which == "compared" else []
    assert list(measured) == ["pretrained", *plain, "best"]
    page = Page((place / "report.html").read_text(encoding="utf-8"))
    header = [*PLACES, *LANGUAGES[1:]]
    rows = page.rows[page.rows.index(header) + 1 :][: len(measured)]
    for row, (name, found) in zip(rows, measured.items(), strict=True):
        percent = {
            column: f"{100 * found[f'alignment/retrieval/{column}']:.1f}"
            for column in ("mean", *LANGUAGES[1:])
        }
        shown = dict(zip(header, row, strict=True))
        assert shown.items() >= percent.items() and shown["model"] == name
    assert "nearest neighbour in the other language is its translation" in page.text


def record(store: MlflowClient, name: str, files: dict[str, str], status: str = "KILLED") -> str:
    """Record a search by hand, in the experiment `by hand`; return its run's id."""
    found = store.get_experiment_by_name("by hand")
    place = Path(store.tracking_uri.removeprefix("sqlite:///")).parent / "artifacts"
    experiment = found.experiment_id if found else None
    experiment = experiment or store.create_experiment("by hand", place.as_uri())
    tags = {RUN_KEY_TAG: name, "task": "tiny"}
    run_id: str = store.create_run(experiment, tags=tags, run_name=name).info.run_id
    for file, text in files.items():
        store.log_text(run_id, text, file)
    store.set_terminated(run_id, status)
    return run_id


def test_of_a_stopped_search_mlflow_may_not_have_all(
    state: Path,
    store: MlflowClient,
    report: Report,
) -> None:
    files = {name: (state / name).read_text() for name in ("search.yaml", "leaderboard.json")}
    run_id = record(store, "stopped", files)
    code, shown, errors = report("--experiment", "by hand", "--search", run_id)
    assert not code, errors
    lacking = "comparison, pictures, assessment"
    assert shown == f"Report:  report.html (not in MLflow: {lacking})\n"
    page = Page(Path("report.html").read_text(encoding="utf-8"))
    assert f"Not in MLflow{lacking}" in page.text and "Not finished" in page.text
    assert "img" not in page.tags
    rows = json.loads(files["leaderboard.json"])
    assert [row[1] for row in page.rows[1:]] == [row["trial"] for row in rows]
    assert page.rows[0][-3:] == list(LANGUAGES) and "tiny, en → de ru" in page.text


def test_a_search_whose_trials_failed_has_a_report_from_mlflow(
    state: Path,
    store: MlflowClient,
    report: Report,
) -> None:
    """There are no scores, so what could be lacking could not be there."""
    failed = {"rank": None, "trial": "best-seed5", "status": "failed", "reason": "loss is <nan>"}
    board = json.dumps([failed | {"training.seed": 5, "objective": None, "seconds/total": 1.0}])
    files = {"search.yaml": (state / "search.yaml").read_text(), "leaderboard.json": board}
    record(store, "failed", files, "FINISHED")
    record(store, "under way", files, "RUNNING")
    code, shown, errors = report("--experiment", "by hand")
    assert not code and shown == "Report:  report.html\n", errors
    page = Page(Path("report.html").read_text(encoding="utf-8"))
    assert "failed" in page.text and "under way" not in page.text
    assert "loss is <nan>" in page.text and "tiny, en → de ru" in page.text


def test_tables_from_mlflow_are_those_of_the_results(
    config: Path,
    store: MlflowClient,
    tmp_path: Path,
    report: Report,
) -> None:
    """Of made-up results, which differ more than those of tiny searches do."""
    rng = np.random.default_rng(0)
    names = ("en", "de", "ru", "en_virtual", "mean", "zero_shot_mean")
    entries = [
        replace(entry, selected={f"accuracy/{name}": float(rng.random()) for name in names})
        for entry in search(12, LANGUAGES)
    ]
    correct = {
        method: {code: rng.random((3, 50)) < right for code in LANGUAGES}
        for method, right in (("best", 0.9), ("plain", 0.6))
    }
    compared = comparison.compare(correct, [5, 6, 7], LANGUAGES, "en")
    spec = load_spec(str(config), {"search.comparison_seeds": 3})
    made = tmp_path / "made"
    made.mkdir()
    (made / "search.yaml").write_text(dump_spec(spec), encoding="utf-8")
    leaderboard.write(entries, made)
    leaderboard.write([], made, "comparison-runs")
    comparison_tables.write(compared, made)
    files = {path.name: path.read_text(encoding="utf-8") for path in made.iterdir()}
    record(store, "made up", files, "FINISHED")
    code, _, errors = report("--experiment", "by hand")
    assert not code, errors
    objective, searched = spec.search.objective, list(spec.search.parameters)
    board = report_tables.leaderboard_table(entries, objective, searched, LANGUAGES)
    tables = [board, *comparison_tables.tables(compared)]
    expected = Page(html_report.page("", "", {}, tables, {}, [])).rows
    rows = Page(Path("report.html").read_text(encoding="utf-8")).rows
    assert rows[: len(expected)] == expected
    finished = [entry for entry in entries if entry.status == "finished"]
    test = [entry.test["accuracy/zero_shot_mean"] for entry in finished]
    ordered = {
        name: rank_correlation([entry.selected[f"accuracy/{name}"] for entry in finished], test)
        for name in ("en", "en_virtual", "zero_shot_mean")
    }
    assert rows[len(expected) + 1 :] == [
        [f"dev/accuracy/{name}", f"{found:+.2f}", f"{chance:.3f}"]
        for name, (found, chance) in ordered.items()
    ]


def test_what_mlflow_does_not_have_is_reported_in_one_line(
    state: Path,
    store: MlflowClient,
    tmp_path: Path,
    report: Report,
) -> None:
    spec = (state / "search.yaml").read_text()
    store.create_experiment("begun")
    store.delete_experiment(store.create_experiment("deleted"))
    record(store, "early", {"search.yaml": spec})
    record(store, "other", {"search.yaml": f"{spec}\nepochs: 3", "leaderboard.json": "[]"})
    Path("notes.db").write_bytes(b"SQLite format 3\0" + bytes(84))
    before = set(tmp_path.rglob("*"))
    for flags, told in (
        (["--experiment", "tinny"], "no experiment of this name (did you mean 'tiny'?)"),
        (["--experiment", "deleted"], "--experiment deleted: MLflow has no experiment"),
        (["--experiment", "begun"], "--experiment begun: no search in it has finished"),
        (["--experiment", "by hand"], "reports on one that was stopped: other, early"),
        (["--experiment", "by hand", "--search", "early"], "--search early: no outcome of it"),
        (["--experiment", "by hand", "--search", "other"], "search.yaml: unknown key 'epochs'"),
        (["--experiment", "tiny", "--search", f"{state.name}0"], f"(did you mean '{state.name}'?)"),
        # A trial is no search.
        (["--experiment", "tiny", "--search", "best-seed5"], "no search of this name or id"),
        # A database, but none of MLflow's.
        (["--experiment", "tiny", "--tracking-uri", "sqlite:///notes.db"], "tracking URI: "),
    ):
        code, output, errors = report(*flags)
        assert code == 2 and output == ""
        assert errors.startswith("error: ") and len(errors.splitlines()) == 1
        assert told in errors
    assert set(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("which", ["state", "compared"])
def test_a_search_under_way_is_reported_as_far_as_it_has_come(
    which: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    request: pytest.FixtureRequest,
) -> None:
    """One trial has finished, its predictions are not kept yet, and the ledger ends within a
    line."""
    place: Path = request.getfixturevalue(which)
    part = tmp_path / place.name
    (part / STATE).mkdir(parents=True)
    shutil.copy(place / "search.yaml", part)
    lines = (place / LEDGER).read_bytes().splitlines(keepends=True)
    whole = 1 + next(number for number, line in enumerate(lines) if b'"status"' in line)
    torn = b"".join(lines[:whole]) + lines[whole][:20]
    (part / LEDGER).write_bytes(torn)
    output = tmp_path / "so-far.html"
    code, shown, errors = run(
        ["report", "--search", str(part), "--output", str(output)], monkeypatch, capsys
    )
    assert not code and errors == ""
    assert "so-far.html" in shown
    page = Page(output.read_text(encoding="utf-8"))
    told = {row[1]: row[0] for row in page.rows[1:]}
    assert told.keys() == {json.loads(line)["trial"] for line in lines[1:whole]}
    tested = {json.loads(line)["trial"] for line in lines[1:whole] if b'"test/accuracy' in line}
    assert tested == {label for label in told if told[label] != "interrupted"} != set()
    assert (part / LEDGER).read_bytes() == torn
    assert sorted(path.name for path in part.iterdir()) == ["search.yaml", STATE]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["report"], "--search FOLDER is missing, or --experiment NAME"),
        (["report", "--search", "begun", "--experiment", "x"], "--search begun: it is a folder"),
        (["report", "--search", "begun", "--tracking-uri", "x"], "goes with --experiment"),
        (["report", "--experiment", "x"], "mlflow.db"),
        (["report", "--experiment", "x", "--tracking-uri", "mlruns"], "mlruns"),
        (["report", "--experiment", "x", "--tracking-uri", "htp://a"], "unknown scheme"),
        (
            ["report", "--experiment", "x", "--tracking-uri", "http://u:SECRET@127.0.0.1:1"],
            "no MLflow server answers at http://***@127.0.0.1:1",
        ),
        (["report", "--experiment", "x", "--output", "x.pdf"], "x.pdf: it must end in .html"),
        (["report", "--experiment", "x", "--output", "no/x.html"], "there is no folder"),
        (["report", "--search", "nowhere"], "--search nowhere: neither the folder of a search"),
        (["report", "--search", "."], "--search .: there is no search.yaml in it"),
        (["report", "--serch", "x"], "--search"),
        (["report", "--search", "begun"], "--search begun: no trial has started"),
        (["report", "--search", "begun", "--output", "x.pdf"], "x.pdf: it must end in .html"),
        (["report", "--search", "begun", "--output", "no/x.html"], "there is no folder"),
        (["train"], "--config"),
        (["train", "--config", "nowhere.yaml"], "nowhere.yaml"),
        (["train", "--config", "demo", "--sedes", "2"], "--seeds"),
        (["train", "--config", "demo", "--seeds", "0"], "--seeds 0"),
        (["train", "--config", "demo", "--seeds", "x"], "--seeds"),
        (["train", "--config", "demo", "--set", "search.num_trials=2"], "search.num_trials"),
        (["train", "--config", "demo", "--set", "search.comparison_seeds=2"], "comparison_seeds"),
        (["train", "--config", "demo", "--set", "training.epoch=2"], "did you mean 'epochs'"),
        (["trian", "--config", "demo"], "no command 'trian' (did you mean 'train'?)"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_mistakes_are_reported_in_one_line(
    arguments: list[str],
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    Path("begun").mkdir()
    shutil.copy(ROOT / "search_spaces" / "demo.yaml", "begun/search.yaml")
    code, output, errors = run(arguments, monkeypatch, capsys)
    assert code == 2 and output == ""
    assert errors.startswith("error: ") and len(errors.splitlines()) == 1
    assert told in errors
    assert [path.name for path in tmp_path.rglob("*")] == ["begun", "search.yaml"]


def test_help_lists_the_commands(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, shown, _ = run(["--help"], monkeypatch, capsys)
    assert not code
    for name in ("search", "train", "evaluate", "predict", "report", "ui"):
        assert f"xlt-ray {name}: " in shown
        code, own, _ = run([name, "--help"], monkeypatch, capsys)
        assert not code and f"xlt-ray {name} " in own
