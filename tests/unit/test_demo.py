"""The demo task's data: what the README and the pipeline rely on."""

import itertools
import json
import re
from collections import Counter, defaultdict
from pathlib import Path

import pytest

import xlt_ray.demo
from xlt_ray.demo.generate import LANGUAGES, files, lexicon
from xlt_ray.method.synonyms import FUNCTION_WORDS, WORD

FOLDER = Path(xlt_ray.demo.__file__).parent
LABELS = {"contradiction", "entailment", "neutral"}
NAMES = [
    "train-en.tsv",
    *(f"{split}-{language}.tsv" for split in ("dev", "test") for language in LANGUAGES),
]
NON_LATIN_SCRIPTS = {
    "ru": "[\u0400-\u04ff]",
    "zh": "[\u4e00-\u9fff]",
    "ar": "[\u0600-\u06ff]",
    "hi": "[\u0900-\u097f]",
}


def read(name: str) -> list[list[str]]:
    text = (FOLDER / "data" / name).read_text(encoding="utf-8")
    return [line.split("\t") for line in text.removesuffix("\n").split("\n")]


def pairs(name: str) -> list[tuple[str, str]]:
    return [(premise, hypothesis) for premise, hypothesis, _ in read(name)]


def test_committed_files_are_the_generators_output() -> None:
    committed = {path.name: path.read_bytes() for path in (FOLDER / "data").iterdir()}
    assert committed == {name: content.encode() for name, content in files().items()}


def test_there_are_ten_languages_in_five_scripts_and_english_training_data_only() -> None:
    assert {path.name for path in (FOLDER / "data").iterdir()} == set(NAMES)
    assert len(LANGUAGES) == 10
    assert len(NON_LATIN_SCRIPTS) + 1 == 5


@pytest.mark.parametrize("name", NAMES)
def test_rows_are_two_clean_sentences_and_a_label(name: str) -> None:
    rows = read(name)
    assert all(len(row) == 3 and row[2] in LABELS for row in rows)
    sentences = [sentence for row in rows for sentence in row[:2]]
    full_stop = {"zh": "。", "hi": "।"}.get(name[-6:-4], ".")
    for sentence in sentences:
        assert sentence == " ".join(sentence.split())
        assert sentence[0].upper() == sentence[0]
        assert sentence.endswith(full_stop) and sentence.count(full_stop) == 1
        assert not re.search(r'[{}$"]| [,.।،]', sentence)
    assert all(premise != hypothesis for premise, hypothesis, _ in rows)


@pytest.mark.parametrize("split", ["dev", "test"])
def test_line_n_has_the_same_label_in_every_language(split: str) -> None:
    labels = [[row[2] for row in read(f"{split}-{language}.tsv")] for language in LANGUAGES]
    assert all(of_language == labels[0] for of_language in labels)


@pytest.mark.parametrize(("split", "size"), [("train", 3600), ("dev", 108), ("test", 216)])
def test_labels_are_balanced(split: str, size: int) -> None:
    counts = Counter(row[2] for row in read(f"{split}-en.tsv"))
    assert counts == {label: size // 3 for label in LABELS}


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_pair_is_in_two_splits_or_twice(language: str) -> None:
    names = [f"dev-{language}.tsv", f"test-{language}.tsv"]
    every_pair = [pair for name in names for pair in pairs(name)]
    if language == "en":
        every_pair += pairs("train-en.tsv")
    assert len(set(every_pair)) == len(every_pair)


@pytest.mark.parametrize("language", LANGUAGES)
def test_text_is_in_the_languages_script(language: str) -> None:
    script = NON_LATIN_SCRIPTS.get(language, "[A-Za-z\u00c0-\u024f]")
    for pair in pairs(f"dev-{language}.tsv") + pairs(f"test-{language}.tsv"):
        letters = [c for sentence in pair for c in sentence if c.isalpha()]
        assert all(re.match(script, letter) for letter in letters)


def test_no_pair_has_two_labels() -> None:
    labels = defaultdict(set)
    for name in ("train-en.tsv", "dev-en.tsv", "test-en.tsv"):
        for premise, hypothesis, label in read(name):
            labels[premise, hypothesis].add(label)
    assert all(len(of_pair) == 1 for of_pair in labels.values())


def test_the_hypothesis_alone_does_not_give_the_label_away() -> None:
    labels_by_hypothesis: defaultdict[str, Counter[str]] = defaultdict(Counter)
    people = "|".join(entry["en"] for entry in lexicon("people").values())
    for _, hypothesis, label in read("train-en.tsv"):
        anonymous = re.sub(people, "X", hypothesis, flags=re.IGNORECASE)
        anonymous = re.sub(r" (yesterday|on \w+day|two days ago)", " T", anonymous)
        labels_by_hypothesis[anonymous][label] += 1
    # Guessing each hypothesis's most frequent label, even when fitted to the same pairs.
    right = sum(max(labels.values()) for labels in labels_by_hypothesis.values())
    assert right / sum(labels.total() for labels in labels_by_hypothesis.values()) < 0.42


def test_negation_occurs_with_every_label() -> None:
    negated = Counter(
        label
        for _, hypothesis, label in read("train-en.tsv")
        if re.search(r"\b(not|nobody)\b", hypothesis)
    )
    assert min(negated.values()) > 0.25 * negated.total()
    assert set(negated) == LABELS


def test_synonyms_are_lower_case_single_words_other_than_the_word() -> None:
    synonyms = json.loads((FOLDER / "synonyms.json").read_text(encoding="utf-8"))
    for word, others in synonyms.items():
        assert word not in others
        assert len(set(others)) == len(others) <= 6
        assert all(one == one.lower() and WORD.fullmatch(one) for one in (word, *others))


def test_synonyms_cover_the_english_content_words() -> None:
    synonyms = json.loads((FOLDER / "synonyms.json").read_text(encoding="utf-8"))
    names = ("train-en.tsv", "dev-en.tsv", "test-en.tsv")
    sentences = itertools.chain.from_iterable(pair for name in names for pair in pairs(name))
    words = {word.lower() for sentence in sentences for word in WORD.findall(sentence)}
    assert words == set(synonyms)
    content_words = words - FUNCTION_WORDS
    assert sum(bool(synonyms[word]) for word in content_words) >= 0.7 * len(content_words)
    assert sum(len(synonyms[word]) >= 2 for word in content_words) >= 0.5 * len(content_words)
