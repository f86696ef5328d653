"""What comes from others runs nothing here, writes nowhere else and learns no secret."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from tests.integration.conftest import Recorded
from tests.support.searching import ROOT, environment, write_search, write_task
from tests.support.tiny_encoder import tiny_encoder
from xlt_ray.config.loading import load_spec
from xlt_ray.config.task import load_task
from xlt_ray.encoders.loading import check_encoder, load_classifier
from xlt_ray.errors import UserError
from xlt_ray.search.make_plan import make_plan

LABELS = ("no", "yes")


class Touch:
    """Unpickled, it makes a file."""

    def __init__(self, marker: Path) -> None:
        self._marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mknod, (str(self._marker),)


def weights_as_pickle(folder: Path, extra: dict[str, Any]) -> Path:
    """An encoder whose weights are a pickle, as they were before safetensors."""
    model = tiny_encoder(folder)
    tensors = load_file(model / "model.safetensors")
    (model / "model.safetensors").unlink()
    torch.save(tensors | extra, model / "pytorch_model.bin")
    return model


def test_a_pickle_among_the_weights_is_not_run(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    model = weights_as_pickle(tmp_path / "model", {"pooler.extra": Touch(marker)})
    with pytest.raises(UserError) as caught:
        load_classifier(str(model), LABELS, seed=0)
    assert str(model) in str(caught.value) and "model.safetensors" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not marker.exists()
    # Read without care the same file does run.
    torch.load(model / "pytorch_model.bin", weights_only=False)
    assert marker.exists()


def test_a_pickle_of_tensors_alone_is_read(tmp_path: Path) -> None:
    model = weights_as_pickle(tmp_path / "model", {})
    tensors = torch.load(model / "pytorch_model.bin", weights_only=True)
    loaded = load_classifier(str(model), LABELS, seed=0)
    name = "embeddings.word_embeddings.weight"
    assert torch.equal(loaded.base_model.state_dict()[name], tensors[name])


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_weights_cut_off_are_reported(name: str, tmp_path: Path) -> None:
    model = tiny_encoder(tmp_path)
    if name.endswith(".bin"):
        model = weights_as_pickle(tmp_path, {})
    os.truncate(model / name, 1000)
    with pytest.raises(UserError, match=r"cannot be loaded|are a pickle") as caught:
        load_classifier(str(model), LABELS, seed=0)
    assert "\n" not in str(caught.value)


CODE = """
from pathlib import Path
from transformers import BertConfig, BertForSequenceClassification, BertTokenizer
Path({marker!r}).touch()
class OwnConfig(BertConfig):
    model_type = {family!r}
class OwnModel(BertForSequenceClassification):
    config_class = OwnConfig
class OwnTokenizer(BertTokenizer):
    pass
