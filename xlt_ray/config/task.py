"""The task spec: text columns, classes, languages and data of a classification task."""

from __future__ import annotations

from collections.abc import Sequence
from os.path import expanduser
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from xlt_ray.config.base import Frozen, LanguageCode, QuotedText
from xlt_ray.config.explain import one_line
from xlt_ray.config.loading import read_yaml
from xlt_ray.config.spec import SearchSpec
from xlt_ray.errors import UserError, nearest, unreadable
from xlt_ray.names import BOTH, VIRTUAL, ZERO_SHOT_MEAN

TASK_FOLDER = Path(__file__).resolve().parent.parent / "tasks"
LANGUAGE = "{language}"
"""Placeholder for the language's code in the paths and names of a task's data."""

Split = Literal["train", "dev", "test"]
SPLITS: tuple[Split, ...] = ("train", "dev", "test")
Format = Literal["tsv", "csv", "parquet", "jsonl"]


def _as_text(value: Any) -> Any:
    """Return an integer as text: YAML reads the raw label 0 as a number."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


class HubSplits(Frozen):
    """Names of the three splits in the hub's data set."""

    train: str = "train"
    """Name of the training split; only the source language's is read."""

    dev: str = "validation"
    """Name of the dev split."""

    test: str = "test"
    """Name of the test split."""


class HubSource(Frozen):
    """A data set on the Hugging Face hub whose card names the files of each configuration."""

    path: str
    """The data set's name, such as `facebook/xnli`."""

    config: str = LANGUAGE
    """Name of a language's configuration; `{language}` stands for its code."""

    languages: dict[LanguageCode, str] = Field(default={})
    """The data set's own codes of some languages, such as `de: deu_Latn`; they replace `{language}`
    in `config`. Any other code stands for itself."""

    splits: HubSplits = HubSplits()
    """Names of the splits."""

    revision: str | None = None
    """Branch, tag or commit of the data set; null: its main branch."""

    def config_of(self, language: str) -> str:
        """Return the name of a language's configuration."""
        return self.config.replace(LANGUAGE, self.languages.get(language, language))


class FileSource(Frozen):
    """One file per split and language."""

    train: str
    """Path of the training file; `{language}` stands for the language's code. Relative paths
    start at the task file's folder, `~` is the home folder."""

    dev: str
    """Path of the dev files, as `train`."""

    test: str
    """Path of the test files, as `train`."""

    format: Format | None = None
    """`tsv` (no quoting: a `"` is a character), `csv`, `parquet` or `jsonl`; null: from the
    file name's ending, `.json` and `.ndjson` being JSON lines. A name that ends in `.gz` is a gzip
    file."""

    header: bool = True
    """Whether the first line of a TSV or CSV file names the columns."""

    columns: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    """Names of the columns of a TSV or CSV file without a header, in order; null: it has one."""

    @model_validator(mode="after")
    def _named_columns(self) -> FileSource:
        if self.header == (self.columns is not None):
            raise ValueError("give 'columns' together with 'header: false', and only then")
        return self


class DataSource(Frozen):
    """The data's source: exactly one of the two."""

    hub: HubSource | None = None
    """A data set on the Hugging Face hub."""

    files: FileSource | None = None
    """Files on disk."""

    @model_validator(mode="after")
    def _exactly_one(self) -> DataSource:
        if (self.hub is None) == (self.files is None):
            raise ValueError("give exactly one of 'hub' and 'files'")
        return self


