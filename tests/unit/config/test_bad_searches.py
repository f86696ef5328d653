"""Search files that are wrong in hundreds of ways: each is told in a line that names the place."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from xlt_ray.config.loading import dump_spec, load_spec
from xlt_ray.errors import UserError

WHOLE: dict[str, Any] = yaml.safe_load(dump_spec(load_spec("demo")))
VALUES: tuple[Any, ...] = (
    *("", " ", "text", "a\nb", "\u202eünï", "x" * 5000, "-1"),
    *(-1, 0, -0.5, 2**70, math.inf, math.nan, True, None),
    *([], [1], [None], {}, {"a": 1}),
)
FORMS = {
    "not UTF-8": b"\xff\xfe",
    "half a character": b"name: \x80",
    "a null byte": b"\x00",
    "unclosed": b"method: [",
    "a list": b"- 1",
    "a number": b"3",
    "nothing": b"",
    "two colons": b"a: b: c",
    "a tab": b"\t- x",
    "an unknown version": b"%YAML 9",
    "a Python object": b"!!python/object/apply:os.getcwd []",
    "a list that holds itself": b"&a [*a]",
    "a key twice": b"task: demo\ntask: demo\n",
}


def keys(tree: dict[str, Any], above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, value in tree.items():
        yield (*above, name)
        if isinstance(value, dict):
            yield from keys(value, (*above, name))


KEYS = list(keys(WHOLE))


def told(content: bytes, folder: Path) -> str | None:
    """What is said of a search file; None if it is accepted. Anything but UserError fails."""
    file = folder / "wrong search.yaml"
    file.write_bytes(content)
    try:
        load_spec(str(file))
    except UserError as error:
        return str(error)
    return None


def changed(key: tuple[str, ...], name: str, value: Any) -> bytes:
    tree = copy.deepcopy(WHOLE)
    section = tree
    for part in key[:-1]:
        section = section[part]
    if name != key[-1]:
        del section[key[-1]]
    section[name] = value
    return yaml.safe_dump(tree, allow_unicode=True).encode()


@pytest.mark.parametrize("key", KEYS, ids=".".join)
def test_wrong_value_is_told_with_its_place(key: tuple[str, ...], tmp_path: Path) -> None:
    answers = [told(changed(key, key[-1], value), tmp_path) for value in VALUES]
    answers = [answer for answer in answers if answer is not None]
    # Texts that name things are free, and a number may well be any of a few of them.
    assert len(answers) >= 3
    for answer in answers:
        assert "\n" not in answer and "wrong search.yaml" in answer and len(answer) < 500
        # A file that is wrong in two places names one of them.
        assert key[0] in answer, answer


@pytest.mark.parametrize("key", KEYS, ids=".".join)
def test_mistyped_key_is_told(key: tuple[str, ...], tmp_path: Path) -> None:
    wrong = f"{key[-1]}_x"
    section = WHOLE
    for part in key[:-1]:
        section = section[part]
    answer = told(changed(key, wrong, section[key[-1]]), tmp_path)
    assert answer is not None and "\n" not in answer
    # A searched key is itself a dotted one.
    names = [name.rpartition(".")[2] for name in (wrong, key[-1])]
    assert "wrong search.yaml" in answer and any(name in answer for name in names), answer


@pytest.mark.parametrize("form", FORMS)
def test_file_that_is_no_search_is_told(form: str, tmp_path: Path) -> None:
    answer = told(FORMS[form], tmp_path)
    assert answer is not None and "\n" not in answer and "wrong search.yaml" in answer


def refused(folder: Path) -> int:
    """How many distinct search files of these tests are refused."""
    wrong = {changed(key, key[-1], value) for key in KEYS for value in VALUES} | set(FORMS.values())
    for key in KEYS:
        section = WHOLE
        for part in key[:-1]:
            section = section[part]
        wrong.add(changed(key, f"{key[-1]}_x", section[key[-1]]))
    return sum(told(content, folder) is not None for content in wrong)
