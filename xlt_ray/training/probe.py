"""Try what training will do, with a few rows, before a search starts. The plan calls it.

A model passes because a training step of each method and an input of full length worked with its
own weights, not because its family is on a list.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from xlt_ray.config.method import PRESETS, MethodName, MethodSpec, Term, ViewKind
from xlt_ray.config.spec import DataSpec, SearchSpec
from xlt_ray.data.sample import FIRST_ROWS, TaskSample
from xlt_ray.encoders.loading import EncoderInfo
from xlt_ray.errors import UserError, brief, in_one_line
from xlt_ray.files import cache_folder
from xlt_ray.training.build import TrialParts, build

if TYPE_CHECKING:
    from torch import Tensor

    from xlt_ray.distributed import Workers
    from xlt_ray.method.objective import Objective

_ALTERNATIVES: tuple[MethodName, ...] = (
    "ear",
    "ear-no-pull",
    "ear-no-push",
    "ear-no-robust",
    "rs-da",
    "plain",
)
"""Methods to name where another one fails."""

_LACKS: dict[Term, str] = {
    "pull": "no attention maps",
    "push": "no embeddings to push apart",
    "robust": "no views",
}
"""What an encoder lacks that cannot compute a term."""

_NOISE: tuple[ViewKind | None, ...] = ("random", "adversarial")
"""Views of embeddings; each includes the ones before."""

_HEAD_SIZE = 64
"""Dimensions of an attention head, of nearly every encoder."""


@dataclass(frozen=True)
class Probe:
    """What was tried and found."""

    methods: tuple[MethodName, ...] = ()
    """Methods with which a training step was made; their terms and views include all others'."""
    tokens: int = 0
    """Tokens of the longest input that was tried."""
    seconds: float = 0.0
    """Time that it took."""
    unknown: Mapping[str, float] = field(default_factory=dict)
    """Share of each language's pieces that the tokenizer does not know, in [0, 1]."""
    skipped: str = ""
    """Why nothing was tried; empty: it was."""


def probe(
    spec: SearchSpec, methods: Sequence[MethodSpec], sample: TaskSample, encoder: EncoderInfo
) -> Probe:
    """Build the trials of a search on a few rows, and train each for a step.

    The model is the real one, with its weights and its trimmed table, because a checkpoint can be
    wrong where its configuration is right. Its gradients are dropped as they come, so the memory is
    that of preparing the search.

    Args:
        spec: The search.
        methods: Every method that it may run.
        sample: A few rows of its task.
        encoder: Its encoder.

    Raises:
        UserError: If the model cannot be loaded, a method does not work with it, or it does not
            take inputs of `training.max_length`.
    """
    started = time.perf_counter()
    if short := _memory_short(spec, methods, encoder):
        return Probe(skipped=short)
    tried = _distinct(methods)
    cache_folder().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="probe-", dir=cache_folder()) as folder:
        task = sample.write(Path(folder), spec.training.max_length)
        few = spec.model_copy(
            update={
                "task": str(task),
                "target_languages": None,
                "data_dir": None,
                "data": DataSpec(dev_languages=spec.data.dev_languages, virtual_views=1),
            }
        )
        tokens = max(_check_method(_with(few, one), Path(folder) / "cache") for one in tried)
        unknown = _unknown_shares(few, Path(folder) / "cache")
    names = tuple(dict.fromkeys(method.name for method in tried))
    return Probe(names, tokens, time.perf_counter() - started, unknown)


def _distinct(methods: Sequence[MethodSpec]) -> list[MethodSpec]:
    """Return the methods whose terms and views include those of all others."""
    kept: list[MethodSpec] = []
    for method in sorted(methods, key=lambda one: (-len(one.terms), -_rank(one.view_kind))):
        if not any(_includes(other, method) for other in kept):
            kept.append(method)
    return kept


def _includes(method: MethodSpec, other: MethodSpec) -> bool:
    """Tell whether a step of a method computes all that a step of another one does."""
    kind = other.view_kind
    noise = kind in _NOISE and method.view_kind in _NOISE and _rank(method.view_kind) > _rank(kind)
    return (
        set(other.terms) <= set(method.terms)
        and (kind is None or kind == method.view_kind or noise)
        and ("pull" not in other.terms or method.pull_alignment in ("word", other.pull_alignment))
    )


