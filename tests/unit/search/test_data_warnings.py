"""Data and tokenizers that can be trained with, but hardly as meant."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModel

from tests.support.core_toy import Toy, make_toy
from tests.unit.search.test_plan import complaint, plan_of
from xlt_ray.data.labelled import Examples
from xlt_ray.search.data_warnings import invisible_rows, of_equal_files, of_synonyms
from xlt_ray.search.plan_lines import describe

INVISIBLE = ["\u200b", "\ufeff", "\u00ad", "\0", "\u200e \u2060"]


@pytest.fixture
def own(tmp_path: Path) -> Toy:
    """A toy task whose files a test changes."""
    return make_toy(tmp_path)


def rows(toy: Toy, name: str) -> list[list[str]]:
    text = (toy.folder / name).read_text(encoding="utf-8")
    return [line.split("\t") for line in text.splitlines()]


def write(toy: Toy, name: str, lines: list[list[str]]) -> None:
    text = "".join("\t".join(line) + "\n" for line in lines)
    (toy.folder / name).write_text(text, encoding="utf-8")


def warnings(toy: Toy, changes: dict[str, Any] | None = None) -> list[str]:
    return [text for name, text in describe(plan_of(toy, changes)) if name == "warning"]


def test_usual_data_has_no_warning(toy: Toy) -> None:
    assert warnings(toy) == []


def test_training_rows_of_one_class_are_refused(own: Toy) -> None:
    write(own, "train-en.tsv", sorted(rows(own, "train-en.tsv"), key=lambda row: row[-1]))
    message = complaint(own, {"data.train_limit": 10})
    assert "the first 10 training rows are all of class 'blue'; raise data.train_limit" in message
    assert warnings(own) == []
    write(own, "train-en.tsv", [row for row in rows(own, "train-en.tsv") if row[-1] == "red"])
    assert "the 48 training rows are all of class 'red'; give rows of others" in complaint(own, {})


def test_a_class_without_training_rows_is_named(own: Toy) -> None:
    task = own.folder / "task.yaml"
    text = task.read_text(encoding="utf-8")
    task.write_text(text.replace("- blue", "- blue\n- green"), encoding="utf-8")
    (warning,) = warnings(own)
    assert warning.startswith("none of the 96 training rows is of class 'green'; ")
    write(own, "train-en.tsv", [*rows(own, "train-en.tsv"), ["a", "b", "green"]])
    assert warnings(own) == []
    (warning,) = warnings(own, {"data.train_limit": 96})
    assert warning.startswith("none of the first 96 training rows is of class 'green'; ")


def test_a_class_that_a_limit_cuts_off_is_named(own: Toy) -> None:
    write(own, "dev-de.tsv", sorted(rows(own, "dev-de.tsv"), key=lambda row: row[-1]))
    assert warnings(own) == []
    (warning,) = warnings(own, {"data.dev_limit": 5})
    assert warning == (
        "none of the first 5 dev rows of de is of class 'red'; raise data.dev_limit or shuffle "
        "the file"
    )


@pytest.mark.parametrize("text", INVISIBLE)
def test_a_text_of_which_nothing_is_seen_is_counted(text: str) -> None:
    assert invisible_rows(Examples((["a", text, "."], ["b", "c", "\u0301"]), [0, 0, 0])) == 1
    assert invisible_rows(Examples((["a"], [text]), [0])) == 1


def test_invisible_texts_are_told_and_refused_where_all_are(own: Toy) -> None:
    lines = rows(own, "dev-de.tsv")
    write(own, "dev-de.tsv", [["\u200b", "x", "red"], *lines])
    (warning,) = warnings(own)
    assert "invisible characters only: dev de 1; fill" in warning
    write(own, "dev-de.tsv", [["\u200b", "x", label] for *_, label in lines])
    assert "every row of dev de has a text of invisible characters only" in complaint(own, {})


def test_synonyms_of_other_words_than_the_texts_are_told(toy: Toy, tmp_path: Path) -> None:
    file = tmp_path / "synonyms.json"
    file.write_text(json.dumps({"xyzzy": ["plugh"]}), encoding="utf-8")
    changes = {"method.view.synonyms": str(file)}
    (warning,) = warnings(toy, changes)
    assert warning.startswith("method.view.synonyms: none of the words of 192 training texts has")
    for kind in ("random", "adversarial"):
        assert warnings(toy, changes | {"method.view.kind": kind, "search.baselines": []}) == []
    file.write_text(json.dumps({"garden": ["park"]}), encoding="utf-8")
    assert warnings(toy, changes) == []


def test_few_words_with_synonyms_have_their_share_named() -> None:
    examples = Examples((["Word"] + ["other"] * 399,), [0] * 400)
    assert "only 0.25 % of the words of 400 training texts have" in of_synonyms(examples, {"word"})
    assert of_synonyms(examples, {"other"}) == ""


def test_files_of_the_same_content_are_told(own: Toy) -> None:
    shutil.copy(own.folder / "dev-en.tsv", own.folder / "test-en.tsv")
    (warning,) = warnings(own)
    assert "same content: dev-en.tsv (dev, en) = test-en.tsv (test, en); give" in warning
    many = of_equal_files([[f"dev-{n}", f"test-{n}"] for n in range(5)])
    assert "dev-2 = test-2 and 2 more; give" in many and "dev-3" not in many


def test_a_tokenizer_of_far_fewer_pieces_than_the_table_is_told(toy: Toy, tmp_path: Path) -> None:
    folder = shutil.copytree(toy.encoder(), tmp_path / "encoder")
    model = AutoModel.from_pretrained(folder)
    pieces = model.config.vocab_size
    for size, told in ((2 * pieces, False), (2 * pieces + 1, True)):
        model.resize_token_embeddings(size)
        model.save_pretrained(folder)
        found = warnings(toy, {"model": str(folder)})
        assert [
            f"has {pieces:,} pieces, its embedding table {size:,} rows" in w for w in found
        ] == ([True] * told)
