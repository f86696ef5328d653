"""Print the reference of every key of a search file and of a task file, as Markdown.

``make docs`` writes it to ``docs/spec.md``. The text comes from the models that validate the files,
so the reference always agrees with the code.
"""

from __future__ import annotations

import json
import re
from typing import Any

from pydantic import BaseModel

from xlt_ray.config.space import Categorical, Integer, LogUniform, Uniform
from xlt_ray.config.spec import SearchSpec
from xlt_ray.config.task import TaskSpec

INTRODUCTION = """\
# Reference of the search file and the task file

This page lists every key of a search file and of a task file. `make docs` writes it from the code,
and a test compares the two.

A search file is YAML. `launch.py --search NAME` reads `search_spaces/NAME.yaml` of the working
folder, else the search of that name in the package; `--search PATH` reads any other file. This page
writes keys with dots; in the file they are nested. The command line can set each key too:
`--set training.max_steps=100`. An unknown key, a duplicate key or a value out of range is an error
before anything starts. If `name` is missing, it is the file's name.
"""

SEARCHED = """\
## Search file: searched parameters

`search.parameters` maps dotted keys of `method` and `training` to one of these distributions, for
example

```yaml
search:
  parameters:
    method.push_margin: {distribution: uniform, low: 0.0, high: 0.5}
```
"""

TASK = """\
## Task file

`task` names a packaged task or the path of a task file such as this:

```yaml
name: reviews
source_language: en
target_languages: [de, ja]
text_columns: [text]
labels: [negative, positive]
data:
  files:
    train: train-{language}.csv
    dev: dev-{language}.csv
    test: test-{language}.csv
```
"""

_RANGES = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
_TYPES = {
    "integer": "whole number",
    "string": "text",
    "boolean": "`true` or `false`",
    "null": "`null`",
}


def value_text(schema: dict[str, Any]) -> str:
    """Describe the values that a JSON schema without references allows, in a few words."""
    if "anyOf" in schema:
        return " or ".join(value_text(choice) for choice in schema["anyOf"])
    if "enum" in schema or "const" in schema:
        return ", ".join(f"`{value}`" for value in schema.get("enum", [schema.get("const")]))
    if schema["type"] == "array":
        return f"list of {value_text(schema['items'])}"
    if schema["type"] == "object":
        return "mapping"
    ranges = [f"{sign} {schema[key]}" for key, sign in _RANGES.items() if key in schema]
    return " ".join([_TYPES.get(schema["type"], schema["type"]), " and ".join(ranges)]).strip()


def default_text(name: str, schema: dict[str, Any], required: list[str]) -> str:
    """Return a key's default as YAML writes it."""
    if name in required:
        return "required"
    default = schema["default"]
    return f"`{default if isinstance(default, str) and default else json.dumps(default)}`"


def section_name(schema: dict[str, Any]) -> str | None:
    """Return the name of the model of a key's section; None if the key is no section."""
    for choice in (schema, *schema.get("anyOf", [])):
        if "$ref" in choice:
            return str(choice["$ref"].rpartition("/")[2])
    return None


def anchor(title: str) -> str:
    """Return the link target that GitHub gives a heading."""
    return re.sub(r"[^\w -]", "", title).lower().replace(" ", "-")


def sections(
    schema: dict[str, Any], definitions: dict[str, Any], file: str, prefix: str = ""
) -> list[str]:
    """Return a section with a table of a model's keys, followed by the sections of inner models.

    Args:
        schema: JSON schema of the model.
        definitions: The schemas of inner models by name.
        file: The kind of file, which starts the headings.
        prefix: Start of the model's keys, such as `method.`.
    """
    rows, below = [], []
    required = schema.get("required", [])
    for name, field in schema["properties"].items():
        key, meaning = f"{prefix}{name}", field.get("description")
        inner = section_name(field)
        if inner:
            definition = definitions[inner]
            # pydantic omits a description that equals the model's.
            meaning = meaning or definition["description"]
            values = f"[section](#{anchor(f'{file}: {key}')})"
            default = "required" if name in required else "its defaults"
            if field.get("default", {}) is None:
                default = "`null`"
            below += sections(definition, definitions, file, f"{key}.")
        else:
            values, default = value_text(field), default_text(name, field, required)
        rows.append(f"| `{key}` | {values} | {default} | {in_one_line(meaning)} |")
    title = f"{file}: `{prefix[:-1]}`" if prefix else f"{file}: top level"
    table = "\n".join(["| key | values | default | meaning |", "|---|---|---|---|", *rows])
    return [f"## {title}\n\n{in_one_line(schema['description'])}\n\n{table}\n", *below]


def in_one_line(text: str) -> str:
    """Return a text as one line of a Markdown table."""
    return " ".join(text.split()).replace("|", "\\|")


def model_sections(model: type[BaseModel], file: str) -> list[str]:
    """Return the sections of a model and of its inner models."""
    schema = model.model_json_schema()
    return sections(schema, schema["$defs"], file)


def distribution_table() -> str:
    """Return a table of the distributions and their keys."""
    rows = []
    for model in (Uniform, LogUniform, Integer, Categorical):
        schema = model.model_json_schema()
        fields = schema["properties"]
        name = fields.pop("distribution")["const"]
        keys = ", ".join(f"`{key}` ({value_text(field)})" for key, field in fields.items())
        rows.append(f"| `{name}` | {keys} | {schema['description']} |")
    return "\n".join(["| distribution | keys | meaning |", "|---|---|---|", *rows]) + "\n"


def reference() -> str:
    """Return the whole page."""
    search = model_sections(SearchSpec, "Search file")
    task = model_sections(TaskSpec, "Task file")
    return "\n".join([INTRODUCTION, *search, SEARCHED, distribution_table(), TASK, *task])


if __name__ == "__main__":
    print(reference(), end="")
