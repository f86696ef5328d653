"""What a trial trains and scores, built from the machine's cache by each worker of a trial."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from xlt_ray.config.spec import SearchSpec
from xlt_ray.training.telemetry import Stopwatch

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from xlt_ray.data.evaluation_set import EvaluationSet
    from xlt_ray.data.preparation import Prepared
    from xlt_ray.data.training_set import TrainingSet
    from xlt_ray.method.noise_view import RandomView
    from xlt_ray.method.objective import Objective
    from xlt_ray.method.synonyms import Synonyms


class TrialParts(NamedTuple):
    """What a trial trains and scores."""

    objective: Objective
    """The classifier with its loss terms, on the worker's device."""
    training_set: TrainingSet
    """The source language's training examples."""
    dev: EvaluationSet
    """Dev texts of every language, and synonym views of the source language's."""
    test: EvaluationSet
    """Test texts of every language."""


def build(
    spec: SearchSpec,
    device: torch.device,
    clock: Stopwatch | None = None,
    since: float | None = None,
    cache: Path | None = None,
) -> TrialParts:
    """Build what a trial trains and scores, from this machine's cache.

    Args:
        spec: The trial's spec.
        device: Where the model goes.
        clock: Gets the time of imports, preparation, tokenizer, data and model.
        since: When the search started; see :func:`xlt_ray.data.preparation.prepare`.
        cache: Folder of the prepared data; None: this machine's cache.
    """
    # The imports come first, so that the clock counts them as such.
    from xlt_ray.data.preparation import prepare
    from xlt_ray.encoders.loading import load_classifier, load_tokenizer
    from xlt_ray.method.objective import Objective
    from xlt_ray.method.synonyms import load_synonyms

    clock = clock or Stopwatch()
    clock.lap("imports")
    prepared = prepare(spec, since, cache)
    clock.lap("preparation")
    tokenizer = load_tokenizer(prepared.tokenizer)
    clock.lap("tokenizer")
    synonyms = load_synonyms(spec.method.view.synonyms)
    training_set = _training_set(spec, prepared, tokenizer, synonyms)
    clock.lap("data")
    classifier = load_classifier(prepared.encoder, prepared.labels, spec.training.initial_seed)
    if vocabulary := prepared.vocabulary():
        vocabulary.train_reachable(classifier)
    noise_view = _noise_view(spec, classifier, training_set)
    smoothing = spec.training.label_smoothing
    objective = Objective(classifier, spec.method, noise_view, smoothing).to(device)
    clock.lap("model")
    dev, test = _evaluation_sets(spec, prepared, tokenizer, synonyms)
    clock.lap("data")
    return TrialParts(objective, training_set, dev, test)


def _training_set(
    spec: SearchSpec, prepared: Prepared, tokenizer: PreTrainedTokenizerBase, synonyms: Synonyms
) -> TrainingSet:
    from xlt_ray.data.training_set import BatchLayout, TrainingSet
    from xlt_ray.method.synonym_view import SynonymView

    method, seed = spec.method, spec.training.seed
    text_view: SynonymView | Literal["noise"] | None
    text_view = None if method.view_kind is None else "noise"
    if method.view_kind == "synonym":
        text_view = SynonymView(synonyms, method.view.radius, seed)
    return TrainingSet(
        prepared.task,
        tokenizer,
        BatchLayout(
            spec.training.max_length,
            words="pull" in method.terms and method.pull_alignment == "word",
            padded=method.reduction == "padded" and method.uses("reduction"),
        ),
        text_view,
        prepared.vocabulary(),
        seed=seed,
    )


def _noise_view(
    spec: SearchSpec, classifier: PreTrainedModel, training_set: TrainingSet
) -> RandomView | None:
    """Return the view that moves embeddings; None where views are made of words or not at all."""
    import torch

    from xlt_ray.method.noise_view import embedding_view, mean_norm

    if spec.method.view_kind in (None, "synonym"):
        return None
    table = classifier.get_input_embeddings().weight
    assert isinstance(table, torch.Tensor)
    counts = torch.from_numpy(training_set.counts(len(table)))
    return embedding_view(spec.method, mean_norm(table, counts))


def _evaluation_sets(
    spec: SearchSpec, prepared: Prepared, tokenizer: PreTrainedTokenizerBase, synonyms: Synonyms
) -> tuple[EvaluationSet, EvaluationSet]:
    """Return the dev set, with synonym views of the source language's texts, and the test set."""
    from xlt_ray.data.evaluation_set import evaluation_set, with_virtual_source
    from xlt_ray.method.synonym_view import SynonymView

    vocabulary, pad_id = prepared.vocabulary(), tokenizer.pad_token_id
    dev, test = (
        evaluation_set(prepared.task, split, pad_id, vocabulary) for split in ("dev", "test")
    )
    if spec.data.dev_languages == "source":
        dev = dev.only_source()
    elif spec.data.target_dev_limit is not None:
        dev = dev.sample_targets(spec.data.target_dev_limit)
    # Equal for all trials, whatever their own views: trials may be compared by it.
    virtual = SynonymView(synonyms, "paper", seed=0)
    dev = with_virtual_source(
        dev,
        prepared.task,
        tokenizer,
        spec.training.max_length,
        virtual,
        vocabulary,
        spec.data.virtual_views,
    )
    return dev, test
