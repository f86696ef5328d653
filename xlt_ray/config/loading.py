"""Reading search files: YAML, overrides by dotted keys, validation.

The command line and the Python API load every search through ``load_spec``.
"""

from __future__ import annotations

import copy
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

SHIPPED_SEARCHES = Path(__file__).parents[1] / "search_spaces"
"""Searches that come with the package; in the repository, a link to the folder at the top."""


def parse_override(text: str) -> tuple[str, Any]:
    """Split a ``key=value`` flag and parse the value as YAML, which gives it a type.

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
    """Parse several ``key=value`` flags with :func:`parse_override`.

    Raises:
        UserError: If a flag is malformed, or overwrites an earlier flag.
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


def available_searches() -> dict[str, Path]:
    """Return the names and files of all named searches, sorted by name.

    A file in ``search_spaces/`` of the working folder replaces a shipped one of the same name.
    """
    folders = (SHIPPED_SEARCHES, Path.cwd() / "search_spaces")
    found = {path.stem: path for folder in folders for path in folder.glob("*.yaml")}
    return dict(sorted(found.items()))


def find_search(name: str) -> Path:
    """Resolve a search's name or path.

    Args:
        name: A name among :func:`available_searches`, or the path of a YAML file.

    Raises:
        UserError: If there is no such search; the nearest name is suggested.
    """
    searches = available_searches()
    if name in searches:
        return searches[name]
    path = Path(name)
    if path.suffix in (".yaml", ".yml") or "/" in name:
        if path.is_file():
            return path
        raise UserError(f"--search {brief(name)}: there is no such file")
    raise UserError(f"--search {brief(name)}: no such search{nearest(name, searches)}")


class _UniqueKeyLoader(yaml.SafeLoader):
    """A safe YAML loader that rejects duplicate keys and reads numbers as people do.

    2e-5 is a number; 016 and 1:30, which are 14 and 90 in YAML 1.1, are texts.
    """


class _Dumper(yaml.SafeDumper):
    """A safe YAML dumper for that loader: it puts the text `2e-5` in quotes."""


def _unique_mapping(loader: yaml.SafeLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        # A key may replace one that `<<` merges in, and `<<` itself is no key.
        if key_node.tag == "tag:yaml.org,2002:merge":
            continue
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
        seen.add(key)
    loader.flatten_mapping(node)
    return {
        loader.construct_object(key, deep=True): loader.construct_object(value, deep=True)
        for key, value in node.value
    }


def _text(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> str:
    text = loader.construct_yaml_str(node)
    if re.search("[\0\ud800-\udfff]", text):
        # YAML escapes can spell characters that no file name may contain.
        raise yaml.constructor.ConstructorError(
            problem="a text has a character in it that no file can hold",
            problem_mark=node.start_mark,
        )
    return text


_UniqueKeyLoader.add_constructor("tag:yaml.org,2002:map", _unique_mapping)
_UniqueKeyLoader.add_constructor("tag:yaml.org,2002:str", _text)
_NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
_UniqueKeyLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag not in _NUMBERS]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_UniqueKeyLoader.add_implicit_resolver(
    _NUMBERS[0], re.compile("^-?(?:0|[1-9][0-9]*)$"), list("-0123456789")
)
for _side in (_UniqueKeyLoader, _Dumper):
    _side.add_implicit_resolver(
        _NUMBERS[1],
        re.compile(
            r"^[-+]?(?:(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+"
            r"|\.(?:inf|Inf|INF))$|^\.(?:nan|NaN|NAN)$"
        ),
        list("-+.0123456789"),
    )


def _parsed(text: str) -> Any:
    """Parse YAML and raise YAMLError for every mistake in it."""
    try:
        return yaml.load(text, Loader=_UniqueKeyLoader)
    except yaml.YAMLError:
        raise
    # PyYAML raises other errors for some texts: the day 2026-13-45, `!!int x`, numbers of 5,000
    # digits, a thousand brackets.
    except Exception as error:
        raise yaml.YAMLError(str(error)) from None


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file whose top level is a mapping.

    Raises:
        UserError: If the file is not UTF-8, not YAML, has a duplicate key or is not a mapping.
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
        name: Name or path of the search, see :func:`find_search`.
        overrides: Values by dotted key, such as ``training.max_steps``; they replace the file's.

    Raises:
        UserError: If there is no such search, or a key or value is invalid.
    """
    path = find_search(name)
    tree = read_yaml(path)
    tree.setdefault("name", path.stem)
    if not overrides:
        return _validated(tree, str(path))
    changed = copy.deepcopy(tree)
    for key, value in overrides.items():
        set_key(changed, key, value)
    try:
        return _validated(changed, f"{path} with the changes given")
    except UserError:
        # Where the file is wrong by itself, that is the mistake to tell.
        _validated(tree, str(path))
        raise


def _validated(tree: dict[str, Any], where: str) -> SearchSpec:
    try:
        return SearchSpec.model_validate(tree)
    except ValidationError as error:
        raise UserError(one_line(error, where, SearchSpec)) from None


def dump_spec(spec: SearchSpec) -> str:
    """Return a spec as YAML from which :func:`load_spec` reads an equal spec."""
    return dump_yaml(spec.model_dump(mode="json"))


def dump_yaml(tree: Mapping[str, Any]) -> str:
    """Return a mapping as YAML from which :func:`read_yaml` reads an equal one."""
    return yaml.dump(dict(tree), Dumper=_Dumper, sort_keys=False, allow_unicode=True)
