"""Files and folders appear complete or not at all; the cache folder; paths for display."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from xlt_ray.errors import UserError
from xlt_ray.files import (
    cache_folder,
    check_cache,
    json_text,
    new_folder,
    relative,
    with_nan,
    write_whole,
)


def test_a_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    file = tmp_path / "search.yaml"
    file.write_text("old")
    with pytest.raises(UnicodeEncodeError):
        write_whole(file, "new \ud800")
    assert file.read_text() == "old"
    write_whole(file, "new")
    assert [path.name for path in tmp_path.iterdir() if path.name[0] != "."] == ["search.yaml"]
    assert file.read_text() == "new"


@pytest.mark.parametrize("chosen", [None, ""])
def test_the_cache_is_in_the_home_folder_by_default(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, chosen: str | None
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("XLT_RAY_CACHE", raising=False)
    if chosen is not None:
        monkeypatch.setenv("XLT_RAY_CACHE", chosen)
    assert cache_folder() == tmp_path / ".cache" / "xlt-ray"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "elsewhere"))
    assert cache_folder() == tmp_path / "elsewhere" / "xlt-ray"


def test_the_cache_is_where_the_variable_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XLT_RAY_CACHE", "/data/cache")
    assert cache_folder() == Path("/data/cache")
    monkeypatch.setenv("XLT_RAY_CACHE", "~/cache")
    assert cache_folder() == tmp_path / "cache"


def test_a_path_below_the_working_folder_is_shown_relative_to_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert relative(tmp_path / "runs" / "demo") == Path("runs/demo")
    assert relative(tmp_path.parent / "other") == tmp_path.parent / "other"


def test_a_new_folder_appears_only_when_it_is_finished(tmp_path: Path) -> None:
    folder = tmp_path / "cache" / "task"
    with pytest.raises(ValueError, match="broken"), new_folder(folder) as building:
        (building / "content").write_text("half")
        raise ValueError("broken")
    assert list(folder.parent.iterdir()) == []
    with new_folder(folder) as building:
        (building / "content").write_text("whole")
        assert not folder.exists() and building.parent == folder.parent
    assert (folder / "content").read_text() == "whole"
    assert list(folder.parent.iterdir()) == [folder]


def test_the_first_published_folder_stays(tmp_path: Path) -> None:
    folder = tmp_path / "task"
    with new_folder(folder) as slower:
        (slower / "content").write_text("second")
        with new_folder(folder) as faster:
            (faster / "content").write_text("first")
    assert (folder / "content").read_text() == "first"
    assert list(tmp_path.iterdir()) == [folder]


def test_a_folder_that_cannot_be_published_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "task").write_text("a file where the folder should be")
    with pytest.raises(OSError, match="Not a directory"), new_folder(tmp_path / "task"):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["task"]


def test_json_has_no_nan() -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    text = json_text({"a": math.nan, "b": [math.inf, 1.5, {"c": -math.inf}], "d": (True, None, 3)})
    read = json.loads(text, parse_constant=refuse)
    assert read == {"a": None, "b": [None, 1.5, {"c": None}], "d": [True, None, 3]}
    assert math.isnan(with_nan(read)["a"]) and with_nan(read)["b"] == read["b"]


@pytest.mark.parametrize("place", ["file/cache", "~nobody-has-this-name/cache"])
def test_a_cache_that_cannot_be_written_is_told(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    monkeypatch.setenv("XLT_RAY_CACHE", place)
    with pytest.raises(UserError, match=r"^cache folder.*; set XLT_RAY_CACHE to a folder"):
        check_cache()
    monkeypatch.setenv("XLT_RAY_CACHE", "new/cache")
    check_cache()
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_without_a_home_there_is_no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("XLT_RAY_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    # Python leaves a path as it is if it finds no home folder.
    monkeypatch.setattr("os.path.expanduser", lambda path: path)
    with pytest.raises(UserError, match="no home folder"):
        check_cache()
