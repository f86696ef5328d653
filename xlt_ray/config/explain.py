"""Describe pydantic's validation errors in one line; the loaders of searches and tasks use it."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Iterable, Iterator
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

from xlt_ray.errors import nearest

if TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError
    from pydantic_core import ErrorDetails


TRUTH_VALUE = "truth_value"
"""Type of the error that a number's key, the context's ``field``, has a truth value."""


def one_line(error: ValidationError, where: str, model: type[BaseModel]) -> str:
    """Describe a validation error in one line.

    Args:
        error: The error that pydantic raised.
        where: The file, flag or section that was read; the line starts with it.
        model: The validated model, which has the valid names and ranges.

    Returns:
        ``where: key: what is wrong and what is valid`` for the first mistake, then the number of
        other invalid keys. An unknown key comes first, because it often causes the others.
    """
    by_key: dict[str, list[ErrorDetails]] = {}
    for mistake in error.errors(include_url=False):
        by_key.setdefault(_Place(model, mistake["loc"]).key, []).append(mistake)
    groups = list(by_key.values())
    group = next((g for g in groups if g[0]["type"] == "extra_forbidden"), groups[0])
    # A key that takes a number or a word has one mistake for each; for a word, describe the latter.
    literal = [m for m in group if m["type"] == "literal_error" and isinstance(m["input"], str)]
    first = _describe((literal or group)[0], _Place(model, group[0]["loc"]))
    others = len(groups) - 1
    more = f" ({others} other key{'s are' if others > 1 else ' is'} wrong too)" if others else ""
    return f"{where}: {first}{more}"


_BOUNDS = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}


def _describe(mistake: ErrorDetails, place: _Place) -> str:
    kind, given, context = mistake["type"], mistake["input"], mistake.get("ctx", {})
    if kind == "extra_forbidden":
        section = f" in {place.section}" if place.section else ""
        return f"unknown key {_short(place.name)}{section}{nearest(place.name, place.valid_names)}"
    if kind == "missing":
        return f"the key '{place.key}' is missing"
    if kind == "union_tag_not_found":
        return f"the key '{place.key}.{_quoted(context['discriminator'])[0]}' is missing"
    if kind == "value_error":
        return f"{place.key}: {context['error']}" if place.key else str(context["error"])
    if kind == TRUTH_VALUE:
        key = f"{place.key}.{context['field']}" if place.key else context["field"]
        words = "true, yes and on" if context["given"] else "false, no and off"
        return f"{key}: expected a number, not a truth value (which YAML reads in {words})"
    if kind in ("literal_error", "union_tag_invalid"):
        expected = context.get("expected", context.get("expected_tags"))
        given = context.get("tag", given)
        return f"{place.key}: {_short(given)} is not valid{nearest(str(given), _quoted(expected))}"
    if kind in ("too_short", "too_long"):
        count = context["min_length"] if kind == "too_short" else context["max_length"]
        bound = f"at {'least' if kind == 'too_short' else 'most'} {count}"
        items = "item" if count == 1 else "items"
        return f"{place.key}: give {bound} {items}, not {context['actual_length']}"
    if not context.keys().isdisjoint(_BOUNDS):
        limits = place.limits or context
        bounds = [f"{sign} {limits[name]}" for name, sign in _BOUNDS.items() if name in limits]
        return f"{place.key}: {_short(given)} is out of range, it must be {' and '.join(bounds)}"
    # pydantic says tuple and dictionary, YAML has lists and mappings.
    message = mistake["msg"].removeprefix("Input ").replace("a valid tuple", "a list")
    message = re.sub("a valid dictionary( or .*)?", "a mapping of keys to values", message)
    shown = "" if isinstance(given, dict | list | tuple) else f", not {_short(given)}"
    return f"{place.key}: {message[0].lower()}{message[1:]}{shown}"


_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxlong = _SHORT.maxother = 80


def _short(given: Any) -> str:
    """Shorten an invalid value for display."""
    return _SHORT.repr(given)


def _quoted(text: Any) -> list[str]:
    return re.findall(r"'([^']*)'", str(text))


class _Place:
    """The place of an error in a model.

    pydantic's errors have no key as users write it, no valid names and not both bounds of a range,
    so the location is followed through the model's fields.

    Attributes:
        key: The whole location, such as ``search.parameters[training.seed].low``.
        section: The location without the last name.
        name: The last name.
        valid_names: The fields of the model that should have the last name.
        limits: Bounds of the last field, such as ``{"gt": 0, "le": 1}``.
    """

    def __init__(self, model: type[BaseModel], location: tuple[int | str, ...]) -> None:
        self.key = self.section = self.name = ""
        self.valid_names: list[str] = []
        self.limits: dict[str, Any] = {}
        held: list[Any] = [model]
        for part in location:
            models = [one for one in held if hasattr(one, "model_fields")]
            fields = [one.model_fields[part] for one in models if part in one.model_fields]
            items = [get_args(one)[-1] for one in held if get_origin(one) in (dict, list)]
            items += [get_args(one)[0] for one in held if get_origin(one) in (tuple, set)]
            if fields:
                self._enter(str(part), models)
                held = [one for field in fields for one in members(field.annotation)]
                self._bound([limit for field in fields for limit in field.metadata])
                for field in fields:
                    self._bound(_annotations(field.annotation))
            elif items:
                self.key += f"[{part}]"
                held = [one for item in items for one in members(item)]
            elif branch := [one for one in models if _is_branch(one, part)]:
                held = branch
            elif models:
                self._enter(str(part), models)
                held = []

    def _enter(self, name: str, models: list[type[BaseModel]]) -> None:
        self.section, self.name = self.key, name
        self.key += f".{name}" if self.key else name
        self.valid_names = list(dict.fromkeys(n for model in models for n in model.model_fields))
        self.limits = {}

    def _bound(self, annotations: Iterable[Any]) -> None:
        for annotation in annotations:
            for name in _BOUNDS:
                if getattr(annotation, name, None) is not None:
                    self.limits[name] = getattr(annotation, name)


def members(annotation: Any) -> Iterator[Any]:
    """Yield the types that an annotation allows: the members of unions, without metadata."""
    if get_origin(annotation) is Annotated:
        yield from members(get_args(annotation)[0])
    elif get_origin(annotation) in (Union, UnionType):
        for member in get_args(annotation):
            yield from members(member)
    else:
        yield annotation


def _annotations(annotation: Any) -> Iterator[Any]:
    """Yield the metadata of an annotation and of the members of unions."""
    if get_origin(annotation) is Annotated:
        for extra in get_args(annotation)[1:]:
            yield from getattr(extra, "metadata", [extra])
    elif get_origin(annotation) in (Union, UnionType):
        for member in get_args(annotation):
            yield from _annotations(member)


def _is_branch(model: type[BaseModel], part: int | str) -> bool:
    """Tell whether a part of a location selects this model among the members of a union."""
    tags = [
        tag
        for field in model.model_fields.values()
        if get_origin(field.annotation) is Literal
        for tag in get_args(field.annotation)
    ]
    return part == model.__name__ or part in tags
