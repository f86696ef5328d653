"""Reading data: every format gives the same examples, every mistake is told by file and line."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xlt_ray.config.task import DataSource, FileSource, TaskSpec, load_task, with_data_dir
from xlt_ray.data.sources import check_data, find_files, load_split
from xlt_ray.errors import UserError

LABELS = ("entailment", "neutral", "contradiction")
ROWS = [
    ('He said "no".', "He refused, plainly.", "entailment"),
    ("It rains", 'A "quote', "neutral"),
    ("über Straßen, Flüsse", "在花园里", "contradiction"),
]


def files_task(folder: Path, kind: str) -> TaskSpec:
    """A pair task over en and de whose files are ``folder/SPLIT-XX.KIND``."""
    source = FileSource(
        train=str(folder / f"train-{{language}}.{kind}"),
        dev=str(folder / f"dev-{{language}}.{kind}"),
        test=str(folder / f"test-{{language}}.{kind}"),
    )
    return TaskSpec(
        name="small",
        target_languages=("de",),
        text_columns=("premise", "hypothesis"),
        labels=LABELS,
        data=DataSource(files=source),
    )


def xtreme(folder: Path, dev_de: bytes | None = None) -> TaskSpec:
    """The three rows above in XTREME's layout; ``dev_de`` replaces the German dev file."""
    text = "".join("\t".join(row) + "\n" for row in ROWS).encode()
    for name in ("train-en", "dev-en", "dev-de", "test-en", "test-de"):
        (folder / f"{name}.tsv").write_bytes(text)
    if dev_de is not None:
        (folder / "dev-de.tsv").write_bytes(dev_de)
    return with_data_dir(files_task(folder, "tsv"), folder)


def triples(task: TaskSpec, language: str = "de") -> list[tuple[str, str, str]]:
    split = load_split(task, "dev", language)
    return [(row["text_a"], row["text_b"], LABELS[row["label"]]) for row in split]


def mistake(task: TaskSpec) -> str:
    with pytest.raises(UserError) as error:
        check_data(task)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_xtremes_layout_has_no_quoting(tmp_path: Path) -> None:
    assert triples(xtreme(tmp_path)) == ROWS


def test_byte_order_mark_and_carriage_returns_are_no_part_of_the_text(tmp_path: Path) -> None:
    text = "".join("\t".join(row) + "\r\n" for row in ROWS).encode("utf-8-sig")
    assert triples(xtreme(tmp_path, text)) == ROWS


def test_the_last_line_needs_no_newline(tmp_path: Path) -> None:
    text = "\n".join("\t".join(row) for row in ROWS).encode()
    assert triples(xtreme(tmp_path, text)) == ROWS


@pytest.mark.parametrize("kind", ["tsv", "csv", "jsonl", "parquet"])
def test_every_format_with_named_columns_gives_the_same_rows(tmp_path: Path, kind: str) -> None:
    # Columns in another order and one that is not wanted.
    frame = pd.DataFrame(
        [{"label": c, "id": n, "hypothesis": b, "premise": a} for n, (a, b, c) in enumerate(ROWS)]
    )
    path = tmp_path / f"dev-de.{kind}"
    if kind == "tsv":
        frame.to_csv(path, sep="\t", index=False, quoting=csv.QUOTE_NONE, quotechar="\x00")
    elif kind == "csv":
        frame.to_csv(path, index=False)
    elif kind == "jsonl":
        frame.to_json(path, orient="records", lines=True, force_ascii=False)
    else:
        frame.to_parquet(path)
    assert triples(files_task(tmp_path, kind)) == ROWS


def test_a_csv_cell_may_hold_a_line_break(tmp_path: Path) -> None:
    with (tmp_path / "dev-de.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(
            [("premise", "hypothesis", "label"), ("one\ntwo", "three", "neutral")]
        )
    assert triples(files_task(tmp_path, "csv")) == [("one\ntwo", "three", "neutral")]


