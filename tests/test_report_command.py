"""`report` and `train` on the command line: the report from a folder alone is the one that the
search wrote, and one configuration is run with as many seeds as were asked for."""

from __future__ import annotations

import csv
import json
import re
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.searching import LANGUAGES, ROOT, Run, environment, launch, write_search
from xlt_ray.cli import main
from xlt_ray.plan import Outline
from xlt_ray.spec import load_spec
from xlt_ray.task import load_task


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("search")


@pytest.fixture(scope="module")
def config(folder: Path) -> Path:
    """A search over parameters, which `train` is to leave out."""
    return write_search(folder, training={"seed": 4}, assessment={"alignment_rows": 5})


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
def compared(folder: Path, config: Path, trained: Run) -> Path:
    """The folder of a search with a comparison."""
    flags = ("--seeds", "1", "--num-trials", "1", "--storage", "others")
    run = launch("--search", str(config), *flags, folder=folder)
    assert run.code == 0, run.output + run.errors
    (state,) = (folder / "others").glob("tiny-*")
    return state


def run(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> tuple[int | str | None, str, str]:
    monkeypatch.setattr(sys, "argv", ["xlt-ray", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code, *capsys.readouterr()


def test_train_runs_each_seed_once_and_nothing_else(trained: Run, state: Path) -> None:
    rows = json.loads((state / "leaderboard.json").read_text())
    assert {row["trial"] for row in rows} == {"best-seed5", "best-seed6"}
    assert {row["training.seed"] for row in rows} == {5, 6}
    assert all(row["status"] == "finished" for row in rows)
    assert [path.parent.name for path in state.rglob("trials.jsonl")] == [state.name]
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
    for seeds, expected in ((0, [{"label": "config"}]), (3, [5, 6, 7])):
        spec = load_spec(str(config), changes | {"search.comparison_seeds": seeds})
        outline = Outline(spec, load_task(spec.task))
        trials = outline.fixed_trials()
        assert outline.trials == len(trials) == len(expected) and outline.compared_runs == 0
        assert outline.comparison_trials({}) == []
        assert [trial.get("training.seed", trial) for trial in trials] == expected


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
    # Ray is not there.
    code = "import sys; sys.modules['ray'] = None; from xlt_ray.cli import main; main()"
    storage = ["--storage", str(place.parent)]
    done = subprocess.run(
        [sys.executable, "-c", code, "report", "--search", "tiny", *storage],
        cwd=folder,
        env=environment(folder),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0 and done.stderr == "", done.stderr
    assert "report.html" in done.stdout
    anew = (place / "report.html").read_text(encoding="utf-8")
    assert without_pictures(anew) == without_pictures(written)
    assert pictures(anew) == pictures(written) and "learning curves" in pictures(anew)
    (place / "report.html").rename(folder / f"{which}.html")
    after = {path: path.stat().st_mtime_ns for path in place.rglob("*") if path.is_file()}
    assert after == before


def without_pictures(page: str) -> str:
    """A page's text; which pixels a figure has may depend on fonts and their cache."""
    return re.sub(r"data:image/png;base64,[\w+/=]+", "", page)


def pictures(page: str) -> list[str]:
    return re.findall(r'<img alt="([^"]+)" src="data:image/png;base64,iVBOR', page)


def test_a_search_under_way_is_reported_as_far_as_it_has_come(
    state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The ledger ends within a line, and no predictions are kept yet."""
    part = tmp_path / state.name
    part.mkdir()
    shutil.copy(state / "search.yaml", part)
    lines = (state / "trials.jsonl").read_bytes().splitlines(keepends=True)
    torn = b"".join(lines[:-3]) + lines[-3][:20]
    (part / "trials.jsonl").write_bytes(torn)
    output = tmp_path / "so-far.html"
    code, shown, errors = run(
        ["report", "--search", str(part), "--output", str(output)], monkeypatch, capsys
    )
    assert not code, errors
    assert "so-far.html" in shown and "interrupted" in output.read_text()
    assert (part / "trials.jsonl").read_bytes() == torn
    assert sorted(path.name for path in part.iterdir()) == ["search.yaml", "trials.jsonl"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["report"], "--search"),
        (["report", "--search", "nowhere"], "--search nowhere: neither the folder of a search"),
        (["report", "--search", "."], "--search .: there is no search.yaml in it"),
        (["report", "--serch", "x"], "--search"),
        (["report", "--search", "begun"], "--search begun: no trial was begun"),
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
def test_mistakes_are_told_in_one_line(
    arguments: list[str],
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
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