def _rank(kind: ViewKind | None) -> int:
    return _NOISE.index(kind) if kind in _NOISE else -1


def _with(spec: SearchSpec, method: MethodSpec) -> SearchSpec:
    return spec.model_copy(update={"method": method})


def _check_method(spec: SearchSpec, cache: Path) -> int:
    """Try the spec's method; return the tokens of the longest input.

    Raises:
        UserError: If it fails, with the methods that work instead.
    """
    try:
        parts, workers = _stepped(spec, cache)
    except UserError:
        raise
    # A model can fail in any way.
    except Exception as error:
        raise _refusal(spec, cache, error) from None
    tokens = int(parts.training_set.lengths.max())
    try:
        _compute_longest(parts, workers)
    except Exception as error:
        raise UserError(
            f"training.max_length: {spec.model} takes short inputs but fails with {tokens} tokens "
            f"({brief(in_one_line(error))}); lower it"
        ) from None
    return tokens


def _stepped(spec: SearchSpec, cache: Path) -> tuple[TrialParts, Workers]:
    """Build a trial, compute the gradient of two texts, and classify two dev texts."""
    import numpy as np

    from xlt_ray.distributed import Workers, computes_in_bf16, use_resources
    from xlt_ray.evaluation.predict import class_probabilities
    from xlt_ray.training.loss_sums import LossSums
    from xlt_ray.training.trainer import Trainer, accumulate

    device = use_resources(spec.resources.cpus_per_worker, gpus=0)
    workers = Workers(device=device, bf16=computes_in_bf16(device, spec.training.precision))
    parts = build(spec, device, since=0, cache=cache)
    order = np.argsort(parts.training_set.lengths)
    pair = order[[0, len(order) // 2]]
    # Adds adapters, freezes layers and makes the optimiser, as the recipe says.
    Trainer(
        parts,
        spec.training,
        selection=spec.search.objective,
        workers=workers,
        folder=cache,
        report=lambda metrics, checkpoint: None,
    )
    reached = _drop_gradients(parts.objective)
    sums = LossSums(examples=len(pair))
    parts.objective.train()
    accumulate(parts.objective, [parts.training_set.batch(pair, 0, device)], 0.5, workers, sums)
    sums.means(workers)
    _check_parallel(spec, parts.objective, reached)
    _check_map(parts.objective, parts.training_set.batch(pair, 0, device))
    shortest = np.argsort([len(ids) for ids in parts.dev.inputs["input_ids"]])[:2]
    dev = parts.dev.only(np.isin(np.arange(len(parts.dev.labels)), shortest))
    class_probabilities(parts.objective.classifier, dev.inputs, pad_id=dev.pad_id, workers=workers)
    return parts, workers


def _compute_longest(parts: TrialParts, workers: Workers) -> None:
    """Compute the objective of the longest training text."""
    import numpy as np
    import torch

    longest = np.argsort(parts.training_set.lengths)[-1:]
    inputs = parts.training_set.batch(longest, 0, workers.device)
    # The ascent of an adversarial view needs gradients of its own.
    ascent = parts.objective.method.view_kind == "adversarial"
    with torch.set_grad_enabled(ascent), workers.autocast():
        parts.objective(**inputs)


def _drop_gradients(objective: Objective) -> set[int]:
    """Free each weight's gradient once it is there; return the ids of weights that had one."""
    reached: set[int] = set()

    def drop(weight: Tensor) -> None:
        reached.add(id(weight))
        weight.grad = None

    for weight in objective.parameters():
        if weight.requires_grad:
            weight.register_post_accumulate_grad_hook(drop)
    return reached


def _check_parallel(spec: SearchSpec, objective: Objective, reached: set[int]) -> None:
    """Check that data-parallel workers, if there are any, get a gradient of every weight."""
    idle = [
        name
        for name, weight in objective.classifier.named_parameters()
        if weight.requires_grad and id(weight) not in reached
    ]
    if idle and spec.resources.most_workers > 1:
        raise UserError(
            f"resources.workers_per_trial: {spec.model} has weights without a gradient, such as "
            f"{idle[0]}, and data-parallel workers need one of each; give each trial one worker"
        )


def _check_map(objective: Objective, inputs: Mapping[str, Tensor]) -> None:
    """Check that the attention map in training is the one before dropout: its rows sum to 1.

    Raises:
        ValueError: If they do not.
    """
    import torch

    recorder = objective.recorder
    if recorder is None:
        return
    given = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    with torch.no_grad(), recorder:
        output = objective.classifier(**given, output_attentions=recorder.native or None)
    rows = recorder.take(output.attentions).sum(-1)
    if not torch.allclose(rows, torch.ones_like(rows), atol=1e-3):
        raise ValueError("its maps are those after dropout; attention dropout 0 would avoid that")


def _refusal(spec: SearchSpec, cache: Path, error: Exception) -> UserError:
    """Return the error for a method that fails: what the model lacks, and what works."""
    failed = spec.method
    others = {
        name: failed.model_copy(update={"name": name})
        for name in _ALTERNATIVES
        if PRESETS[name] != PRESETS[failed.name]
    }
    others["plain"] = failed.model_copy(update={"name": "plain"})
    works = [name for name, method in others.items() if _works(_with(spec, method), cache)]
    reason = brief(in_one_line(error))
    if not works:
        return UserError(
            f"model {spec.model}: it fails in the first training step, whatever the method "
            f"({reason}); choose an encoder of another family, such as xlm-roberta-base"
        )
    found = {term for name in works for term in PRESETS[name].terms}
    lacking = [_LACKS[term] for term in failed.terms if term not in found]
    if not lacking and failed.view_kind in _NOISE and "rs-da" in works:
        lacking = ["no word embeddings that take noise"]
    named = f"{', '.join(works[:-1])} or {works[-1]}" if len(works) > 1 else works[0]
    return UserError(
        f"model {spec.model}: method {failed.name}: {' and '.join(lacking) or 'it fails'}: use "
        f"{named}{_places(spec)} ({reason})"
    )


def _places(spec: SearchSpec) -> str:
    """Return which keys bring the failing method into the search, apart from `method.name`."""
    search, name = spec.search, spec.method.name
    places = []
    if search.parameters and search.paper_trial and name == "ear":
        places.append("set search.paper_trial=false")
    if name in search.baselines:
        places.append(f"leave {name} out of search.baselines")
    return "".join(f", {place}" for place in places)


def _works(spec: SearchSpec, cache: Path) -> bool:
    try:
        _stepped(spec, cache)
    except Exception:
        return False
    return True


def _unknown_shares(spec: SearchSpec, cache: Path) -> dict[str, float]:
    """Return the share of unknown pieces in the first rows of each language."""
    import numpy as np

    from xlt_ray.data.preparation import prepare
    from xlt_ray.data.tokenized import token_rows
    from xlt_ray.encoders.loading import load_tokenizer

    prepared = prepare(spec, since=0, cache=cache)
    task, tokenizer = prepared.task, load_tokenizer(prepared.tokenizer)
    if tokenizer.unk_token_id is None:
        return {}
    special = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
    ids: dict[str, list[np.ndarray]] = {language: [] for language in task.languages}
    for data in (task.train(), task.evaluation("dev"), task.evaluation("test")):
        languages = data["language"] if "language" in data.column_names else [0] * len(data)
        rows = zip(token_rows(data, "input_ids"), languages, data["row"], strict=True)
        for tokens, language, row in rows:
            if row < FIRST_ROWS:
                ids[task.languages[language]].append(tokens[~np.isin(tokens, list(special))])
    return {
        language: float((np.concatenate(found) == tokenizer.unk_token_id).mean())
        for language, found in ids.items()
    }


def _memory_short(spec: SearchSpec, methods: Sequence[MethodSpec], encoder: EncoderInfo) -> str:
    """Say why this machine cannot try a model; an empty text if it can."""
    # Weights in float32, read once and trimmed once; then the attention maps of a text and its
    # view, with what softmax and differences keep, where a map is compared.
    needed = 8 * encoder.parameters
    if any("pull" in method.terms for method in methods):
        needed += 32 * encoder.hidden // _HEAD_SIZE * spec.training.max_length**2
    free = psutil.virtual_memory().available
    if needed <= free:
        return ""
    return f"it takes about {needed / 1e9:.1f} GB of memory, {free / 1e9:.1f} GB are free here"
