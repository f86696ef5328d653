"""The search specification: every field a search file may set, in one place.

A search file is YAML. :func:`load_spec` reads it, applies ``--set key=value`` overrides and
validates it into the frozen models below; nothing downstream sees an unchecked value.
"""

from __future__ import annotations

import math
import re
from collections.abc import Hashable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, get_args

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from xlt_ray.errors import UserError, brief, nearest, one_line

SEARCH_FOLDER = Path(__file__).resolve().parents[2] / "search_spaces"

OBJECTIVE = "objective"
"""The metric that searches maximise: a trial's best value so far of `search.objective`."""

VIRTUAL = "_virtual"
"""What follows the source language's code for synonym views of its dev set."""


class Frozen(BaseModel):
    """Base of all spec models: immutable, no unknown keys, docstrings become descriptions."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False
    )


def _without_login(place: str) -> str:
    # A spec is recorded with every run, in parameters and artifacts.
    _, separator, rest = place.partition("://")
    host = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[^\[\]@:?#]*)(:[0-9]*)?", rest.partition("/")[0])
    if separator and (host is None or "?" in rest):
        raise ValueError(
            "a URL is recorded with every run and must have no user, password or query; "
            "download the file and give its path"
        )
    return place


Place = Annotated[str, AfterValidator(_without_login)]
"""A name, a path or a URL."""

ViewKind = Literal["synonym", "random", "adversarial"]


class ViewSpec(Frozen):
    """The virtual view x' of a source-language text x."""

    kind: ViewKind = "synonym"
    """How a view is made: `synonym` swaps words for their synonyms; `random` adds uniform noise to
    word embeddings (randomised smoothing); `adversarial` moves them where the loss rises."""

    radius: Annotated[float, Field(ge=0, le=1)] | Literal["paper"] = "paper"
    """Robustness radius of `synonym` views: probability in [0, 1] that a word with synonyms is
    swapped. `paper`: n / (n + 1) for a word of n synonyms."""

    noise_radius: float = Field(default=0.1, ge=0)
    """Robustness radius of `random` and `adversarial` views: radius of the L2 ball around each
    word embedding, in units of the mean norm of the training words' pretrained embeddings."""

    ascent_steps: int = Field(default=2, ge=1)
    """Steps of projected gradient ascent of `adversarial` views (>= 1)."""

    synonyms: Place = "wordnet"
    """Where synonyms come from: `wordnet`, `demo`, a path or an http(s) URL of a JSON file
    {"movie": ["film", ...]} (the counter-fitted format). A URL ends in `#sha256=` and the digest
    of the file; without one the search is refused and told the digest of what is there."""


Term = Literal["robust", "push", "pull"]
MethodName = Literal[
    "ear", "plain", "rs-da", "rs-rp", "adv", "ear-no-push", "ear-no-pull", "ear-no-robust"
]


class Preset(NamedTuple):
    """What a method's name decides; the rest are weights and radii."""

    terms: tuple[Term, ...]
    """Terms beside the classification loss."""
    view: ViewKind | None = None
    """Kind of its views; None: the spec's `method.view.kind`."""


PRESETS: dict[MethodName, Preset] = {
    "plain": Preset(()),
    "rs-da": Preset(("robust",), "synonym"),
    "rs-rp": Preset(("robust",), "random"),
    "adv": Preset(("robust",), "adversarial"),
    "ear": Preset(("robust", "push", "pull")),
    "ear-no-push": Preset(("robust", "pull")),
    "ear-no-pull": Preset(("robust", "push")),
    "ear-no-robust": Preset(("push", "pull")),
}
"""The methods: plain fine-tuning, those of Huang et al. (2021) and of Ding et al. (2022), and the
latter's ablations."""


