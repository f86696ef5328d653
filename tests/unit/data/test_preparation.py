"""What is prepared once per machine: reuse between processes, and which embedding rows are kept."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.testing._internal.distributed.fake_pg import FakeStore
from transformers import AutoTokenizer

from tests.support.core_toy import Toy, make_toy
from xlt_ray.data.preparation import prepare
from xlt_ray.encoders.loading import load_classifier
from xlt_ray.errors import UserError
from xlt_ray.search.make_plan import make_plan_apart


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Toy:
    monkeypatch.setenv("XLT_RAY_CACHE", str(tmp_path / "cache"))
    return make_toy(tmp_path)


def test_what_the_search_has_prepared_is_taken_without_reading_the_data_again(toy: Toy) -> None:
    started = time.time()
    spec = toy.spec({})
    prepared = prepare(spec)
    for file in toy.folder.glob("*.tsv"):
        file.unlink()
    assert prepare(spec, started) == prepared
    # Unless it is of an earlier search, or of another request.
    later = time.time() + 1
    for request, since in ((spec, None), (spec, later), (toy.spec({"data.dev_limit": 1}), started)):
        with pytest.raises(UserError, match=r"\.tsv"):
            prepare(request, since)


def test_configurations_of_one_search_share_what_is_prepared(toy: Toy) -> None:
    started = time.time()
    first = prepare(toy.spec({}), started)
    for file in toy.folder.glob("*.tsv"):
        file.unlink()
    other = {"method.view.radius": 0.2, "method.name": "plain", "training.seed": 3}
    assert prepare(toy.spec(other), started) == first


def test_a_whole_vocabulary_is_another_request_than_a_trimmed_one(toy: Toy) -> None:
    started = time.time()
    assert prepare(toy.spec({"training.trim_vocabulary": True}), started).kept is not None
    assert prepare(toy.spec({}), started).kept is None


def test_a_worker_that_is_not_the_first_of_its_group_prepares_as_much(toy: Toy) -> None:
    spec = toy.spec({"training.trim_vocabulary": True})
    # What it writes on a node of its own, where no other worker has prepared.
    torch.distributed.init_process_group("fake", rank=1, world_size=2, store=FakeStore())
    try:
        prepared = prepare(spec)
    finally:
        torch.distributed.destroy_process_group()
    vocabulary = prepared.vocabulary()
    assert vocabulary is not None
    whole = load_classifier(prepared.tokenizer, prepared.labels, seed=0)
    trimmed = load_classifier(prepared.encoder, prepared.labels, seed=0)
    vocabulary.trim(whole)
    expected = whole.state_dict()
    assert trimmed.state_dict().keys() == expected.keys()
    for name, value in trimmed.state_dict().items():
        assert torch.equal(value, expected[name]), name


def test_replaced_weights_are_prepared_anew(toy: Toy) -> None:
    spec = toy.spec({"training.trim_vocabulary": True})
    whole = prepare(toy.spec({})).encoder
    stored = Path(whole) / "model.safetensors"
    pickled = Path(whole) / "pytorch_model.bin"
    weights = load_file(stored)
    stored.unlink()
    found = []
    for scale in (1.0, 2.0):
        scaled = {name: scale * value for name, value in weights.items()}
        torch.save(scaled, pickled)
        encoder = prepare(spec).encoder
        assert prepare(spec).encoder == encoder
        found.append(load_classifier(encoder, ("a", "b"), seed=0).get_input_embeddings().weight)
    assert torch.equal(found[1], 2 * found[0])


def test_weights_of_another_commit_of_the_hub_are_prepared_anew(
    toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The hub's cache on this machine: a folder for each commit, and the commit of `main`.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    repository = tmp_path / "hub" / "models--someone--tiny"
    local = Path(prepare(toy.spec({})).encoder)
    weights = load_file(local / "model.safetensors")
    (repository / "refs").mkdir(parents=True)
    found = []
    for scale, commit in ((1.0, "a" * 40), (2.0, "b" * 40)):
        folder = shutil.copytree(local, repository / "snapshots" / commit)
        scaled = {name: scale * value for name, value in weights.items()}
        save_file(scaled, folder / "model.safetensors", metadata={"format": "pt"})
        (repository / "refs" / "main").write_text(commit)
        spec = toy.spec({"training.trim_vocabulary": True, "model": "someone/tiny"})
        encoder = prepare(spec).encoder
        assert prepare(spec).encoder == encoder
        found.append(load_classifier(encoder, ("a", "b"), seed=0).get_input_embeddings().weight)
    assert torch.equal(found[1], 2 * found[0])


def kept_tokens(toy: Toy, changes: dict[str, Any]) -> set[str] | None:
    spec = toy.spec(changes | {"training.trim_vocabulary": True})
    prepared = prepare(spec)
    if prepared.kept is None:
        assert prepared.encoder == spec.model
        return None
    tokenizer = AutoTokenizer.from_pretrained(prepared.tokenizer)
    return set(tokenizer.convert_ids_to_tokens(np.load(prepared.kept)["kept"].tolist()))


def test_prepared_rows_follow_the_synonyms_even_of_the_same_file(toy: Toy, tmp_path: Path) -> None:
    synonyms = tmp_path / "synonyms.json"
    changes = {"method.view.synonyms": str(synonyms)}
    synonyms.write_text(json.dumps({"house": ["home"]}))
    before = kept_tokens(toy, changes)
    assert before is not None and "home" in before and "building" not in before
    synonyms.write_text(json.dumps({"house": ["building"]}))
    after = kept_tokens(toy, changes)
    assert after is not None and "building" in after and "home" not in after


def test_views_of_dev_texts_are_prepared_for_in_the_source_language_only(
    toy: Toy, tmp_path: Path
) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    for path in toy.folder.glob("*.tsv"):
        (folder / path.name).write_bytes(path.read_bytes())
    for language, word in (("en", "meal"), ("de", "Mann")):
        with (folder / f"dev-{language}.tsv").open("a", encoding="utf-8") as file:
            file.write(f"{word}\t{word}\tred\n")
    synonyms = tmp_path / "synonyms.json"
    changes = {"data_dir": str(folder), "method.view.synonyms": str(synonyms)}
    synonyms.write_text(json.dumps({"meal": ["river"], "Mann": ["Fluss"]}))
    kept = kept_tokens(toy, changes)
    assert kept is not None and {"meal", "river", "Mann"} <= kept and "Fluss" not in kept
    assert "Fluss" in AutoTokenizer.from_pretrained(toy.encoder("bert")).get_vocab()
    # It is the dev text alone that they are kept for.
    (folder / "dev-en.tsv").write_bytes((toy.folder / "dev-en.tsv").read_bytes())
    without = kept_tokens(toy, changes)
    assert without is not None and not {"meal", "river"} & without


def test_weight_decay_moves_every_row_so_nothing_is_trimmed(toy: Toy) -> None:
    assert kept_tokens(toy, {}) is not None
    assert kept_tokens(toy, {"training.weight_decay": 0.01}) is None


def test_too_many_views_to_list_trim_nothing(toy: Toy, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    for path in toy.folder.glob("*.tsv"):
        (folder / path.name).write_bytes(path.read_bytes())
    long = "/".join(["house"] * 12)  # 3 ** 12 views
    with (folder / "train-en.tsv").open("a", encoding="utf-8") as file:
        file.write(f"{long}\tgarden\tred\n")
    changes = {"data_dir": str(folder), "training.trim_vocabulary": True}
    assert kept_tokens(toy, changes) is None
    # The plan says so and why.
    plan = make_plan_apart(toy.spec(changes), prepared=True)
    assert "all rows of the embedding table are trained" in plan.warnings[-1]
    assert "'house/house" in plan.warnings[-1] and "531,441 combinations" in plan.warnings[-1]
    assert make_plan_apart(toy.spec({**changes, "data_dir": None}), prepared=True).warnings == ()
