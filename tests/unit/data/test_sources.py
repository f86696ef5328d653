"""Finding the files of splits and languages."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import pandas as pd
import pytest

from tests.support.task_files import check_data, files_task, mistake, xtreme
from xlt_ray.config.task import DataSource, FileSource, load_task, with_data_dir
from xlt_ray.data.sources import find_files, load_split
from xlt_ray.errors import UserError


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


def test_a_file_that_the_system_does_not_look_for_is_named(tmp_path: Path) -> None:
    """Root may enter every folder, so the name is too long for the system."""
    task = files_task(tmp_path / ("x" * 300), "tsv")
    assert mistake(task).endswith("/train-en.tsv: cannot be read (File name too long)")


def test_languages_are_found_where_they_are_folders(tmp_path: Path) -> None:
    (tmp_path / "sw").mkdir()
    (tmp_path / "sw" / "dev-sw.tsv").touch()
    (tmp_path / "sw" / "dev-en.tsv").touch()
    source = FileSource(train="t", dev=f"{tmp_path}/{{language}}/dev-{{language}}.tsv", test="t")
    task = files_task(tmp_path, "tsv").model_copy(update={"data": DataSource(files=source)})
    with pytest.raises(UserError, match=r"languages found there: sw$"):
        load_split(task, "dev", "de")


def test_the_demo_is_sound_and_parallel() -> None:
    counts = check_data(load_task("demo"))
    assert {split for split, _ in counts} == {"train", "dev", "test"}
    for split in ("dev", "test"):
        assert len({n for (s, _), n in counts.items() if s == split}) == 1


@pytest.mark.skipif(
    "XLT_RAY_TEST_DATA" not in os.environ, reason="XLT_RAY_TEST_DATA names no folder of real data"
)
@pytest.mark.parametrize("name", ["xnli", "pawsx", "sib200"])
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
        ours = load_split(task, split, language).dataset()
        assert ours["text_a"][:] == frame[0].tolist()
        if task.is_pair:
            assert ours["text_b"][:] == frame[1].tolist()
        names = [task.labels[i] for i in ours["label"]] if name != "pawsx" else ours["label"][:]
        assert [str(n) for n in names] == frame.iloc[:, -1].tolist()