class MethodSpec(Frozen):
    """What is optimised: CE + robust_weight * robust + push_weight * push + pull_weight * pull."""

    name: MethodName = "ear"
    """Which of the terms there are. `plain`: none; `rs-da`, `rs-rp`, `adv`: `robust` over synonym,
    random or adversarial views; `ear`: all over the views of `view.kind`; `ear-no-push`,
    `ear-no-pull`, `ear-no-robust`: all but one."""

    robust_weight: float = Field(default=1.0, ge=0)
    """Weight of the view's classification loss (>= 0)."""

    push_weight: float = Field(default=0.1, ge=0)
    """Weight of Embedding-Push (>= 0)."""

    push_margin: float | None = Field(default=None, ge=0)
    """Distance beyond which a view is pushed no further (>= 0, in units of `push_distance`);
    null: no bound, as in the paper."""

    push_distance: Literal["absolute", "relative"] = "absolute"
    """`absolute`: mean squared difference of the mean embeddings over the hidden size, as in the
    paper; `relative`: the same divided by the mean square of the original's mean embedding, so
    that one margin means the same for every model."""

    pull_weight: float = Field(default=1.0, ge=0)
    """Weight of Attention-Pull (>= 0)."""

    pull_layer: int = Field(default=5, ge=0)
    """Layer whose attention maps are kept alike, counted from 0."""

    pull_alignment: Literal["token", "word"] = "token"
    """What of the two maps is compared: `token`: equal positions, as in the paper; `word`: maps
    pooled to words, which correspond even where a synonym has another number of tokens."""

    reduction: Literal["tokens", "padded"] = "tokens"
    """What push and pull average over: `tokens`: the real tokens; `padded`: all
    `training.max_length` positions, padding included, as the authors do (slower)."""

    view: ViewSpec = ViewSpec()
    """The virtual view."""

    @property
    def terms(self) -> tuple[Term, ...]:
        """The terms beside the classification loss."""
        return PRESETS[self.name].terms

    @property
    def view_kind(self) -> ViewKind | None:
        """The kind of the views; None where no term uses any."""
        return (PRESETS[self.name].view or self.view.kind) if self.terms else None

    def uses(self, key: str) -> bool:
        """Whether a value of this section, such as `view.radius`, changes anything."""
        users = {
            "view.radius": self.view_kind == "synonym",
            "view.noise_radius": self.view_kind in ("random", "adversarial"),
            "view.ascent_steps": self.view_kind == "adversarial",
            "view.kind": bool(self.terms) and PRESETS[self.name].view is None,
            "reduction": "push" in self.terms or "pull" in self.terms,
        }
        term = key.partition("_")[0]
        return users.get(key, term in self.terms if term in get_args(Term) else True)

    @model_validator(mode="after")
    def _positions_exist(self) -> MethodSpec:
        if self.reduction == "padded" and self.pull_alignment == "word":
            raise ValueError(
                "reduction: padded averages over token positions; use it with pull_alignment: token"
            )
        return self


PAPER_METHOD: dict[str, Any] = {
    "name": "ear",
    "robust_weight": 1.0,
    "push_weight": 0.1,
    "push_margin": None,
    "push_distance": "absolute",
    "pull_weight": 1.0,
    "pull_alignment": "token",
    "view.kind": "synonym",
    "view.radius": "paper",
}
"""The values of Ding et al. (2022) for what a search may vary; the first trial of every search."""


class TrainingSpec(Frozen):
    """The fine-tuning recipe."""

    epochs: int = Field(default=1, ge=1)
    """Passes over the training pairs (>= 1)."""

    max_steps: int | None = Field(default=None, ge=1)
    """Upper bound on optimiser steps; the learning rate decays over these. null: none."""

    learning_rate: float = Field(default=2e-5, gt=0)
    """AdamW's peak learning rate; it decays linearly to 0 without warm-up."""

    weight_decay: float = Field(default=0.0, ge=0)
    """AdamW's decoupled weight decay."""

    adam_epsilon: float = Field(default=1e-8, gt=0)
    """AdamW's epsilon."""

    gradient_clip: float = Field(default=1.0, gt=0)
    """Largest L2 norm of the gradient over all parameters."""

    batch_size: int = Field(default=32, ge=1)
    """Pairs of one optimiser step, over all workers and micro-batches (the effective batch)."""

    micro_batch_tokens: int | None = Field(default=None, ge=1)
    """Tokens of one forward pass of one worker, views included; what is more is accumulated. null:
    1,024 on a CPU, 16,384 on a GPU. Changes no result, only memory and speed."""

    max_length: int = Field(default=128, ge=8)
    """Longest input in tokens, special tokens included; longer pairs are truncated."""

    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """`auto`: bf16 autocast where the hardware computes in it, else fp32."""

    evaluations_per_epoch: int = Field(default=4, ge=1)
    """Dev evaluations (and checkpoints) per epoch, evenly spaced; the last one is at its end."""

    seed: int = Field(default=7, ge=0, lt=2**32)
    """Seed of the head's initialisation, data order, views and dropout."""

    trim_vocabulary: bool = True
    """Train only the embedding rows that the task's text and synonyms can reach. Changes no
    result while `weight_decay` is 0 (and is switched off where it is not)."""