class TaskSpec(Frozen):
    """A classification task over single texts or text pairs in several languages."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=100)
    """Name of the task: letters, digits, `_`, `.`, `-`; at most 100."""

    description: str = ""
    """What the task decides, in one line."""

    source_language: LanguageCode = "en"
    """Code of the language to train on: letters, digits, `_`, `-`."""

    target_languages: tuple[LanguageCode, ...]
    """Codes of the languages to evaluate zero-shot."""

    text_columns: tuple[QuotedText, ...] = Field(min_length=1, max_length=2)
    """The column of the text, or the two columns of a text pair in order."""

    label_column: QuotedText = "label"
    """The column of the label."""

    labels: tuple[QuotedText, ...] = Field(min_length=2)
    """Names of the classes; the position of a class is its id. Data may have names or ids. Where
    the data names its own numbers (`ClassLabel`), those names decide instead of the ids."""

    label_values: dict[Annotated[QuotedText, BeforeValidator(_as_text)], QuotedText] = Field(
        default={}
    )
    """Further values of the label column and their classes, such as
    `contradictory: contradiction`; they take precedence over names and ids."""

    data: DataSource
    """The source of the data."""

    @property
    def languages(self) -> tuple[str, ...]:
        """The source language, then the targets."""
        return (self.source_language, *self.target_languages)

    @property
    def is_pair(self) -> bool:
        """Whether an example is a pair of texts."""
        return len(self.text_columns) == 2

    @model_validator(mode="after")
    def _consistent(self) -> TaskSpec:
        for key, names in {
            "source_language and target_languages": self.languages,
            "text_columns and label_column": (*self.text_columns, self.label_column),
            "labels": self.labels,
        }.items():
            if twice := sorted({name for name in names if names.count(name) > 1}):
                raise ValueError(f"{key}: '{twice[0]}' is given twice")
        self._check_targets()
        if self.data.hub is not None:
            self._check_configs(self.data.hub)
        for raw, name in self.label_values.items():
            if name not in self.labels:
                raise ValueError(
                    f"label_values.{raw}: no class '{name}'{nearest(name, self.labels)}"
                )
        for key, pattern in self._patterns().items():
            if LANGUAGE not in pattern:
                raise ValueError(f"data.{key}: '{pattern}' needs {LANGUAGE} in it")
        files = self.data.files
        if files is not None and files.columns is not None:
            for column in (*self.text_columns, self.label_column):
                if column not in files.columns:
                    raise ValueError(
                        f"data.files.columns: no column '{column}'{nearest(column, files.columns)}"
                    )
        return self

    def _check_targets(self) -> None:
        """Check that there are targets, and that none has the name of another measure."""
        if not self.target_languages:
            raise ValueError(
                "target_languages: there is none; give at least one language to evaluate zero-shot"
            )
        source = self.source_language
        taken = {source + VIRTUAL, source + BOTH, ZERO_SHOT_MEAN, "mean"}
        for language in self.languages:
            if language in taken:
                raise ValueError(
                    f"source_language and target_languages: '{language}' is the name of a measure, "
                    "not of a language with data; remove it"
                )

    def _check_configs(self, hub: HubSource) -> None:
        """Check that no two languages are the same data."""
        if LANGUAGE not in hub.config:
            return
        owners: dict[str, str] = {}
        for language in self.languages:
            other = owners.setdefault(hub.config_of(language), language)
            if other != language:
                raise ValueError(
                    f"source_language and target_languages: '{other}' and '{language}' are both "
                    f"the configuration '{hub.config_of(language)}'"
                )

    def _patterns(self) -> dict[str, str]:
        """Return the keys and values below ``data`` that must differ between languages."""
        if self.data.hub is not None:
            return {"hub.config": self.data.hub.config}
        assert self.data.files is not None
        return {"files.dev": self.data.files.dev, "files.test": self.data.files.test}


def available_tasks() -> dict[str, Path]:
    """Return the names and files of the packaged tasks, sorted by name."""
    return {path.stem: path for path in sorted(TASK_FOLDER.glob("*.yaml"))}


def load_task(name_or_path: str | Path) -> TaskSpec:
    """Read and validate a task.

    Args:
        name_or_path: Name of a packaged task, or path of a task's YAML file.

    Returns:
        The task; the paths of its files are absolute, relative ones from the YAML's folder.

    Raises:
        UserError: If there is no such task, or a key or value in it is invalid.
    """
    tasks, name = available_tasks(), str(name_or_path)
    path = tasks.get(name, Path(expanduser(name)))
    if not path.is_file():
        if path.suffix in (".yaml", ".yml") or path.name != name:
            raise UserError(f"task {name}: there is no such file")
        raise UserError(f"task '{name}': no such task{nearest(name, tasks)}")
    try:
        task = TaskSpec.model_validate(read_yaml(path))
    except ValidationError as error:
        raise UserError(one_line(error, str(path), TaskSpec)) from None
    files = task.data.files
    if files is None:
        return task
    folder = path.resolve().parent
    absolute: dict[str, str] = {
        split: str(folder / expanduser(getattr(files, split))) for split in SPLITS
    }
    data = DataSource(files=files.model_copy(update=absolute))
    return task.model_copy(update={"data": data})


def with_targets(task: TaskSpec, languages: Sequence[str], where: str) -> TaskSpec:
    """Replace the task's target languages.

    Args:
        task: Any task.
        languages: Codes of the target languages. The task need not list them.
        where: The flag or key that names them, for error messages.

    Returns:
        The same task with other targets.

    Raises:
        UserError: If a code is malformed, the source language's, or given twice.
    """
    try:
        return TaskSpec.model_validate(task.model_dump() | {"target_languages": list(languages)})
    except ValidationError as error:
        raise UserError(one_line(error, where, TaskSpec)) from None


def task_of(spec: SearchSpec) -> TaskSpec:
    """Load the task of a search, with the targets and the data folder that the search names.

    Raises:
        UserError: As :func:`load_task`, :func:`with_targets` and :func:`with_data_dir`.
    """
    task = load_task(spec.task)
    if spec.target_languages is not None:
        task = with_targets(task, spec.target_languages, "target_languages")
    return task if spec.data_dir is None else with_data_dir(task, Path(spec.data_dir))


def with_data_dir(task: TaskSpec, data_dir: Path) -> TaskSpec:
    """Replace the task's data source by a folder in XTREME's TSV layout.

    The folder holds ``train-en.tsv``, ``dev-XX.tsv`` and ``test-XX.tsv`` (XX a language's code):
    no header, no quoting, the task's text columns and then the label.

    Args:
        task: Any task.
        data_dir: The folder.

    Returns:
        The same task with another data source.

    Raises:
        UserError: If there is no such folder, or one on the way may not be entered.
    """
    data_dir = Path(expanduser(data_dir))
    try:
        if not data_dir.is_dir():
            raise UserError(f"--data-dir {data_dir}: there is no such folder")
    except OSError as error:
        raise unreadable(f"--data-dir {data_dir}", error) from None
    folder = data_dir.resolve()
    files = FileSource(
        **{split: f"{folder}/{split}-{LANGUAGE}.tsv" for split in SPLITS},
        format="tsv",
        header=False,
        columns=(*task.text_columns, task.label_column),
    )
    return task.model_copy(update={"data": DataSource(files=files)})
