"""The demo task's data: what the README and the pipeline rely on."""

import json
import re
from collections import Counter
from pathlib import Path

import pytest

from xlt_ray.config.task import TASK_FOLDER, load_task
from xlt_ray.method.synonyms import DEMO, FUNCTION_WORDS, WORD

DATA = TASK_FOLDER.parent / "demo" / "data"
LANGUAGES = ("en", "de", "es", "fr", "tr", "sw", "ru", "el", "ar", "hi", "zh", "ja", "ko")
PER_CLASS = {"train": 64, "dev": 8, "test": 16}
LATIN = "[A-Za-z\u00c0-\u024f]"
SCRIPTS = {
    "ru": "[\u0400-\u04ff]",
    "el": "[\u0370-\u03ff]",
    "ar": "[\u0600-\u06ff]",
    "hi": "[\u0900-\u097f]",
    "zh": "[\u4e00-\u9fff]",
    "ja": "[\u3005\u3040-\u30ff\u4e00-\u9fff]",
    "ko": "[\uac00-\ud7a3]",
}
NAMES = [
    "train-en.tsv",
    *(f"{split}-{language}.tsv" for split in ("dev", "test") for language in LANGUAGES),
]


def read(split: str, language: str) -> list[list[str]]:
    text = (DATA / f"{split}-{language}.tsv").read_text(encoding="utf-8")
    return [line.split("\t") for line in text.removesuffix("\n").split("\n")]


def texts(split: str, language: str = "en") -> list[str]:
    return [text for text, _ in read(split, language)]


def words(split: str) -> set[str]:
    return {word.lower() for text in texts(split) for word in WORD.findall(text)}


def dictionary() -> dict[str, list[str]]:
    return json.loads(DEMO.read_text(encoding="utf-8"))


def test_files_are_those_of_thirteen_languages_with_english_training_texts_only() -> None:
    assert {path.name for path in DATA.glob("*.tsv")} == set(NAMES)
    task = load_task("demo")
    assert task.languages == LANGUAGES and not task.is_pair
    assert task.data.files is not None and Path(task.data.files.test).resolve().parent == DATA


@pytest.mark.parametrize("name", NAMES)
def test_rows_are_a_clean_text_and_a_label(name: str) -> None:
    split, _, language = name.removesuffix(".tsv").partition("-")
    rows = read(split, language)
    assert Counter(label for _, label in rows) == dict.fromkeys(
        load_task("demo").labels, PER_CLASS[split]
    )
    question = ";" if language == "el" else "?"
    for text, _ in rows:
        assert text == " ".join(text.split())
        assert text[-1] in f".!{question}\u061f\u0964\u3002\uff1f"


@pytest.mark.parametrize("split", ["dev", "test"])
@pytest.mark.parametrize("language", LANGUAGES[1:])
def test_line_n_is_a_translation_with_the_same_label(split: str, language: str) -> None:
    english, rows = read(split, "en"), read(split, language)
    assert [label for _, label in rows] == [label for _, label in english]
    assert all(row[0] != source[0] for row, source in zip(rows, english, strict=True))


@pytest.mark.parametrize("language", LANGUAGES)
def test_text_is_in_the_languages_script(language: str) -> None:
    script = SCRIPTS.get(language, LATIN)
    for text in texts("dev", language) + texts("test", language):
        # Japanese writes ATM in Latin letters too.
        letters = [c for c in re.sub("[A-Z]{2,}", "", text) if c.isalpha()]
        assert letters and all(re.match(script, letter) for letter in letters), text
        assert language != "ja" or re.search("[\u3040-\u30ff]", text), text


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_text_is_in_two_splits_or_twice(language: str) -> None:
    splits = ("train", "dev", "test") if language == "en" else ("dev", "test")
    every = [text.casefold() for split in splits for text in texts(split, language)]
    assert len(set(every)) == len(every)


def test_test_texts_have_words_that_training_texts_lack() -> None:
    """Else a classifier could memorise the words of each class."""
    seen, tested = words("train"), words("test")
    assert len(tested - seen) >= len(tested) / 4


def test_synonyms_are_lower_case_single_words_other_than_the_word() -> None:
    for word, others in dictionary().items():
        assert others and word not in others
        assert len(set(others)) == len(others)
        assert all(one == one.lower() and WORD.fullmatch(one) for one in (word, *others))


def test_synonyms_cover_half_of_the_content_words_of_training() -> None:
    content_words = words("train") - FUNCTION_WORDS
    assert len(content_words & dictionary().keys()) >= len(content_words) / 2
