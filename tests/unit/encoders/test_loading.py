"""Checking and loading encoders from local folders."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoConfig, AutoTokenizer

from tests.support.families import family_encoder
from tests.support.tiny_encoder import Family, tiny_encoder
from xlt_ray.encoders.loading import (
    check_encoder,
    load_classifier,
    load_classifier_with_missing,
    resolve,
)
from xlt_ray.errors import UserError


def test_info_is_the_configuration_s(tmp_path: Path) -> None:
    folder = tiny_encoder(tmp_path / "bert", "bert", layers=3, hidden=16)
    info = check_encoder(str(folder))
    assert (info.source, info.family) == (str(folder), "bert")
    assert (info.layers, info.hidden, info.max_length) == (3, 16, 128)
    assert resolve(str(folder)) == str(folder)


def test_a_new_head_is_missing_and_depends_on_the_seed_alone(tmp_path: Path) -> None:
    folder = str(tiny_encoder(tmp_path / "bert"))
    model, missing = load_classifier_with_missing(folder, ("red", "blue"), seed=1)
    assert {"classifier.weight", "classifier.bias"} <= missing
    assert model.config.id2label == {0: "red", 1: "blue"}
    again, other = (load_classifier(folder, ("red", "blue"), seed) for seed in (1, 2))
    head = model.get_parameter("classifier.weight")
    assert torch.equal(head, again.get_parameter("classifier.weight"))
    assert not torch.equal(head, other.get_parameter("classifier.weight"))


def set_json(file: Path, **values: Any) -> None:
    known = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps(known | values), encoding="utf-8")


def change_weights(
    folder: Path, change: Callable[[str, Tensor], tuple[str, Tensor] | None]
) -> None:
    """Replace or drop each weight of a checkpoint."""
    changed = [change(*item) for item in load_file(folder / "model.safetensors").items()]
    weights = dict(item for item in changed if item is not None)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def load_error(folder: Path) -> str:
    with pytest.raises(UserError) as error:
        load_classifier(str(folder), ("red", "blue"), 0)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_weights_under_other_names_are_refused(tmp_path: Path) -> None:
    """transformers would train random weights instead."""
    folder = family_encoder(tmp_path, "bert")
    change_weights(folder, lambda name, weight: (f"foo.{name}", weight))
    assert "lack 37 of the encoder's, such as bert.embeddings." in load_error(folder)


def test_a_checkpoint_of_fewer_layers_than_its_configuration_is_refused(tmp_path: Path) -> None:
    folder = family_encoder(tmp_path, "xlm-roberta")
    set_json(folder / "config.json", num_hidden_layers=3)
    assert "lack 16 of the encoder's, such as roberta.encoder.layer.2." in load_error(folder)


@pytest.mark.parametrize("family", ["bert", "modernbert", "albert"])
def test_a_checkpoint_without_its_embedding_table_is_refused(tmp_path: Path, family: str) -> None:
    folder = family_encoder(tmp_path, family)
    table = ("word_embeddings.weight", "tok_embeddings.weight")
    change_weights(folder, lambda name, weight: None if name.endswith(table) else (name, weight))
    assert "lack 1 of the encoder's" in load_error(folder)


@pytest.mark.parametrize("value", [0.0, torch.nan, torch.inf])
def test_an_embedding_table_without_values_is_refused(tmp_path: Path, value: float) -> None:
    folder = family_encoder(tmp_path, "bert")

    def empty(name: str, weight: Tensor) -> tuple[str, Tensor]:
        return name, torch.full_like(weight, value) if "word_embeddings" in name else weight

    change_weights(folder, empty)
    assert "its embedding table is all zero or has values that are not finite" in load_error(folder)


@pytest.mark.parametrize("family", ["bert", "gte", "nomic_bert", "albert"])
def test_a_checkpoint_needs_neither_pooler_nor_head(tmp_path: Path, family: str) -> None:
    folder = family_encoder(tmp_path, family)
    change_weights(folder, lambda name, weight: None if "pooler" in name else (name, weight))
    _, missing = load_classifier_with_missing(str(folder), ("red", "blue"), 0)
    assert any(".pooler." in name for name in missing)


def test_outputs_and_problem_are_a_classifier_s_whatever_the_checkpoint_says(
    tmp_path: Path,
) -> None:
    folder = family_encoder(tmp_path, "bert")
    kept: dict[str, Any] = {"return_dict": False, "output_attentions": True}
    set_json(folder / "config.json", problem_type="multi_label_classification", **kept)
    model = load_classifier(str(folder), ("red", "blue"), 0)
    assert list(model(torch.tensor([[1, 2]]))) == ["logits"]
    model.save_pretrained(tmp_path / "export")
    exported = AutoConfig.from_pretrained(tmp_path / "export")
    assert exported.problem_type == "single_label_classification"


@pytest.mark.parametrize(
    ("file", "values", "part"),
    [
        ("config.json", {"hidden_size": "32"}, "Field 'hidden_size' expected int, got str"),
        ("config.json", {"vocab_size": None}, "Field 'vocab_size' expected int, got None"),
        ("tokenizer_config.json", {"model_max_length": "128"}, "number of tokens, not '128'"),
        ("tokenizer_config.json", {"model_max_length": -1}, "number of tokens, not -1"),
    ],
)
def test_a_value_of_the_wrong_type_is_named(
    tmp_path: Path, file: str, values: dict[str, Any], part: str
) -> None:
    folder = family_encoder(tmp_path, "bert")
    set_json(folder / file, **values)
    with pytest.raises(UserError) as error:
        check_encoder(str(folder))
    assert f"{file}: " in str(error.value) and part in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json", "tokenizer.json"])
@pytest.mark.parametrize("content", ["[1]", "3", "null"])
def test_a_file_of_another_shape_is_refused(tmp_path: Path, file: str, content: str) -> None:
    folder = family_encoder(tmp_path, "bert")
    (folder / file).write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match="cannot be loaded") as error:
        check_encoder(str(folder))
    assert "\n" not in str(error.value)


def test_positions_numbered_from_another_padding_token_are_refused(tmp_path: Path) -> None:
    folder = family_encoder(tmp_path / "roberta", "xlm-roberta")
    set_json(folder / "config.json", pad_token_id=5)
    with pytest.raises(UserError, match=r"from padding id 5 on, but its tokenizer's is 1; give"):
        check_encoder(str(folder))
    # BERT's positions do not depend on it.
    folder = family_encoder(tmp_path / "bert", "bert")
    set_json(folder / "config.json", pad_token_id=5)
    assert check_encoder(str(folder)).max_length == 64


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be loaded") as error:
        check_encoder(str(tmp_path))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("family", ["bert", "xlm-roberta"])
def test_a_model_without_tokenizer_files_is_refused(tmp_path: Path, family: Family) -> None:
    folder = tiny_encoder(tmp_path / family, family)
    for file in folder.glob("*token*"):
        file.unlink()
    with pytest.raises(UserError, match=r"tokenizer has no vocabulary; add .*tokenizer\.json"):
        check_encoder(str(folder))


def test_a_token_without_an_embedding_row_is_refused(tmp_path: Path) -> None:
    folder = tiny_encoder(tmp_path / "bert")
    rows = check_encoder(str(folder)).vocabulary
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["<entity>"])
    tokenizer.save_pretrained(folder)
    with pytest.raises(UserError, match=f"ids up to {rows}, but .* has {rows} rows; give"):
        check_encoder(str(folder))


def test_a_tokenizer_of_a_sentencepiece_file_only_is_fast(tmp_path: Path) -> None:
    """As mDeBERTa's on the hub."""
    from sentencepiece import sentencepiece_model_pb2
    from transformers import AutoTokenizer

    model = sentencepiece_model_pb2.ModelProto()
    special, letters = ["[PAD]", "[CLS]", "[SEP]", "[UNK]"], [*"abcdefghijklmnopqrstuvwxyz", "▁"]
    for number, piece in enumerate([*special, "▁the", "▁house", *letters]):
        kind = (2 if piece == "[UNK]" else 3) if piece in special else 1
        model.pieces.add(piece=piece, score=-float(number), type=kind)
    model.trainer_spec.model_type, model.trainer_spec.unk_id = 1, 3
    (tmp_path / "spm.model").write_bytes(model.SerializeToString())
    config = {"model_type": "deberta-v2", "vocab_size": 40, "hidden_size": 8}
    layers = {"num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 8}
    (tmp_path / "config.json").write_text(json.dumps(config | layers))
    (tmp_path / "tokenizer_config.json").write_text('{"vocab_type": "spm"}')
    found = check_encoder(str(tmp_path))
    assert (found.family, found.layers, found.vocabulary) == ("deberta-v2", 2, 40)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    ids = tokenizer("the house of")["input_ids"]
    pieces = ["[CLS]", "▁the", "▁house", "▁", "o", "f", "[SEP]"]
    assert tokenizer.convert_ids_to_tokens(ids) == pieces


def test_a_hub_s_cache_that_cannot_be_written_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """As transformers tells it: the refusal is the cause of its error."""

    def refused(*_: object, **__: object) -> None:
        try:
            raise PermissionError(errno.EACCES, "Permission denied")
        except PermissionError as error:
            raise OSError("PermissionError at /cache when downloading") from error

    monkeypatch.setattr(AutoConfig, "from_pretrained", refused)
    with pytest.raises(UserError, match=r"cache cannot be written to .*; set HF_HOME to a folder"):
        check_encoder("some/encoder")
