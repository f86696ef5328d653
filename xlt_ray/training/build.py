"""What a trial trains and scores, built from the machine's cache."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from xlt_ray.config.spec import SearchSpec
from xlt_ray.training.telemetry import Stopwatch

if TYPE_CHECKING:
    import torch


def build(
    spec: SearchSpec,
    device: torch.device,
    clock: Stopwatch | None = None,
    since: float | None = None,
) -> tuple[Any, Any, Any, Any]:
    """Build what a trial trains and scores, from this machine's cache.

    Args:
        spec: The trial's spec.
        device: Where the model goes.
        clock: Told of the time for imports, preparation, tokenizer, data and model.
        since: As of :func:`xlt_ray.data.preparation.prepare`.

    Returns:
        The objective, the training set, and the dev and test sets.
    """
    import torch
    from transformers import AutoTokenizer

    from xlt_ray.data.evaluation_set import evaluation_set, with_virtual_source
    from xlt_ray.data.preparation import prepare
    from xlt_ray.data.training_set import TrainingSet
    from xlt_ray.encoders.loading import load_classifier
    from xlt_ray.method.noise_view import embedding_view, mean_norm
    from xlt_ray.method.objective import Objective
    from xlt_ray.method.synonym_view import SynonymView
    from xlt_ray.method.synonyms import load_synonyms

    clock = clock or Stopwatch()
    clock.lap("imports")
    prepared = prepare(spec, since)
    clock.lap("preparation")
    tokenizer = AutoTokenizer.from_pretrained(prepared.tokenizer, trust_remote_code=False)
    clock.lap("tokenizer")
    vocabulary = prepared.vocabulary()
    method, seed = spec.method, spec.training.seed
    text_view: SynonymView | Literal["noise"] | None = None
    if method.view_kind == "synonym":
        text_view = SynonymView(load_synonyms(method.view.synonyms), method.view.radius, seed)
    elif method.view_kind is not None:
        text_view = "noise"
    training_set = TrainingSet(
        prepared.task,
        tokenizer,
        spec.training.max_length,
        text_view,
        vocabulary,
        seed=seed,
        words="pull" in method.terms and method.pull_alignment == "word",
        padded=method.reduction == "padded" and method.uses("reduction"),
    )
    clock.lap("data")
    classifier = load_classifier(prepared.encoder, prepared.labels, seed)
    noise_view = None
    if text_view == "noise":
        table: Any = classifier.get_input_embeddings().weight
        counts = torch.from_numpy(training_set.counts(len(table)))
        noise_view = embedding_view(method, mean_norm(table, counts))
    objective = Objective(classifier, method, noise_view).to(device)
    clock.lap("model")
    pad_id = tokenizer.pad_token_id
    dev, test = (
        evaluation_set(prepared.task, split, pad_id, vocabulary) for split in ("dev", "test")
    )
    # Equal for all trials, whatever their own views are: it may be what they are compared by.
    virtual = SynonymView(load_synonyms(method.view.synonyms), "paper", seed=0)
    dev = with_virtual_source(
        dev, prepared.task, tokenizer, spec.training.max_length, virtual, vocabulary
    )
    clock.lap("data")
    return objective, training_set, dev, test
