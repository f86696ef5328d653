"""The best model in MLflow's registry: which is champion, and that MLflow alone can use it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import mlflow
import pandas as pd
import pytest
from mlflow.tracking import MlflowClient

from tests.support.fine_tuned import ODD, write_model
from xlt_ray.inference.classifier import Classifier
from xlt_ray.inference.registry import Registered, register_model
from xlt_ray.inference.serving import REQUIREMENTS

PAIRS = [
    ("The man sleeps.", "He rests."),
    ("Мужчина спит.", "Он отдыхает."),
    ("ينام الرجل.", "هو يستريح."),
    ("आदमी सो रहा है।", "वह आराम कर रहा है।"),
    ("那个男人在睡觉。", "他在休息。"),
]
"""In Latin, Cyrillic, Arabic, Devanagari and Han."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_model(tmp_path_factory.mktemp("model"), "xlm-roberta", None)
    (folder / "README.md").write_text("# A card")
    return folder


def describe(model: Path, trial: str) -> None:
    described = {"text_columns": ["premise", "hypothesis"], "trial": trial}
    (model / "task.json").write_text(json.dumps(described))


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('store')}/mlflow.db"


@pytest.fixture(scope="module")
def versions(model: Path, uri: str) -> list[Registered]:
    """Five searches' best: the second is worse, the third better, the fourth chosen by another
    metric, and the third is registered again."""
    client = MlflowClient(uri, uri)
    artifacts = Path(uri.removeprefix("sqlite:///")).parent / "artifacts"
    experiment = client.create_experiment("searches", artifacts.as_uri())
    runs = [client.create_run(experiment).info.run_id for _ in range(4)]
    scored = [
        (runs[0], "dev/accuracy/en", 0.7),
        (runs[1], "dev/accuracy/en", 0.7),
        (runs[2], "dev/accuracy/en", 0.8),
        (runs[3], "dev/accuracy/mean", 0.9),
        (runs[2], "dev/accuracy/en", 0.8),
    ]
    registered = []
    for run, selection, score in scored:
        describe(model, "07")
        registered.append(register_model(model, uri, run, "tiny", selection, score))
    return registered


def test_the_champion_is_who_beat_the_one_before(versions: list[Registered], uri: str) -> None:
    assert [(own.version, own.champion) for own in versions] == [
        ("1", True),
        ("2", False),
        ("3", True),
        ("4", False),
        ("3", True),
    ]
    assert versions[2].reason == "dev/accuracy/en is 80.0 % against 70.0 % of version 1"
    assert "cannot be compared" in versions[3].reason
    client = MlflowClient(uri, uri)
    holder = client.get_model_version_by_alias("tiny", "champion")
    assert str(holder.version) == "3"
    assert holder.description == "# A card"
    assert len(client.search_model_versions("name = 'tiny'")) == 4


@pytest.fixture
def mlflow_at(uri: str) -> Iterator[None]:
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(uri)
    yield
    mlflow.set_tracking_uri(before)


def test_mlflow_s_model_answers_as_the_classifier(
    versions: list[Registered], model: Path, mlflow_at: None
) -> None:
    loaded = mlflow.pyfunc.load_model("models:/tiny@champion")
    # What is no valid UTF-8 does not reach it: neither JSON nor a table's strings hold it.
    odd = [text for text in ODD if text.isprintable() or text.isspace()]
    texts = [*PAIRS, *((text, "x") for text in odd), ("y", "")]
    expected = Classifier.load(model).predict(texts)
    table = pd.DataFrame(texts, columns=["premise", "hypothesis"])
    found = loaded.predict(table)
    assert list(found["predicted"]) == expected.labels
    assert found.columns.tolist()[1:] == [
        "probability/contra",
        "probability/neutral",
        "probability/entails",
    ]
    assert found.iloc[:, 1:].to_numpy() == pytest.approx(expected.probabilities, abs=1e-6)
    with pytest.raises(mlflow.MlflowException, match="hypothesis"):
        loaded.predict(table[["premise"]])
    assert loaded.metadata.get_input_schema().input_names() == ["premise", "hypothesis"]