@given(
    st.lists(
        st.tuples(
            st.text(st.characters(exclude_characters="\t\n\r", codec="utf-8"), min_size=1),
            st.text(st.characters(exclude_characters="\t\n\r", codec="utf-8"), min_size=1),
            st.sampled_from(LABELS),
        ).filter(lambda row: not row[0].isspace() and not row[1].isspace()),
        min_size=1,
    )
)
def test_any_text_without_tab_and_line_break_comes_back(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str, str]]
) -> None:
    # A leading U+FEFF of the whole file is a byte order mark, not text.
    rows = [("x" + rows[0][0], *rows[0][1:]), *rows[1:]]
    folder = tmp_path_factory.mktemp("any")
    text = "".join("\t".join(row) + "\n" for row in rows).encode()
    assert triples(xtreme(folder, text)) == rows


def test_labels_may_be_names_ids_or_declared_values(tmp_path: Path) -> None:
    task = xtreme(tmp_path, b"a\tb\tneutral\na\tb\t1\na\tb\tmeh\n")
    task = task.model_copy(update={"label_values": {"meh": "neutral"}})
    assert load_split(task, "dev", "de")["label"][:] == [1, 1, 1]
    (tmp_path / "dev-de.jsonl").write_text(
        json.dumps({"premise": "a", "hypothesis": "b", "label": 2}) + "\n"
    )
    assert load_split(files_task(tmp_path, "jsonl"), "dev", "de")["label"][:] == [2]


def test_declared_values_come_before_ids(tmp_path: Path) -> None:
    task = xtreme(tmp_path, b"a\tb\t0\n")
    task = task.model_copy(update={"label_values": {"0": "contradiction"}})
    assert load_split(task, "dev", "de")["label"][:] == [2]


def test_numbers_as_class_names_are_names_and_not_ids(tmp_path: Path) -> None:
    task = xtreme(tmp_path, b"a\tb\t1\n").model_copy(update={"labels": ("1", "2", "3")})
    assert load_split(task, "dev", "de")["label"][:] == [0]
    (tmp_path / "dev-de.tsv").write_bytes(b"a\tb\t0\n")
    with pytest.raises(UserError, match="unknown label '0'"):
        load_split(task, "dev", "de")


def test_single_texts_have_no_second_column(tmp_path: Path) -> None:
    (tmp_path / "dev-de.csv").write_text("text,label\nhallo,neutral\n")
    task = files_task(tmp_path, "csv").model_copy(update={"text_columns": ("text",)})
    split = load_split(task, "dev", "de")
    assert split.column_names == ["text_a", "label"] and split[0]["text_a"] == "hallo"


def test_train_is_the_source_language_only(tmp_path: Path) -> None:
    task = xtreme(tmp_path)
    (tmp_path / "train-de.tsv").write_bytes((tmp_path / "train-en.tsv").read_bytes())
    assert [key for key in find_files(task) if key[0] == "train"] == [("train", "en")]
    with pytest.raises(UserError, match=r"training data is read in en only, not in 'de'"):
        load_split(task, "train", "de")
    with pytest.raises(UserError, match=r"no language 'fr' \(valid: en, de\)"):
        load_split(task, "dev", "fr")


def test_check_counts_the_rows_of_every_split_and_language(tmp_path: Path) -> None:
    assert check_data(xtreme(tmp_path)) == {
        ("train", "en"): 3,
        ("dev", "en"): 3,
        ("dev", "de"): 3,
        ("test", "en"): 3,
        ("test", "de"): 3,
    }


def test_a_missing_file_tells_the_languages_found(tmp_path: Path) -> None:
    task = xtreme(tmp_path)
    (tmp_path / "dev-de.tsv").rename(tmp_path / "dev-sw.tsv")
    assert mistake(task) == (
        f"{tmp_path}/dev-de.tsv: there is no such file (dev, language 'de'); "
        "languages found there: en, sw"
    )