"""


def with_code(folder: Path, marker: Path, family: str) -> Path:
    """An encoder that brings code along for its configuration, model and tokenizer."""
    model = tiny_encoder(folder)
    (model / "own.py").write_text(CODE.format(marker=str(marker), family=family))
    names = {
        "AutoConfig": "own.OwnConfig",
        "AutoModel": "own.OwnModel",
        "AutoModelForSequenceClassification": "own.OwnModel",
    }
    config = json.loads((model / "config.json").read_text())
    config |= {"model_type": family, "auto_map": names}
    (model / "config.json").write_text(json.dumps(config))
    tokenizer = json.loads((model / "tokenizer_config.json").read_text())
    tokenizer["auto_map"] = {"AutoTokenizer": ["own.OwnTokenizer", "own.OwnTokenizer"]}
    (model / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    return model


def test_a_model_that_needs_code_of_its_own_is_refused(tmp_path: Path) -> None:
    from transformers import AutoConfig

    marker = tmp_path / "marker"
    model = with_code(tmp_path / "model", marker, "a-family-of-its-own")
    with pytest.raises(UserError, match="it needs code that comes with it") as caught:
        check_encoder(str(model))
    assert str(model) in str(caught.value) and "\n" not in str(caught.value)
    assert not marker.exists()
    AutoConfig.from_pretrained(model, trust_remote_code=True)
    assert marker.exists()


def test_code_beside_a_known_model_is_left_alone(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    model = with_code(tmp_path / "model", marker, "bert")
    assert check_encoder(str(model)).family == "bert"
    load_classifier(str(model), LABELS, seed=0)
    assert not marker.exists()


def test_a_tokenizer_that_needs_code_of_its_own_is_refused(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    model = with_code(tmp_path / "model", marker, "bert")
    (model / "tokenizer.json").unlink()
    config = json.loads((model / "tokenizer_config.json").read_text())
    config["tokenizer_class"] = "OwnTokenizer"
    (model / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(UserError):
        check_encoder(str(model))
    assert not marker.exists()


OUTSIDE = (
    *("..", "../x", "../../x", "x/../../y", "/etc/x", "/", "a/b", "a\\..\\b", "~/x", "~root"),
    *(
        "a\0b",
        "",
        ".",
        " ",
        "a b",
        "x" * 300,
        "a\nb",
        "\u2025/x",
        "ünï",
        "a\u202eb",
        "-x",
        "%2e%2e",
    ),
)


def task_with(folder: Path, key: str, value: Any) -> Path:
    path = write_task(folder)
    tree = yaml.safe_load(path.read_text())
    tree[key] = value
    path.write_text(yaml.safe_dump(tree, allow_unicode=True))
    return path


@pytest.mark.parametrize("name", OUTSIDE, ids=ascii)
@pytest.mark.parametrize("key", ["name", "source_language", "target_languages"])
def test_names_in_a_task_that_become_files_lead_nowhere_else(
    key: str, name: str, tmp_path: Path
) -> None:
    value: Any = [name, "de"] if key == "target_languages" else name
    path = task_with(tmp_path, key, value)
    with pytest.raises(UserError) as caught:
        load_task(path)
    assert key in str(caught.value) or "\0" in name
    assert len(str(caught.value)) < 700


@pytest.mark.parametrize("name", OUTSIDE, ids=ascii)
def test_the_name_of_a_search_leads_nowhere_else(name: str, tmp_path: Path) -> None:
    path = tmp_path / "search.yaml"
    tree = yaml.safe_load((ROOT / "search_spaces" / "demo.yaml").read_text())
    path.write_text(yaml.safe_dump(tree | {"name": name}, allow_unicode=True))
    with pytest.raises(UserError, match=r"search\.yaml"):
        load_spec(str(path))


def written_below(folder: Path) -> set[Path]:
    return {path.relative_to(folder) for path in folder.rglob("*")}


def test_labels_and_columns_stay_out_of_file_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from xlt_ray.data.preparation import prepare

    evil = "../../outside"
    work = tmp_path / "a" / "b" / "here"
    monkeypatch.setenv("XLT_RAY_CACHE", str(work / "cache"))
    search = write_search(work)
    task = work / "data" / "tiny.yaml"
    tree = yaml.safe_load(task.read_text())
    tree["labels"] = [evil, "/etc/outside"]
    tree["label_values"] = {"yes": evil, "no": "/etc/outside"}
    tree["label_column"] = evil
    tree["data"]["files"]["columns"] = ["premise", "hypothesis", evil]
    task.write_text(yaml.safe_dump(tree))
    before = written_below(tmp_path)
    spec = load_spec(str(search))
    make_plan(spec)
    assert prepare(spec).labels == (evil, "/etc/outside")
    new = written_below(tmp_path) - before
    cache = Path("a/b/here/cache")
    assert cache / "prepared" in new
    assert {path for path in new if not path.is_relative_to(cache)} == set()


def test_a_card_on_the_hub_names_no_file_outside_of_it(tmp_path: Path) -> None:
    """A stand-in for the hub has a data set whose card points to this machine's own files."""
    from tests.support.hub_stand_in import HubStandIn

    folder = tmp_path / "hub" / "datasets" / "some" / "data"
    folder.mkdir(parents=True)
    code = """
import sys
from xlt_ray.data.sources import load_split
from xlt_ray.errors import UserError
from xlt_ray.config.task import TaskSpec, load_task
tree = load_task("xnli").model_dump()
tree["data"]["hub"]["path"] = "some/data"
try:
    load_split(TaskSpec.model_validate(tree), "dev", "de")
except UserError as error:
    print(error)
"""
    hub = HubStandIn(tmp_path / "hub")
    with hub.serving():
        for number, pattern in enumerate(("/etc/hostname", "../../../secret.parquet")):
            files = [{"split": "validation", "path": pattern}]
            card = {"configs": [{"config_name": "de", "data_files": files}]}
            (folder / "README.md").write_text(f"---\n{yaml.safe_dump(card)}---\n")
            done = subprocess.run(
                [sys.executable, "-c", code],
                env=environment(tmp_path)
                | {
                    "HF_ENDPOINT": hub.url,
                    "HF_HOME": str(tmp_path / f"home-{number}"),
                    "HF_HUB_OFFLINE": "0",
                    "HF_HUB_DISABLE_TELEMETRY": "1",
                },
                capture_output=True,
                text=True,
                timeout=120,
            )
            assert done.returncode == 0, done.stderr
            assert f"its card names '{pattern}', which is outside of it" in done.stdout


# Secrets


def test_no_secret_is_shown(recorded_search: Recorded) -> None:
    assert "CANARY" not in recorded_search.run.output + recorded_search.run.errors
    # It was given all the same, and told where to look.
    assert "http://***@127.0.0.1" in recorded_search.run.output


def test_no_secret_is_written(recorded_search: Recorded) -> None:
    files = [path for path in recorded_search.folder.rglob("*") if path.is_file()]
    assert any(path.name == "journal.jsonl" for path in files)
    assert any(path.name == "leaderboard.json" for path in files)
    assert [path for path in files if b"CANARY" in path.read_bytes()] == []


def test_no_secret_is_recorded(recorded_search: Recorded) -> None:
    files = [path for path in recorded_search.store.rglob("*") if path.is_file()]
    assert any(path.name == "store.db" for path in files)
    assert any(path.name == "spec.yaml" for path in files)
    assert b"learning_rate" in (recorded_search.store / "store.db").read_bytes()
    assert [path for path in files if b"CANARY" in path.read_bytes()] == []


def test_no_secret_is_in_rays_logs(recorded_search: Recorded) -> None:
    logs = [path for path in recorded_search.ray.rglob("logs/**/*") if path.is_file()]
    assert any(path.name == "runtime_env_agent.log" for path in logs)
    assert [path for path in logs if b"CANARY" in path.read_bytes()] == []