def test_the_model_brings_its_own_code_and_names_what_it_imports(
    versions: list[Registered], mlflow_at: None, tmp_path: Path
) -> None:
    """Where xlt-ray is not installed, and nothing but the model's folder is at hand."""
    folder = Path(
        mlflow.artifacts.download_artifacts("models:/tiny@champion", dst_path=str(tmp_path))
    )
    code = f"""
import sys
import importlib.metadata
sys.path = [path for path in sys.path if path]
sys.meta_path = [one for one in sys.meta_path if "editable" not in repr(one)]
import mlflow, pandas
before = set(sys.modules)
model = mlflow.pyfunc.load_model({str(folder)!r})
model.predict(pandas.DataFrame({{"premise": ["a"], "hypothesis": ["b"]}}))
import xlt_ray, json
own = {{name for name in sys.modules if name.startswith("xlt_ray.")}}
print(json.dumps([xlt_ray.__file__, sorted(own)]))
"""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    run = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr
    file, modules = json.loads(run.stdout.splitlines()[-1])
    assert Path(file).is_relative_to(folder)
    # Each package that those modules import is in the model's requirements.
    known = packages_distributions()
    imported = set()
    for module in modules:
        place = folder / "code" / Path(*module.split("."))
        source = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
        for line in source.read_text().splitlines():
            words = line.split()
            if words[:1] in (["import"], ["from"]):
                imported.add(words[1].partition(".")[0])
    packages = {
        distribution.lower().replace("_", "-")
        for name in imported - sys.stdlib_module_names - {"xlt_ray"}
        for distribution in known[name]
    }
    # The one comes with the other.
    assert packages - {"pydantic-core"} <= {*REQUIREMENTS, "mlflow"}
    lines = (folder / "requirements.txt").read_text().splitlines()
    assert {line.partition("==")[0] for line in lines} == {*REQUIREMENTS, "mlflow"}


def test_served_predictions_in_five_scripts(
    versions: list[Registered], model: Path, uri: str
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["models", "serve", "--model-uri", "models:/tiny@champion", "--env-manager", "local"]
    server = subprocess.Popen(
        [sys.executable, "-m", "mlflow", *words, "--host", "127.0.0.1", "--port", str(port)],
        env=os.environ
        | {
            "MLFLOW_TRACKING_URI": uri,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        address = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + 200
        while True:
            try:
                urllib.request.urlopen(f"{address}/ping", timeout=5)
                break
            except OSError:
                if server.poll() is not None or time.monotonic() > deadline:
                    server.kill()
                    raise AssertionError(server.communicate()[0]) from None
                time.sleep(0.2)
        rows = [{"premise": one, "hypothesis": other} for one, other in PAIRS]
        request = urllib.request.Request(
            f"{address}/invocations",
            json.dumps({"dataframe_records": rows}).encode(),
            {"Content-Type": "application/json"},
        )
        answers = json.load(urllib.request.urlopen(request, timeout=60))["predictions"]
    finally:
        os.killpg(server.pid, 15)
        server.communicate()
    expected = Classifier.load(model).predict(PAIRS)
    assert [answer["predicted"] for answer in answers] == expected.labels
    for answer, probabilities in zip(answers, expected.probabilities, strict=True):
        found = [answer[f"probability/{label}"] for label in ("contra", "neutral", "entails")]
        assert found == pytest.approx(probabilities, abs=1e-5)


def test_other_weights_of_the_same_trial_are_another_version(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    client = MlflowClient(uri, uri)
    experiment = client.create_experiment("searches", (tmp_path / "artifacts").as_uri())
    run = client.create_run(experiment).info.run_id
    model = write_model(tmp_path / "model", "xlm-roberta", None)
    (model / "README.md").write_text("# A card")
    describe(model, "soup")
    numbers = []
    for content in (b"", b"", b"\0"):
        with (model / "model.safetensors").open("ab") as file:
            file.write(content)
        found = register_model(model, uri, run, "tiny", "dev/accuracy/en", 0.7)
        numbers.append(found.version)
    assert numbers == ["1", "1", "2"]
