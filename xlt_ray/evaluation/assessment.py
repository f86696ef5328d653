"""Measurements of a trained model beyond accuracy: alignment and cross-language pairs.

The pipeline runs :func:`assess_checkpoint` for the pretrained encoder, plain and the best trial.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from xlt_ray.config.spec import SearchSpec

if TYPE_CHECKING:
    import torch

    from xlt_ray.data.evaluation_set import EvaluationSet

_PROJECTED_ROWS = 100
"""Rows a language in the picture of sentence embeddings; more would cover each other."""


@dataclass(frozen=True)
class Assessment:
    """Measurements of one model on the test set."""

    alignment: dict[str, float]
    """`alignment/retrieval/<language>` and `alignment/margin/<language>` of the last layer, and
    the same under `alignment/embedding/` and `alignment/pulled/`; empty if the test set is not
    parallel."""
    projection: np.ndarray
    """First two principal components of sentence embeddings, last layer (texts, 2)."""
    language: np.ndarray
    """Position of each projected text's language (texts,)."""
    matrix: np.ndarray | None
    """Accuracies (L, L) with the premise in the language of the row and the hypothesis in that
    of the column; None if not requested."""


def assess(
    spec: SearchSpec,
    weights: Path | None,
    device: torch.device,
    *,
    alignment_rows: int,
    generalized_rows: int | None,
) -> Assessment:
    """Measure a model on the test set.

    Args:
        spec: The spec of its trial.
        weights: The trained weights (safetensors); None: the encoder as pretrained.
        device: Where to compute.
        alignment_rows: Rows per language for alignment, at most.
        generalized_rows: Rows per pair of languages, at most; None: no cross-language pairs.

    Raises:
        UserError: If cross-language pairs are requested and the task has one text column, or its
            test set is not parallel.
    """
    from safetensors.torch import load_model

    from xlt_ray.data.evaluation_set import evaluation_set
    from xlt_ray.data.preparation import prepare
    from xlt_ray.distributed import Workers, computes_in_bf16
    from xlt_ray.encoders.loading import load_classifier, load_tokenizer
    from xlt_ray.evaluation.alignment import principal_components, sentence_embeddings
    from xlt_ray.evaluation.language_pairs import accuracy_matrix, separator_ids

    prepared = prepare(spec)
    tokenizer = load_tokenizer(prepared.tokenizer)
    vocabulary = prepared.vocabulary()
    classifier = load_classifier(prepared.encoder, prepared.labels, spec.training.initial_seed)
    if weights is not None:
        load_model(classifier, str(weights))
    classifier.to(device)  # type: ignore[arg-type]
    workers = Workers(device=device, bf16=computes_in_bf16(device, spec.training.precision))
    test = evaluation_set(prepared.task, "test", tokenizer.pad_token_id, vocabulary)

    some = test.first_rows(alignment_rows or _PROJECTED_ROWS)
    embeddings = sentence_embeddings(
        classifier,
        some.inputs,
        layer=min(spec.method.pull_layer, classifier.config.num_hidden_layers - 1),
        pad_id=some.pad_id,
        workers=workers,
    )
    matrix = None
    if generalized_rows is not None:
        matrix = accuracy_matrix(
            classifier,
            test.first_rows(generalized_rows),
            separator_ids=separator_ids(tokenizer, vocabulary),
            workers=workers,
            max_length=spec.training.max_length,
        )
    shown = some.row < _PROJECTED_ROWS
    return Assessment(
        _alignment(embeddings, some) if alignment_rows else {},
        principal_components(embeddings["last"][shown]),
        some.language[shown],
        matrix,
    )


def _alignment(embeddings: Mapping[str, np.ndarray], data: EvaluationSet) -> dict[str, float]:
    """Return the alignment metrics of every place; none if the set is not parallel."""
    from xlt_ray.evaluation.alignment import alignment_metrics
    from xlt_ray.evaluation.parallel import is_parallel

    if not is_parallel(data.language, data.row, data.labels, data.languages):
        return {}
    metrics: dict[str, float] = {}
    for place, vectors in embeddings.items():
        prefix = "alignment/" if place == "last" else f"alignment/{place}/"
        found = alignment_metrics(vectors, data.language, data.row, data.languages, data.source)
        metrics |= {prefix + name: value for name, value in found.items()}
    return metrics


def assess_checkpoint(
    spec: SearchSpec,
    checkpoint: str | None,
    storage: str,
    alignment_rows: int,
    generalized_rows: int | None,
) -> Assessment:
    """Measure a trial's selected model; runs as a Ray task with a trial worker's resources.

    Args:
        spec: The spec of the trial.
        checkpoint: Path of its last checkpoint; None: the encoder as pretrained.
        storage: Folder or URI that the checkpoint is in.
        alignment_rows: Rows per language for alignment, at most.
        generalized_rows: Rows per pair of languages, at most; None: no cross-language pairs.
    """
    from xlt_ray.distributed import use_resources
    from xlt_ray.storage import fetch

    device = use_resources(spec.resources.cpus_per_worker, spec.resources.gpus_per_worker)
    with tempfile.TemporaryDirectory(prefix="xlt-ray-") as folder:
        weights = None
        if checkpoint is not None:
            weights = fetch(storage, f"{checkpoint}/model.safetensors", Path(folder))
        return assess(
            spec,
            weights,
            device,
            alignment_rows=alignment_rows,
            generalized_rows=generalized_rows,
        )
