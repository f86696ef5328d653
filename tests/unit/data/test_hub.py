"""Data and tokenizer from a hub: the real clients against a stand-in on the loopback.

The clients read ``HF_ENDPOINT`` and ``HF_HOME`` when they are imported, so what they do happens in
processes of its own, which print what they saw as JSON.
"""

from __future__ import annotations

import errno
import gzip
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from tests.support.hub_stand_in import HubStandIn
from tests.support.tiny_encoder import tiny_encoder
from xlt_ray.config.task import load_task
from xlt_ray.data.hub import hub_folder
from xlt_ray.errors import UserError

REPOSITORY = Path(__file__).resolve().parents[3]
LANGUAGES = load_task("xnli").languages
# facebook/xnli's class ids.
LABELS = {"entailment": 0, "neutral": 1, "contradiction": 2}

PREAMBLE = """
import json, sys, time
from pathlib import Path
from tests.support.task_files import check_data
from xlt_ray.data.sources import load_split
from xlt_ray.errors import UserError
from xlt_ray.config.task import TaskSpec, load_task
xnli = load_task("xnli")

def told(act):
    begin = time.monotonic()
    try:
        return "no error: " + repr(act()), 0.0
    except UserError as error:
        return str(error), time.monotonic() - begin
"""

USE = """
from transformers import AutoModelForSequenceClassification
from xlt_ray.data.tokenized import tokenize_task
cache, local = Path(sys.argv[1]), sys.argv[2]
counts = check_data(xnli)
prepared = tokenize_task(xnli, "some/tiny-encoder", 32, cache)
model = AutoModelForSequenceClassification.from_pretrained("some/tiny-encoder")
print(json.dumps({
    "counts": {f"{split} {language}": n for (split, language), n in counts.items()},
    "german": load_split(xnli, "dev", "de").dataset()[:],
    "train": prepared.train()["text_a"][:],
    "ids": prepared.evaluation("test")["input_ids"][:],
    "same_folder_as_local": tokenize_task(xnli, local, 32, cache).folder == prepared.folder,
    "embedding": model.get_input_embeddings().weight[5].tolist(),
}))
"""

MISTAKES = """
def changed(**hub):
    tree = xnli.model_dump()
    tree["data"]["hub"] |= hub
    return lambda: load_split(TaskSpec.model_validate(tree), "dev", "de")

load_split(xnli, "dev", "de")
print(json.dumps({
    "name": told(changed(path="facebook/xnly"))[0],
    "revision": told(changed(revision="v9"))[0],
    "config": told(changed(config="lang-{language}"))[0],
    "split": told(changed(splits={"dev": "validaton"}))[0],
}))
"""

ORACLE = """
import datasets
print(json.dumps(datasets.load_dataset("facebook/xnli", "de", split="validation")[:]))
"""

GONE = """
tree = xnli.model_dump()
tree["data"]["hub"]["path"] = "never/seen"
print(json.dumps({
    "never seen": told(lambda: load_split(TaskSpec.model_validate(tree), "dev", "de")),
    "cached": load_split(xnli, "dev", "de").dataset()[:],
    "not cached": told(lambda: load_split(xnli, "test", "de")),
}))
"""