class DataSpec(Frozen):
    """How much of the task's data is used; each limit takes the first rows of a split."""

    train_limit: int | None = Field(default=None, ge=1)
    """Training pairs at most; null: all."""

    dev_limit: int | None = Field(default=None, ge=1)
    """Dev pairs a language at most; null: all."""

    test_limit: int | None = Field(default=None, ge=1)
    """Test pairs a language at most; null: all."""


class Uniform(Frozen):
    """A number drawn uniformly."""

    distribution: Literal["uniform"]
    low: float
    """Lowest value."""
    high: float
    """Highest value."""


class LogUniform(Frozen):
    """A number whose logarithm is drawn uniformly."""

    distribution: Literal["log_uniform"]
    low: float = Field(gt=0)
    """Lowest value (> 0)."""
    high: float = Field(gt=0)
    """Highest value."""


class Integer(Frozen):
    """A whole number drawn uniformly."""

    distribution: Literal["int"]
    low: int
    """Lowest value."""
    high: int
    """Highest value, included."""


class Categorical(Frozen):
    """One of a list of values."""

    distribution: Literal["categorical"]
    choices: tuple[str | int | float | bool | None, ...] = Field(min_length=1)
    """The values."""


Distribution = Annotated[
    Uniform | LogUniform | Integer | Categorical, Field(discriminator="distribution")
]


class SamplerSpec(Frozen):
    """Who proposes configurations."""

    name: Literal["tpe", "random"] = "tpe"
    """Optuna's tree-structured Parzen estimator, or random search."""

    startup_trials: int = Field(default=5, ge=1)
    """Random configurations before TPE models the results."""


class EarlyStoppingSpec(Frozen):
    """Asynchronous successive halving (ASHA) over a trial's dev evaluations."""

    enabled: bool = True
    """Whether weak trials are stopped early. The baseline and the paper's setting never are."""

    grace_evaluations: int = Field(default=1, ge=1)
    """Evaluations every trial gets before it may be stopped (the first rung)."""

    reduction_factor: int = Field(default=3, ge=2)
    """At each rung the best 1 / reduction_factor of the trials go on."""


class SearchSettings(Frozen):
    """What is searched, how long and by which measure."""

    parameters: dict[str, Distribution]
    """Searched keys of the spec (dotted, such as `method.push_margin`) and their distributions;
    empty: the spec's own values are run as they are."""

    num_trials: int = Field(default=20, ge=1, le=1_000_000)
    """Trials of the search: the paper's setting, then the sampler's proposals."""

    baselines: tuple[MethodName, ...] = ("plain",)
    """Methods run beside them for comparison, one more trial each, with the paper's values where
    they have any; `ear` is among the trials anyway. `--baselines`: all of them."""

    comparison_seeds: int = Field(default=0, ge=0, le=10_000)
    """Seeds with which the best configuration and each baseline are run anew after the search and
    compared (`--seeds`); 0: no comparison. Above 0 only `plain` of the baselines is also run
    within the search."""

    objective: str = "dev/accuracy/en"
    """What selects checkpoints and trials, on dev data only: `dev/accuracy/<source language>` or
    `dev/accuracy/<source language>_virtual`, over synonym views of its dev set (both strictly
    zero-shot), or `dev/accuracy/zero_shot_mean` (uses target-language dev labels)."""

    sampler: SamplerSpec = SamplerSpec()
    """Who proposes configurations."""

    early_stopping: EarlyStoppingSpec = EarlyStoppingSpec()
    """When weak trials are stopped."""

    max_concurrent: int | None = Field(default=None, ge=1)
    """Trials side by side at most; null: as many as the cluster holds."""

    max_failures: int = Field(default=1, ge=0)
    """How often a trial is restarted from its last checkpoint before it counts as failed."""

    keep_weights: bool = False
    """Whether the weights of every finished trial are kept in the storage; false: those of the best
    trial and of plain fine-tuning only, once the search has ended."""

    seed: int = Field(default=0, ge=0, lt=2**32)
    """Seed of the sampler."""


