"""Wrong flags of the command line: each is one line that names the place, and nothing is begun.

`python -m tests.unit.cli.test_bad_flags` counts the wrong flags and the wrong search files.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from tests.support.searching import ROOT, environment, launch
from tests.unit.config import test_bad_searches
from xlt_ray.cli.app import app, main
from xlt_ray.config.loading import load_spec, parse_overrides
from xlt_ray.errors import UserError
from xlt_ray.search.make_plan import make_probed_plan

SEARCH = typer.main.get_command(app).commands["search"]  # type: ignore[attr-defined]
FLAGS = {flag.opts[0]: getattr(flag, "is_flag", False) for flag in SEARCH.params}
"""Every flag of the command line, and whether it takes no value."""

WHOLE_NUMBERS = ("--num-trials", "--max-concurrent", "--seed", "--seeds")
DEMO = ("--search", "demo")
LONG = "x" * 5000
MARGIN = "search.parameters.method.push_margin"

MISSING_VALUE = [[flag] for flag, alone in FLAGS.items() if not alone]
NEEDLESS_VALUE = [[f"{flag}=yes"] for flag, alone in FLAGS.items() if alone]
MISTYPED = [[f"--{flag[2]}{flag[2:]}"] for flag in FLAGS]
UNKNOWN = [
    ["--frobnicate"],
    ["-x"],
    ["---"],
    ["--sée"],
    [f"--{LONG}"],
    ["--a b\nc"],
    ["demo"],
    ["-"],
]
NO_NUMBER = [
    [*DEMO, flag, value]
    for flag in WHOLE_NUMBERS
    for value in ("", " ", "x", "1.5", "1e3", "0x10", "nan", "inf", "null", "[1]", "--list", LONG)
]
OUT_OF_RANGE = [
    *([*DEMO, flag, "-1"] for flag in WHOLE_NUMBERS),
    *([*DEMO, flag, str(2**70)] for flag in WHOLE_NUMBERS if flag != "--max-concurrent"),
    [*DEMO, "--num-trials", "0"],
    [*DEMO, "--num-trials", "1000001"],
    [*DEMO, "--max-concurrent", "0"],
    [*DEMO, "--seed", str(2**32)],
    [*DEMO, "--seeds", "10001"],
]
NO_SUCH_PLACE = [
    ["--search", "dmo"],
    ["--search", ""],
    ["--search", "."],
    ["--search", "nowhere.yaml"],
    ["--search", "/nowhere/demo.yaml"],
    ["--search", f"{LONG}.yaml"],
    ["--search", LONG],
    ["--search", "a\nb"],
    ["--search", "дэмо"],
    ["--resume", "nowhere"],
    ["--resume", "/"],
    ["--resume", ""],
    ["--resume", LONG],
    [*DEMO, "--tracking-uri", "htp://localhost"],
    [*DEMO, "--tracking-uri", "localhost:5000"],
    [*DEMO, "--tracking-uri", "http://"],
    [*DEMO, "--tracking-uri", "http://127.0.0.1:0"],
    [*DEMO, "--tracking-uri", "http://127.0.0.1:x"],
    [*DEMO, "--tracking-uri", "http://127.0.0.1:1"],
    [*DEMO, "--tracking-uri", "sqlite://"],
    [*DEMO, "--tracking-uri", "sqlite:////etc/hostname/x.db"],
    [*DEMO, "--tracking-uri", "/etc/hostname"],
    [*DEMO, "--tracking-uri", f"sqlite:///{LONG}.db"],
    [*DEMO, "--address", "nonsense"],
    [*DEMO, "--address", "a b:6379"],
    [*DEMO, "--address", "127.0.0.1:0"],
    [*DEMO, "--address", "127.0.0.1:99999"],
    [*DEMO, "--address", "http://127.0.0.1:8265"],
    [*DEMO, "--address", LONG],
    [*DEMO, "--storage", "gopher://bucket"],
    [*DEMO, "--storage", "S3://bucket"],
    [*DEMO, "--storage", "s3://"],
    [*DEMO, "--storage", "s3://KEY:SECRET@bucket/runs"],
    [*DEMO, "--storage", "s3://bucket/runs?access_key=KEY"],
    [*DEMO, "--storage", "/etc/hostname/runs"],
    [*DEMO, "--storage", LONG],
]
CONTRADICTIONS = [
    [],
    ["--dry-run"],
    ["--seeds", "3"],
    ["--resume", "nowhere", "--baselines"],
    [*DEMO, "--num-trials", "3", "--set", "search.num_trials=4"],
    [*DEMO, "--max-concurrent", "1", "--set", "search.max_concurrent=2"],
    [*DEMO, "--seed", "1", "--set", "search.seed=2"],
    [*DEMO, "--seeds", "2", "--set", "search.comparison_seeds=0"],
    [*DEMO, "--baselines", "--set", "search.baselines=[plain]"],
    [*DEMO, "--generalized", "--set", "assessment.generalized=false"],
    [*DEMO, "--languages", "de", "--set", "target_languages=[de]"],
    [*DEMO, "--model", "a/b", "--set", "model=c/d"],
    [*DEMO, "--data-dir", "a", "--set", "data_dir=b"],
    [*DEMO, "--seeds", "2", "--set", f"training.seed={2**32 - 2}"],
]
SET = [
    # No key, no value, no YAML.
    *("", "=", "=1", " =1", "\t=1", "training.batch_size", "training batch_size 1", "é", LONG),
    *("training.seed=[", "training.seed={", "training.seed='", "training={seed: 1, seed: 2}"),
    *("training.seed=2026-13-45", "training.seed=!!int x", "training.seed=!!float x"),
    *("training.seed=!!bool maybe", "training.seed=!!timestamp x", "training.seed=!!binary é"),
    *("training.seed=@1", "training.seed=*a", "training=&a {seed: *a}", "training.seed=a: b: c"),
    *("training.seed=\t- x", "training={<<: 1}", "training={[1]: 2}", "training={? {}: 2}"),
    *("name=!!python/object/apply:os.getcwd []", "name=!!python/name:os.system", "name=!x y"),
    *('name="a\\0b"', 'model="\\0"', 'data_dir="a\\0"', 'task="\\ud800.yaml"'),
    *("training.seed=" + "9" * 5000, "training.seed=" + "[" * 3000, "training=" + "{a: " * 500),
    # No such key.
    *("nope=1", "trainin.epochs=1", "training.epoch=1", "Training.epochs=1", "TRAINING=1"),
    *(".=1", "..=1", ".training=1", "training.=1", "training..epochs=1", "training.epochs.=1"),
    *("µ=1", "обучение.эпохи=1", "training.epochs\u200b=1", "training.\u202eepochs=1", "\n=1"),
    *(f"{LONG}=1", f"training.{LONG}=1", "__class__=1", "training.__class__=1", "model_config=1"),
    *("0=1", "-=1", "training:epochs=1", "training/epochs=1", "--seed=1", "training.view.kind=x"),
    # A key below a value.
    *("task.name=x", "model.x=1", "name.a.b.c=1", "training.epochs.x=1", "search.num_trials.low=1"),
    *("search.baselines.0=plain", "data_dir.x=1", "method.view.radius.x=1", "training.seed.=1"),
    # A value of another type.
    *("training=3", "training=[]", "training=text", "training=null", "method.view=wordnet"),
    *("training.epochs=many", "training.epochs=1.5", "training.epochs=[1]", "training.epochs={}"),
    *("training.epochs=null", "training.epochs=", "training.epochs=2026-01-01", "name=2026-01-01"),
    *("training.learning_rate=fast", "training.learning_rate=1,5", "training.precision=fp8"),
    *("training.trim_vocabulary=2", "training.trim_vocabulary=maybe", "model=7", "model=true"),
    *("task=[xnli]", "task=null", "task={}", "search.baselines=plain", "search.baselines={a: 1}"),
    *("search.baselines=[mixup]", "search.parameters=[]", "search.parameters=push_margin"),
    *("method.name=era", "method.view.kind=synonims", "method.view.radius=papr", "search=x"),
    # A value out of range.
    *("training.epochs=0", "training.epochs=-1", "training.learning_rate=0", "training.seed=-1"),
    *(f"training.seed={2**32}", "training.max_length=7", "training.batch_size=0", "name=a/b"),
    *("training.learning_rate=.inf", "training.learning_rate=.nan", "training.learning_rate=1e999"),
    *("method.view.radius=1.01", "method.push_weight=-0.1", "resources.gpus_per_worker=1.5"),
    *("resources.cpus_per_worker=0", "search.early_stopping.reduction_factor=1", "name=.."),
    *("name=../x", "name=/x", "name=", "name=-x", f"name={LONG}", "name='a\nb'", "name=ünï"),
    # A search that makes no sense.
    *(f"{MARGIN}=3", f"{MARGIN}.low=9", f"{MARGIN}.low=text", f"{MARGIN}.distribution=normal"),
    *(f"{MARGIN}={{}}", f"{MARGIN}={{distribution: uniform}}", f"{MARGIN}.step=1"),
    *(f"{MARGIN}={{distribution: log_uniform, low: 0, high: 1}}", f"{MARGIN}.low=-1"),
    *(f"{MARGIN}={{distribution: categorical, choices: []}}", f"{MARGIN}.high=.inf"),
    "search.parameters.task={distribution: categorical, choices: [xnli]}",
    "search.parameters.training.max_length={distribution: int, low: 8, high: 9}",
    "search.parameters.training.epochs={distribution: uniform, low: 1, high: 2}",
    "search.parameters.method.view.noise_radius={distribution: uniform, low: 0, high: 1}",
    # A value that every trial draws.
    *("method.name=plain", "method.push_margin=0.1", "method.view.radius=0.2"),
    "method={reduction: padded, pull_alignment: word}",
    # A login in a place that is recorded.
    *("model=https://user:password@host/model", "data_dir=s3://KEY:SECRET@bucket/data"),
    *("task=https://host/task.yaml?token=SECRET", "method.view.synonyms=https://me@host/s.json"),
    *("method.view.synonyms=https://u:pass/word@host/s.json", "model=hf://[x@y]/z"),
]
TWICE = [
    ["training.seed=1", "training.seed=2"],
    ["training.seed=1", " training.seed =2"],
    ["training.seed=1", "training={epochs: 2}"],
    ["method.view.radius=0.1", "method.view={radius: 0.2}"],
    ["method.view.radius=0.1", "method={name: ear}"],
    [f"{MARGIN}.low=0.1", "search.parameters={}"],
    [f"{MARGIN}.low=0.1", "training.epochs=2", f"{MARGIN}.low=0.2"],
    ["model=a", "model=a"],
]
CASES = [
    *(MISSING_VALUE + NEEDLESS_VALUE + MISTYPED + UNKNOWN + NO_NUMBER + OUT_OF_RANGE),
    *(NO_SUCH_PLACE + CONTRADICTIONS),
    *([*DEMO, "--set", text] for text in SET),
    *([*DEMO, "--set", first, *(w for t in more for w in ("--set", t))] for first, *more in TWICE),
]


def spelt(arguments: list[str]) -> str:
    return ascii(" ".join(arguments))[1:-1][:60] or "nothing"


def places(arguments: list[str]) -> Iterator[str]:
    """What a message may name: a flag, a key of the search file, or a long value's beginning."""
    yield from (LONG[:20], "--search NAME is missing")
    for word in arguments[2:] if arguments[:2] == [*DEMO] else arguments:
        first = word.partition("=")[0].split()
        if first and first[0].startswith("--"):
            flag = first[0][2:]
            yield from (first[0], flag.replace("-", "_"), flag.replace("-uri", " URI"))
        elif first:
            yield from (first[0], first[0].partition(".")[0] or first[0])


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder; the environment chooses no cluster and no tracking server."""
    monkeypatch.chdir(tmp_path)
    for name in ("RAY_ADDRESS", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def told(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> str:
    monkeypatch.setattr(sys, "argv", ["launch.py", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    written = capsys.readouterr()
    assert written.out == ""
    return written.err


@pytest.mark.parametrize("arguments", CASES, ids=spelt)
def test_wrong_flags_are_told_in_one_line(
    arguments: list[str],
    here: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    message = told(arguments, monkeypatch, capsys)
    assert message.startswith("error: ") and len(message) < 600
    assert len(message.splitlines()) == 1 and message.endswith("\n")
    assert "SECRET" not in message and "password@" not in message
    # Ray would have made a folder for the search, MLflow a database.
    assert list(here.iterdir()) == []
    named = set(places(arguments))
    assert any(place in message for place in named), (message, named)


@pytest.mark.parametrize("flag", FLAGS)
def test_mistyped_flag_is_told_the_right_one(
    flag: str, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    message = told([f"--{flag[2]}{flag[2:]}"], monkeypatch, capsys)
    suggested = message.partition("(Possible options: ")[2].partition(")")[0].split(", ")
    assert flag in suggested


@given(
    key=st.sampled_from([".".join(key) for key in test_bad_searches.KEYS]) | st.text(),
    value=st.text(max_size=30),
)
def test_any_override_is_taken_or_told_in_one_line(key: str, value: str) -> None:
    try:
        load_spec("demo", parse_overrides([f"{key}={value}"]))
    except UserError as error:
        # The line breaks of what was typed become visible ones when it is printed.
        assert len(str(error)) < 600


@pytest.mark.parametrize(
    "arguments",
    [
        ["--serch", "demo"],
        ["--search", "demo", "--seed", "x"],
        ["--search", "demo", "--set", "training.epochs=["],
        ["--search", "demo", "--set", "search.num_trials=3", "--num-trials", "4"],
        ["--search", "demo", "--storage", "s3://KEY:SECRET@bucket"],
        # These are found by a look at the data and the model, in a process of its own.
        ["--search", "demo", "--data-dir", "nowhere"],
        ["--search", "demo", "--languages", "de,xx"],
        ["--search", "demo", "--languages", "de,en"],
        ["--search", "demo", "--set", "task=nowhere.yaml"],
        ["--search", "demo", "--set", f"task={LONG}"],
        ["--search", "demo", "--model", LONG],
        ["--search", "demo", "--set", "method.view.synonyms=nowhere.json"],
        ["--search", "demo", "--set", "search.objective=test/accuracy/de"],
    ],
    ids=spelt,
)
def test_as_a_process_too(arguments: list[str], tmp_path: Path) -> None:
    run = launch(*arguments, folder=tmp_path, timeout_s=120)
    assert run.code == 2, run.output + run.errors
    assert run.output == "" and len(run.errors.splitlines()) == 1
    assert run.errors.startswith("error: ") and "SECRET" not in run.errors
    assert not (tmp_path / "runs").exists() and not (tmp_path / "mlflow.db").exists()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("training", "{epochs: 1000000000000}"),
        ("training.max_length", "1000000000000"),
        ("method.pull_layer", "1000000000000"),
    ],
)
def test_numbers_beyond_all_sense_are_found_by_the_plan(key: str, value: str) -> None:
    with pytest.raises(UserError) as caught:
        make_probed_plan(load_spec("demo", parse_overrides([f"{key}={value}"])))
    assert len(str(caught.value).splitlines()) == 1 and key in str(caught.value)


def test_without_a_network_the_counter_fitted_list_is_a_flag_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XLT_RAY_CACHE", str(tmp_path / "empty"))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # nothing answers there
    monkeypatch.delenv("no_proxy", raising=False)
    counter_fitted = ["--set", "method.view.synonyms=counter-fitted"]
    run = launch("--search", "demo", *counter_fitted, folder=tmp_path, timeout_s=120)
    assert run.code == 2 and run.output == "" and len(run.errors.splitlines()) == 1
    assert run.errors.endswith("give a copy of the file: method.view.synonyms=path.json\n")
    assert not (tmp_path / "runs").exists() and not (tmp_path / "mlflow.db").exists()


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "launch.py"), "--search", b"\xff.yaml"],
        cwd=tmp_path,
        env=environment(tmp_path),
        capture_output=True,
        timeout=60,
    )
    assert done.returncode == 2 and done.stdout == b""
    assert len(done.stderr.splitlines()) == 1 and b"--search" in done.stderr


def test_there_are_hundreds_of_wrong_inputs() -> None:
    assert len({tuple(case) for case in CASES}) == len(CASES) > 200


if __name__ == "__main__":
    os.chdir(tempfile.mkdtemp())
    files = test_bad_searches.refused(Path.cwd())
    print(f"{len(CASES)} wrong command lines and {files} wrong search files")