def run(code: str, home: Path, endpoint: str, *arguments: str, offline: bool = False) -> Any:
    environment = os.environ | {
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(home),
        "HF_HUB_OFFLINE": "1" if offline else "0",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "PYTHONPATH": str(REPOSITORY),
    }
    for name in ("HF_DATASETS_CACHE", "HF_HUB_CACHE", "HF_TOKEN", "HF_DATASETS_OFFLINE"):
        environment.pop(name, None)
    done = subprocess.run(
        [sys.executable, "-c", PREAMBLE + code, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def examples(language: str, split: str) -> pd.DataFrame:
    # Target-language training rows would give themselves away: they are told nowhere else.
    return pd.DataFrame(
        {
            "premise": [f"Der alte Mann {language} {split} {label}" for label in LABELS],
            "hypothesis": [f"Ein Buch {language} {split}" for _ in LABELS],
            "label": list(LABELS.values()),
        }
    )


def build_hub(root: Path) -> None:
    """Write a look-alike of facebook/xnli (every language has a train split) and a model."""
    folder = root / "datasets" / "facebook" / "xnli"
    configs = []
    for language in LANGUAGES:
        (folder / language).mkdir(parents=True)
        for split in ("train", "validation", "test"):
            file = folder / language / f"{split}-00000-of-00001.parquet"
            examples(language, split).to_parquet(file)
        files = [
            {"split": split, "path": f"{language}/{split}-*"}
            for split in ("train", "test", "validation")
        ]
        configs.append({"config_name": language, "data_files": files})
    card = f"---\n{yaml.safe_dump({'configs': configs})}---\n\n# A look-alike\n"
    (folder / "README.md").write_text(card, encoding="utf-8")
    tiny_encoder(root / "models" / "some" / "tiny-encoder")


@dataclass(frozen=True)
class Seen:
    """What happened while the hub was there, and what is left of it."""

    url: str
    model: Path
    used: Any
    fetched: set[str]
    mistakes: Any
    oracle: Any
    full_home: Path
    german_dev_home: Path


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seen]:
    tmp = tmp_path_factory.mktemp("hub")
    build_hub(tmp / "hub")
    model = tmp / "hub" / "models" / "some" / "tiny-encoder"
    hub = HubStandIn(tmp / "hub")
    with hub.serving():
        used = run(USE, tmp / "full", hub.url, str(tmp / "tokenized"), str(model))
        fetched = hub.fetched()
        mistakes = run(MISTAKES, tmp / "german-dev", hub.url)
        oracle = run(ORACLE, tmp / "oracle", hub.url)
    yield Seen(hub.url, model, used, fetched, mistakes, oracle, tmp / "full", tmp / "german-dev")


def test_every_split_and_language_is_read_with_the_hubs_labels(seen: Seen) -> None:
    expected = {f"{split} {language}": 3 for split in ("dev", "test") for language in LANGUAGES}
    assert seen.used["counts"] == expected | {"train en": 3}
    frame = examples("de", "validation")
    assert seen.used["german"] == {
        "text_a": frame["premise"].tolist(),
        "text_b": frame["hypothesis"].tolist(),
        "label": frame["label"].tolist(),
    }
    assert seen.used["train"] == examples("en", "train")["premise"].tolist()


def test_rows_are_those_of_the_datasets_library(seen: Seen) -> None:
    ours = seen.used["german"]
    assert seen.oracle == {
        "premise": ours["text_a"],
        "hypothesis": ours["text_b"],
        "label": ours["label"],
    }


def test_no_training_file_but_the_source_languages_is_ever_asked_for(seen: Seen) -> None:
    assert {path for path in seen.fetched if "train" in path} == {"en/train-00000-of-00001.parquet"}
    evaluated = {
        f"{lang}/{s}-00000-of-00001.parquet" for lang in LANGUAGES for s in ("validation", "test")
    }
    assert evaluated < seen.fetched


def test_tokenizer_and_model_are_the_published_ones(seen: Seen) -> None:
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(seen.model)
    pairs = pd.concat([examples(language, "test") for language in LANGUAGES])
    expected = tokenizer(
        pairs["premise"].tolist(), pairs["hypothesis"].tolist(), truncation=True, max_length=32
    )
    assert seen.used["ids"] == expected["input_ids"]
    assert seen.used["same_folder_as_local"]
    weights = AutoModel.from_pretrained(seen.model).get_input_embeddings().weight
    assert seen.used["embedding"] == weights[5].tolist()


def test_once_cached_everything_works_offline(seen: Seen, tmp_path: Path) -> None:
    offline = run(USE, seen.full_home, seen.url, str(tmp_path), str(seen.model), offline=True)
    assert offline == seen.used


def test_mistakes_are_told_in_one_line(seen: Seen) -> None:
    assert seen.mistakes["name"].startswith(
        f"data set 'facebook/xnly': there is none at {seen.url}"
    )
    assert seen.mistakes["revision"] == (
        f"data set 'facebook/xnli': no revision 'v9' at {seen.url}"
    )
    assert "no configuration 'lang-de'" in seen.mistakes["config"]
    assert seen.mistakes["split"].endswith(
        "configuration 'de': no split 'validaton' (did you mean 'validation'?)"
    )
    assert not any("\n" in message for message in seen.mistakes.values())


def test_without_the_hub_what_is_cached_is_used_and_the_rest_refused_at_once(seen: Seen) -> None:
    gone = run(GONE, seen.german_dev_home, seen.url)
    assert gone["cached"] == seen.used["german"]
    for key, name in (("never seen", "never/seen"), ("not cached", "facebook/xnli")):
        message, seconds = gone[key]
        assert f"data set '{name}': cannot be fetched from {seen.url}" in message
        assert "--data-dir" in message and "\n" not in message
        assert seconds < 10


# Data sets of other files than Parquet

SIB200 = {"eng_Latn": "en", "deu_Latn": "de", "ace_Arab": "ace_Arab"}
MASSIVE = ("en", "de", "zh-CN")
TOPICS = ("geography", "science/technology", "travel")
INTENTS = ("alarm_set", "lists_query", "play_radio")
COUNTS = {"train": 4, "validation": 3, "test": 3}

OTHERS = """
from xlt_ray.config.task import with_targets
sib200 = with_targets(load_task("sib200"), ["de", "ace_Arab"], "--languages")
massive = with_targets(load_task("massive"), ["de", "zh-CN"], "--languages")
unknown = with_targets(load_task("sib200"), ["de", "deu_Latin"], "--languages")
print(json.dumps({
    task.name: {
        f"{split} {language}": load_split(task, split, language).dataset()[:]
        for split, language in check_data(task)
    }
    for task in (sib200, massive)
} | {"unknown": told(lambda: check_data(unknown))[0]}))
"""

ORACLES = """
import datasets
wanted = json.loads(sys.argv[1])
print(json.dumps([datasets.load_dataset(name, config, split=split)[:]
                  for name, config, split in wanted]))
"""


def sib200_rows(language: str, split: str) -> pd.DataFrame:
    """Columns and types of Davlan/sib200; its texts have quotes, which its TSV files double."""
    count = COUNTS[split]
    return pd.DataFrame(
        {
            "index_id": range(count),
            "category": [TOPICS[row % 3] for row in range(count)],
            "text": [f'"Ja," sagte {language} {split}, "{row}"' for row in range(count)],
        }
    )


def massive_rows(language: str, split: str) -> pd.DataFrame:
    """Columns and types of mteb/amazon_massive_intent."""
    count = COUNTS[split]
    intents = [INTENTS[row % 3] for row in range(count)]
    return pd.DataFrame(
        {
            "id": [str(row) for row in range(count)],
            "label": intents,
            "label_text": intents,
            "text": [f"weck mich um {row} uhr, {language} {split}" for row in range(count)],
            "lang": language,
        }
    )


def write_card(folder: Path, configs: dict[str, dict[str, str]]) -> None:
    listed = [
        {"config_name": name, "data_files": [{"split": s, "path": p} for s, p in files.items()]}
        for name, files in configs.items()
    ]
    card = f"---\n{yaml.safe_dump({'configs': listed})}---\n\n# A look-alike\n"
    (folder / "README.md").write_text(card, encoding="utf-8")


def build_others(root: Path) -> None:
    """Write look-alikes of Davlan/sib200 (TSV) and mteb/amazon_massive_intent (JSON lines)."""
    folder = root / "datasets" / "Davlan" / "sib200"
    configs: dict[str, dict[str, str]] = {}
    for config in SIB200:
        for split, name in (("train", "train"), ("validation", "dev"), ("test", "test")):
            path = f"data/{config}/{name}.tsv"
            configs.setdefault(config, {})[split] = path
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            sib200_rows(config, split).to_csv(folder / path, sep="\t", index=False)
    write_card(folder, configs)
    folder = root / "datasets" / "mteb" / "amazon_massive_intent"
    configs = {}
    for language in MASSIVE:
        for split in COUNTS:
            path = f"{split}/{language}.json.gz"
            configs.setdefault(language, {})[split] = path
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            lines = massive_rows(language, split).to_json(
                orient="records", lines=True, force_ascii=False
            )
            (folder / path).write_bytes(gzip.compress(lines.encode()))
    write_card(folder, configs)


@dataclass(frozen=True)
class Others:
    """The splits of SIB-200 and MASSIVE as this project and as `datasets` read them."""

    ours: Any
    oracle: dict[tuple[str, str, str], Any]
    fetched: set[str]


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> Others:
    tmp = tmp_path_factory.mktemp("others")
    build_others(tmp / "hub")
    hub = HubStandIn(tmp / "hub")
    wanted = [
        ("Davlan/sib200", "eng_Latn", "train"),
        ("Davlan/sib200", "ace_Arab", "test"),
        ("mteb/amazon_massive_intent", "en", "train"),
        ("mteb/amazon_massive_intent", "zh-CN", "test"),
    ]
    with hub.serving():
        ours = run(OTHERS, tmp / "home", hub.url)
        fetched = hub.fetched()
        oracle = run(ORACLES, tmp / "oracle", hub.url, json.dumps(wanted))
    return Others(ours, dict(zip(wanted, oracle, strict=True)), fetched)


def test_sib200_is_read_by_short_codes_and_by_its_own(others: Others) -> None:
    found = others.ours["sib200"]
    assert {key: len(split["label"]) for key, split in found.items()} == {
        "train en": 4,
        **{f"{split} {code}": 3 for split in ("dev", "test") for code in SIB200.values()},
    }
    labels = load_task("sib200").labels
    for config, code in SIB200.items():
        rows = sib200_rows(config, "validation")
        assert found[f"dev {code}"]["text_a"] == rows["text"].tolist()
        assert [labels[i] for i in found[f"dev {code}"]["label"]] == rows["category"].tolist()


def test_massive_is_read_from_its_compressed_lines(others: Others) -> None:
    found = others.ours["massive"]
    labels = load_task("massive").labels
    for language in MASSIVE:
        rows = massive_rows(language, "test")
        assert found[f"test {language}"]["text_a"] == rows["text"].tolist()
        assert [labels[i] for i in found[f"test {language}"]["label"]] == rows["label"].tolist()


def test_other_files_are_read_as_the_datasets_library_reads_them(others: Others) -> None:
    for (name, config, split), rows in others.oracle.items():
        task = "sib200" if name.endswith("sib200") else "massive"
        code = SIB200[config] if task == "sib200" else config
        ours = others.ours[task][f"{split} {code}"]
        column = load_task(task).label_column
        assert ours["text_a"] == rows["text"]
        assert [load_task(task).labels[i] for i in ours["label"]] == rows[column]


def test_of_other_files_only_the_languages_asked_for_are_fetched(others: Others) -> None:
    assert {path for path in others.fetched if "train" in path} == {
        "data/eng_Latn/train.tsv",
        "train/en.json.gz",
    }


def test_an_unknown_code_suggests_the_data_sets_own(others: Others) -> None:
    assert others.ours["unknown"] == (
        "data set 'Davlan/sib200': no configuration 'deu_Latin' (language 'deu_Latin') "
        "(did you mean 'deu_Latn'?)"
    )


def test_a_cache_that_cannot_be_written_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("huggingface_hub.HfApi.repo_info", lambda *_, **__: None)
    monkeypatch.setattr("huggingface_hub.snapshot_download", refused)
    with pytest.raises(UserError, match=r"cannot be written to, set HF_HOME to a folder"):
        hub_folder("some/data", "dataset", ["*"], None, "or not at all")