class AssessmentSpec(Frozen):
    """What is measured of the encoder as pretrained, of plain fine-tuning and of the best trial,
    after the search."""

    alignment_rows: int = Field(default=500, ge=0)
    """Test rows of each language at most that alignment is measured on; 0: it is not. Needs a
    parallel test set."""

    generalized: bool = False
    """Whether accuracy is measured for every language of the premise with every language of the
    hypothesis (`--generalized`). Needs pairs of texts and a parallel test set."""

    generalized_rows: int | None = Field(default=None, ge=1)
    """Test rows at most for each pair of languages; null: all."""


class ResourceSpec(Frozen):
    """What one trial occupies."""

    workers_per_trial: int = Field(default=1, ge=1)
    """Data-parallel Ray Train workers a trial."""

    max_workers_per_trial: int | None = Field(default=None, ge=1)
    """A trial takes up to so many workers where the cluster has room, and goes on with fewer, down
    to `workers_per_trial`, when nodes leave; null: always `workers_per_trial`. The effective batch
    stays, but sums round differently, so that a trial's result depends on how many it had."""

    cpus_per_worker: float = Field(default=1, gt=0)
    """CPU cores a worker; also its number of compute threads, rounded down, at least 1."""

    gpus_per_worker: float = Field(default=0, ge=0)
    """GPUs a worker; fractions below 1 share a GPU, above 1 only whole numbers."""

    @model_validator(mode="after")
    def _range(self) -> ResourceSpec:
        most = self.max_workers_per_trial
        if most is not None and most < self.workers_per_trial:
            raise ValueError(
                f"max_workers_per_trial: {most} is less than workers_per_trial, "
                f"{self.workers_per_trial}"
            )
        return self

    @field_validator("gpus_per_worker")
    @classmethod
    def _whole_above_one(cls, value: float) -> float:
        if value > 1 and value != int(value):
            raise ValueError("above 1 only whole numbers of GPUs can be given to a worker")
        return value


