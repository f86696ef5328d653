"""Helpers for error messages."""

from __future__ import annotations

import errno

from xlt_ray.errors import brief, in_one_line, nearest, refused_writing


def test_nearest_lists_the_valid_names_where_none_is_near() -> None:
    assert nearest("xnly", ["xnli", "pawsx"]) == " (did you mean 'xnli'?)"
    assert nearest("???", ["xnli", "pawsx"]) == " (valid: xnli, pawsx)"
    assert nearest("x", []) == ""


def test_of_many_valid_names_the_first_are_listed() -> None:
    listed = nearest("?", [f"name{index:03}" for index in range(205)])
    assert listed.startswith(" (valid: name000, ") and listed.endswith(", name039 and 165 more)")


def test_an_error_of_several_lines_is_shown_in_one() -> None:
    assert in_one_line(ValueError("first\n   second")) == "first second"
    assert in_one_line(KeyError()) == "KeyError"


def test_long_input_is_shortened_to_its_ends() -> None:
    assert brief("a" * 80) == "a" * 80
    text = "start" + "x" * 5000 + "end"
    assert brief(text) == "start" + "x" * 35 + "…" + "x" * 36 + "end"


def test_a_refusal_to_write_is_told_from_other_errors_also_as_a_cause() -> None:
    refused = OSError(errno.EROFS, "Read-only file system")
    wrapped = OSError("cannot fetch")
    wrapped.__cause__ = PermissionError(errno.EACCES, "Permission denied")
    assert refused_writing(refused) and refused_writing(wrapped)
    assert not refused_writing(FileNotFoundError(errno.ENOENT, "No such file"))
    assert not refused_writing(ValueError("no"))
