"""The errors a person is meant to read."""

from __future__ import annotations

import difflib
import errno
import re
import reprlib
import sys
from collections.abc import Callable, Iterable, Iterator
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

if TYPE_CHECKING:
    import typer
    from pydantic import BaseModel, ValidationError
    from pydantic_core import ErrorDetails


class UserError(Exception):
    """A mistake in a file, a flag or a data set, told in one line.

    The message says what is wrong, where, and what would be right. The command line prints it
    without a traceback and exits with code 2.
    """


def run_command_line(command: typer.Typer | Callable[..., None]) -> None:
    """Run a command line; a user's mistake is one line on standard error and exit code 2.

    Args:
        command: A Typer application, or a function whose arguments Typer reads.
    """
    import typer

    if isinstance(command, typer.Typer):
        app = command
    else:
        app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
        app.command()(command)
    try:
        # By itself Typer would draw a box of several lines around a mistyped flag.
        sys.exit(app(standalone_mode=False))
    except (typer.Abort, KeyboardInterrupt):
        print("Stopped.", file=sys.stderr)
        sys.exit(130)
    except UserError as error:
        told = str(error)
    except typer.TyperException as error:
        message = re.sub(r"\S{80,}", lambda word: brief(word[0]), error.format_message())
        told = f"{message.rstrip('.')}; --help shows the flags"
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        told = f"{brief(error.filename)}: no file can have a name as long as this"
    print(f"error: {_safe_line(told)}", file=sys.stderr)
    sys.exit(2)


def _safe_line(text: str) -> str:
    """A message in one line, without the login of a URL that it quotes."""
    text = re.sub(r"(?<=://)[^\s/]*@", "***@", text)
    control = r"[\x00-\x1f\x7f-\x9f\u2028\u2029]"
    return re.sub(control, lambda match: repr(match[0])[1:-1], text)


def brief(text: str) -> str:
    """What was given, to be told; of a text as long as a page only its ends."""
    return text if len(text) <= 80 else f"{text[:40]}…{text[-39:]}"


def nearest(name: str, valid: Iterable[str]) -> str:
    """Suggest a correction for a mistyped name.

    Args:
        name: What was given.
        valid: What would have been accepted.

    Returns:
        `` (did you mean 'x'?)`` for the closest valid name, else the list of valid names in
        the same form; ready to be appended to a message.
    """
    options = list(valid)
    close = difflib.get_close_matches(name, options, n=1, cutoff=0.6)
    if close:
        return f" (did you mean '{close[0]}'?)"
    return f" (valid: {', '.join(options)})" if options else ""


def one_line(error: ValidationError, where: str, model: type[BaseModel]) -> str:
    """Tell a validation error in one line.

    Args:
        error: What pydantic raised.
        where: The file, flag or section that was read; put in front.
        model: The model that was validated; valid names and ranges are looked up in it.

    Returns:
        ``where: key: what is wrong and what would be right`` for the first mistake (an unknown
        key before any other, for it often explains them), then how many other keys are wrong.
    """
    by_key: dict[str, list[ErrorDetails]] = {}
    for mistake in error.errors(include_url=False):
        by_key.setdefault(_Place(model, mistake["loc"]).key, []).append(mistake)
    groups = list(by_key.values())
    group = next((g for g in groups if g[0]["type"] == "extra_forbidden"), groups[0])
    # A key that takes a number or a word has a mistake for each; a word was meant as a word.
    literal = [m for m in group if m["type"] == "literal_error" and isinstance(m["input"], str)]
    told = _told((literal or group)[0], _Place(model, group[0]["loc"]))
    others = len(groups) - 1
    more = f" ({others} other key{'s are' if others > 1 else ' is'} wrong too)" if others else ""
    return f"{where}: {told}{more}"


_BOUNDS = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}


def _told(mistake: ErrorDetails, place: _Place) -> str:
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
    if kind in ("literal_error", "union_tag_invalid"):
        expected = context.get("expected", context.get("expected_tags"))
        given = context.get("tag", given)
        return f"{place.key}: {_short(given)} is not valid{nearest(str(given), _quoted(expected))}"
    if not context.keys().isdisjoint(_BOUNDS):
        limits = place.limits or context
        bounds = [f"{sign} {limits[name]}" for name, sign in _BOUNDS.items() if name in limits]
        return f"{place.key}: {_short(given)} is out of range, it must be {' and '.join(bounds)}"
    # Tuples are lists to whoever writes YAML.
    message = mistake["msg"].removeprefix("Input ").replace("a valid tuple", "a list")
    message = re.sub("a valid dictionary( or .*)?", "a mapping of keys to values", message)
    shown = "" if isinstance(given, dict | list | tuple) else f", not {_short(given)}"
    return f"{place.key}: {message[0].lower()}{message[1:]}{shown}"


_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxlong = _SHORT.maxother = 80


def _short(given: Any) -> str:
    """A wrong value as it is told; of one as long as a page only its ends."""
    return _SHORT.repr(given)


def _quoted(text: Any) -> list[str]:
    return re.findall(r"'([^']*)'", str(text))


class _Place:
    """Where in a model an error is.

    Attributes:
        key: The whole location, such as ``search.parameters[training.seed].low``.
        section: All of it but the last name.
        name: The last name.
        valid_names: The fields of the model that the last name was looked for in.
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
                held = [one for field in fields for one in _members(field.annotation)]
                self._bound([limit for field in fields for limit in field.metadata])
                for field in fields:
                    self._bound(_annotations(field.annotation))
            elif items:
                self.key += f"[{part}]"
                held = [one for item in items for one in _members(item)]
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


def _members(annotation: Any) -> Iterator[Any]:
    """What may stand where the annotation stands: the members of unions, without annotations."""
    if get_origin(annotation) is Annotated:
        yield from _members(get_args(annotation)[0])
    elif get_origin(annotation) in (Union, UnionType):
        for member in get_args(annotation):
            yield from _members(member)
    else:
        yield annotation


def _annotations(annotation: Any) -> Iterator[Any]:
    """What the members of a union are annotated with."""
    if get_origin(annotation) is Annotated:
        for extra in get_args(annotation)[1:]:
            yield from getattr(extra, "metadata", [extra])
    elif get_origin(annotation) in (Union, UnionType):
        for member in get_args(annotation):
            yield from _annotations(member)


def _is_branch(model: type[BaseModel], part: int | str) -> bool:
    """Whether a part of a location names this model among the members of a union."""
    tags = [
        tag
        for field in model.model_fields.values()
        if get_origin(field.annotation) is Literal
        for tag in get_args(field.annotation)
    ]
    return part == model.__name__ or part in tags