class SearchSpec(Frozen):
    """A whole search."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=100)
    """Name of the search: letters, digits, `_`, `.`, `-`; at most 100."""

    description: str = ""
    """One line on what it is for."""

    task: Place
    """A packaged task (`demo`, `xnli`, `pawsx`) or the path of a task's YAML."""

    data_dir: Place | None = None
    """Folder with the task's data in XTREME's TSV layout, instead of the task's own source."""

    model: Place
    """Hub name, local folder, or `packaged/multilingual-e5-small`."""

    method: MethodSpec = MethodSpec()
    """The method; keys under `search.parameters` override it a trial."""

    training: TrainingSpec = TrainingSpec()
    """The fine-tuning recipe."""

    data: DataSpec = DataSpec()
    """How much data is used."""

    search: SearchSettings
    """What is searched."""

    assessment: AssessmentSpec = AssessmentSpec()
    """What is measured of chosen models after the search."""

    resources: ResourceSpec = ResourceSpec()
    """What one trial occupies."""

    def methods(self) -> list[MethodSpec]:
        """The method with each kind of view that is searched."""
        kinds = self.search.parameters.get("method.view.kind")
        if not isinstance(kinds, Categorical):
            return [self.method]
        view = self.method.view
        return [
            self.method.model_copy(update={"view": view.model_copy(update={"kind": kind})})
            for kind in kinds.choices
        ]

    @model_validator(mode="after")
    def _seeds_fit(self) -> SearchSpec:
        if self.training.seed + self.search.comparison_seeds >= 2**32:
            raise ValueError(
                "training.seed: the comparison takes the seeds after it, and they must be < 2**32; "
                "lower training.seed or search.comparison_seeds"
            )
        return self

    @model_validator(mode="after")
    def _parameters_fit(self) -> SearchSpec:
        """Each end of each searched range must itself be a valid value of that key."""
        for key, distribution in self.search.parameters.items():
            if not key.startswith(("method.", "training.")) or key in _NOT_SEARCHABLE:
                raise ValueError(
                    f"search.parameters.{key}: only keys of method and training can be searched, "
                    f"without {', '.join(sorted(_NOT_SEARCHABLE))}"
                )
            section, _, name = key.partition(".")
            if section == "method" and not any(m.uses(name) for m in self.methods()):
                raise ValueError(
                    f"search.parameters.{key}: method {self.method.name} "
                    f"(views: {self.method.view_kind or 'none'}) does not use it"
                )
            if isinstance(distribution, Categorical):
                ends: tuple[Any, ...] = distribution.choices
            else:
                low, high = distribution.low, distribution.high
                if low >= high:
                    raise ValueError(
                        f"search.parameters.{key}: low {low} must be below high {high}"
                    )
                ends = (low, high)
            for value in ends:
                try:
                    with_values(self, {key: value})
                except UserError as error:
                    raise ValueError(f"search.parameters: {error}") from None
            if isinstance(distribution, Uniform | LogUniform):
                # The ends may be whole numbers; hardly any number drawn between them is.
                try:
                    with_values(self, {key: math.nextafter(low, high)})
                except UserError:
                    raise ValueError(
                        f"search.parameters.{key}: takes no fractions, "
                        "give 'distribution: int' or 'categorical'"
                    ) from None
        return self


_NOT_SEARCHABLE = {
    "method.name",
    "method.reduction",
    "method.view.synonyms",
    "training.max_length",
}
"""Keys that decide what is searched, or that the search prepares for once."""


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested mappings into dotted keys, such as ``method.view.radius``."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        path = f"{prefix}.{key}" if prefix else key
        if isinstance(value, Mapping):
            flat.update(flatten(value, path))
        else:
            flat[path] = value
    return flat


def _split_key(key: str, value: Any) -> list[str]:
    """Split a dotted key; a searched parameter's own dots stay: search.parameters.a.b.low."""
    parts = key.split(".")
    if parts[:2] != ["search", "parameters"] or len(parts) < 4:
        return parts
    if isinstance(value, Mapping):
        return ["search", "parameters", ".".join(parts[2:])]
    return ["search", "parameters", ".".join(parts[2:-1]), parts[-1]]


def set_key(tree: dict[str, Any], key: str, value: Any) -> None:
    """Set a dotted key in a nested dictionary, making dictionaries on the way.

    Raises:
        UserError: If the way leads through a value that is not a mapping.
    """
    parts = _split_key(key, value)
    for depth, part in enumerate(parts[:-1]):
        below = tree.setdefault(part, {})
        if not isinstance(below, dict):
            raise UserError(f"{key}: '{'.'.join(parts[: depth + 1])}' is a value, not a section")
        tree = below
    tree[parts[-1]] = value


def with_values(spec: SearchSpec, values: Mapping[str, Any]) -> SearchSpec:
    """Return the spec with some dotted keys changed, validated again.

    Args:
        spec: The spec to start from; it is not changed.
        values: Dotted keys of `method` and `training`, and their new values.

    Raises:
        UserError: If a key does not exist or a value is out of range.
    """
    tree = spec.model_dump(mode="json")
    # Checking the parameter ranges again would recurse: they are what calls this function.
    sections: dict[str, type[BaseModel]] = {"method": MethodSpec, "training": TrainingSpec}
    for key, value in values.items():
        if key.partition(".")[0] not in sections:
            raise UserError(f"{key}: not a key of {' or '.join(sections)}")
        set_key(tree, key, value)
    updates: dict[str, Any] = {}
    for name, model in sections.items():
        try:
            updates[name] = model.model_validate(tree[name])
        except ValidationError as error:
            raise UserError(one_line(error, name, model)) from None
    return spec.model_copy(update=updates)


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
