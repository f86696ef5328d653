"""Checking and loading encoders from local folders."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoTokenizer

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
