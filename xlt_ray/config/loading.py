"""Reading search files: YAML, overrides by dotted keys, validation."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from xlt_ray.config.explain import one_line
from xlt_ray.config.keys import set_key
from xlt_ray.config.spec import SearchSpec
from xlt_ray.errors import UserError, brief, nearest

SEARCH_FOLDER = Path(__file__).resolve().parents[2] / "search_spaces"


def parse_override(text: str) -> tuple[str, Any]:
    """Split a ``key=value`` flag; the value is read as YAML, so that it is typed.

    Raises:
        UserError: If there is no ``=``, no key, or the value is not YAML.
    """
    key, equals, value = text.partition("=")
    if not equals or not all(name.strip() for name in key.split(".")):
        raise UserError(f"--set {brief(text)}: expected key=value, such as training.max_steps=100")
    try:
        return key.strip(), _parsed(value)
    except yaml.YAMLError:
        raise UserError(f"--set {brief(text)}: '{brief(value)}' is not a YAML value") from None


def parse_overrides(texts: Iterable[str]) -> dict[str, Any]:
    """Read several ``key=value`` flags, as :func:`parse_override` does.

    Raises:
        UserError: Also if one of them undoes another.
    """
    values: dict[str, Any] = {}
    for text in texts:
        key, value = parse_override(text)
        undone = next((other for other in values if f"{other}.".startswith(f"{key}.")), None)
        if undone is not None:
            raise UserError(
                f"--set {brief(key)}: it undoes --set {brief(undone)} before it; leave one out"
            )
        values[key] = value
    return values


def available_searches(folder: Path = SEARCH_FOLDER) -> dict[str, Path]:
    """Names and files of the searches in a folder, sorted by name."""
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def find_search(name: str, folder: Path = SEARCH_FOLDER) -> Path:
    """Resolve a search's name or path.

    Raises:
        UserError: If there is no such file; the nearest name is suggested.
    """
    searches = available_searches(folder)
    if name in searches:
        return searches[name]
    path = Path(name)
    if path.suffix in (".yaml", ".yml") or "/" in name:
        if path.is_file():
            return path
        raise UserError(f"--search {brief(name)}: there is no such file")
    raise UserError(f"--search {brief(name)}: no such search{nearest(name, searches)}")


class _UniqueKeyLoader(yaml.SafeLoader):
    """A safe YAML loader that refuses a key given twice and reads 2e-5 as a number."""


class _Dumper(yaml.SafeDumper):
    """Writes what that loader reads back: the text `2e-5` in quotes."""


def _unique_mapping(loader: yaml.SafeLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    loader.flatten_mapping(node)
    seen: dict[Any, Any] = {}
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, Hashable):
            raise yaml.constructor.ConstructorError(
                problem="a key must be a plain word", problem_mark=key_node.start_mark
            )
        if key in seen:
            line = key_node.start_mark.line + 1
            raise yaml.constructor.ConstructorError(
                problem=f"key '{key}' is given twice (line {line})",
                problem_mark=key_node.start_mark,
            )
        seen[key] = loader.construct_object(value_node, deep=True)
    return seen


def _text(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> str:
    text = loader.construct_yaml_str(node)
    if re.search("[\0\ud800-\udfff]", text):
        # Spelt as an escape; a file of that name could not even be looked for.
        raise yaml.constructor.ConstructorError(
            problem="a text has a character in it that no file can hold",
            problem_mark=node.start_mark,
        )
    return text


_UniqueKeyLoader.add_constructor("tag:yaml.org,2002:map", _unique_mapping)
_UniqueKeyLoader.add_constructor("tag:yaml.org,2002:str", _text)
for _side in (_UniqueKeyLoader, _Dumper):
    _side.add_implicit_resolver(
        "tag:yaml.org,2002:float",
        re.compile(r"^[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)[eE][-+]?[0-9]+$"),
        list("-+.0123456789"),
    )


def _parsed(text: str) -> Any:
    """Read YAML; whatever is wrong with it is a YAMLError."""
    try:
        return yaml.load(text, Loader=_UniqueKeyLoader)
    except yaml.YAMLError:
        raise
    # PyYAML trips over some texts: the day 2026-13-45, `!!int x`, numbers of 5,000 digits, a
    # thousand brackets.
    except Exception as error:
        raise yaml.YAMLError(str(error)) from None


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file whose top level is a mapping.

    Raises:
        UserError: If the file is not UTF-8, not YAML, gives a key twice or is no mapping.
    """
    try:
        tree = _parsed(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError:
        raise UserError(f"{path}: not UTF-8 text") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "not valid YAML"
        raise UserError(f"{path}{line}: {problem}") from None
    if not isinstance(tree, dict):
        raise UserError(f"{path}: expected a mapping of keys to values")
    return tree


def load_spec(name: str, overrides: Mapping[str, Any] | None = None) -> SearchSpec:
    """Read, override and validate a search file.

    Args:
        name: Name of a file in ``search_spaces/`` without its ending, or a path.
        overrides: Dotted keys and values that replace the file's.

    Raises:
        UserError: If there is no such search, or a key or value is wrong.
    """
    path = find_search(name)
    tree = read_yaml(path)
    tree.setdefault("name", path.stem)
    for key, value in (overrides or {}).items():
        set_key(tree, key, value)
    try:
        return SearchSpec.model_validate(tree)
    except ValidationError as error:
        raise UserError(one_line(error, str(path), SearchSpec)) from None


def dump_spec(spec: SearchSpec) -> str:
    """Write a spec as YAML that :func:`load_spec` reads back to an equal spec."""
    return yaml.dump(
        spec.model_dump(mode="json"), Dumper=_Dumper, sort_keys=False, allow_unicode=True
    )