def test_languages_are_found_where_they_are_folders(tmp_path: Path) -> None:
    (tmp_path / "sw").mkdir()
    (tmp_path / "sw" / "dev-sw.tsv").touch()
    (tmp_path / "sw" / "dev-en.tsv").touch()
    source = FileSource(train="t", dev=f"{tmp_path}/{{language}}/dev-{{language}}.tsv", test="t")
    task = files_task(tmp_path, "tsv").model_copy(update={"data": DataSource(files=source)})
    with pytest.raises(UserError, match=r"languages found there: sw$"):
        load_split(task, "dev", "de")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (b"a\tb\tneutral\na\tb\n", "line 2: expected 3 columns (premise, hypothesis, label), f"),
        (b"a\tb\n", "XTREME publishes its test files without labels"),
        (b"a\tb\tc\tneutral\n", "found 4; is there a separator inside a text?"),
        (b"a\tb\tneutral\n\na\tb\tneutral\n", "line 2: expected 3 columns"),
        (b"a\tb\tneutrl\n", "line 1: unknown label 'neutrl' (did you mean 'neutral'?); valid: en"),
        (b"a\tb\t3\n", "line 1: unknown label '3' (valid: entailment, neutral, contradiction)"),
        (b"a\tb\t-1\n", "unknown label '-1', which data sets put where a label is missing"),
        (b"a\tb\tneutral\n \tb\tneutral\n", "line 2: the text in column 'premise' is empty"),
        (b"a\t\tneutral\n", "line 1: the text in column 'hypothesis' is empty"),
        (b"", "there are no rows"),
        (b"a\tb\tneutral\nStra\xdfe\tb\tneutral\n", "line 2: not UTF-8 (byte 0xdf at offset 16)"),
    ],
)
def test_a_mistake_in_a_file_is_told_by_file_and_line(
    tmp_path: Path, text: bytes, told: str
) -> None:
    message = mistake(xtreme(tmp_path, text))
    assert message.startswith(f"{tmp_path}/dev-de.tsv") and told in message


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("dev-de.csv", "premise,text,label\n", "no column 'hypothesis'; columns found: premise, t"),
        ("dev-de.csv", 'premise,hypothesis,label\n"a,b,neutral\n', "not valid CSV"),
        ("dev-de.jsonl", '{"premise": "a", "label": 0}\n', "line 1: no column 'hypothesis'"),
        ("dev-de.jsonl", '{"premise": \n', "line 1: not valid JSON"),
        ("dev-de.jsonl", "[1]\n", "line 1: expected a JSON object"),
        (
            "dev-de.jsonl",
            '\n{"premise": 5, "hypothesis": "b", "label": 0}\n',
            "line 2: the text in column 'premise' is not text",
        ),
        ("dev-de.parquet", "nonsense", "not a readable Parquet file"),
        ("dev-de.txt", "a", "cannot tell the format from the ending '.txt'"),
    ],
)
def test_mistakes_of_the_other_formats(tmp_path: Path, name: str, text: str, told: str) -> None:
    (tmp_path / name).write_text(text)
    task = files_task(tmp_path, name.rpartition(".")[2])
    with pytest.raises(UserError) as error:
        load_split(task, "dev", "de")
    assert str(tmp_path / name) in str(error.value) and told in str(error.value)


def test_a_parquet_file_without_a_wanted_column_tells_those_it_has(tmp_path: Path) -> None:
    pd.DataFrame({"premise": ["a"], "gold": [1]}).to_parquet(tmp_path / "dev-de.parquet")
    with pytest.raises(UserError, match="no column 'hypothesis'; columns found: premise, gold"):
        load_split(files_task(tmp_path, "parquet"), "dev", "de")


def test_the_demo_is_sound_and_parallel() -> None:
    counts = check_data(load_task("demo"))
    assert {split for split, _ in counts} == {"train", "dev", "test"}
    for split in ("dev", "test"):
        assert len({n for (s, _), n in counts.items() if s == split}) == 1


@pytest.mark.skipif(
    "XLT_RAY_TEST_DATA" not in os.environ, reason="XLT_RAY_TEST_DATA names no folder of real data"
)
@pytest.mark.parametrize("name", ["xnli", "pawsx"])
def test_real_data_reads_as_pandas_reads_it(name: str) -> None:
    folder = Path(os.environ["XLT_RAY_TEST_DATA"]) / name
    task = with_data_dir(load_task(name), folder)
    counts = check_data(task)
    assert len(counts) == 2 * len(task.languages) + 1
    for split, language in counts:
        frame = pd.read_csv(
            folder / f"{split}-{language}.tsv",
            sep="\t",
            header=None,
            quoting=csv.QUOTE_NONE,
            keep_default_na=False,
            dtype=str,
        )
        ours = load_split(task, split, language)
        assert ours["text_a"][:] == frame[0].tolist()
        assert ours["text_b"][:] == frame[1].tolist()
        names = [task.labels[i] for i in ours["label"]] if name == "xnli" else ours["label"][:]
        assert [str(n) for n in names] == frame[2].tolist()
