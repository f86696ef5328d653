"""How well languages are aligned: do translations of one text lie at one place?

Measured on parallel evaluation data, where row i of every language is the same example in
translation. No translation is ever trained on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from xlt_ray.data.batching import token_budget_batches
from xlt_ray.distributed import Workers
from xlt_ray.encoders.pooling import mean_embedding, watch_embeddings
from xlt_ray.errors import UserError
from xlt_ray.evaluation.predict import TOKEN_BUDGET, padded_batch

PLACES = ("embedding", "pulled", "last")
"""Where sentence embeddings are read off the encoder."""

_TIE = 1e-6
"""Cosine similarities nearer than this are equal: equal texts differ by rounding alone."""
_BLOCK = 512
"""Source texts compared at once with all texts of a target language."""


@torch.inference_mode()
def sentence_embeddings(
    classifier: PreTrainedModel,
    inputs: Mapping[str, Sequence[np.ndarray]],
    *,
    layer: int,
    pad_id: int,
    workers: Workers,
) -> dict[str, np.ndarray]:
    """Average a classifier's hidden states over the real tokens of each text.

    Args:
        classifier: A sequence classification model.
        inputs: `input_ids` of each text, and `token_type_ids` where the encoder uses them; at
            least one text.
        layer: The transformer layer called `pulled`, counted from 0.
        pad_id: The id that pads `input_ids`.
        workers: This worker and its peers; each embeds its share and gets all results.

    Returns:
        For each of :data:`PLACES` float32 (texts, hidden), the same on every worker:
        `embedding`, the embedding layer's output, e(x) of the paper; `pulled`, the output of
        layer `layer`; `last`, that of the last layer. `embedding` has the embeddings' own size
        where that is another than the hidden size (ALBERT).

    Raises:
        IndexError: If the encoder has no such layer.
        ValueError: If the encoder has no embedding layer to observe.
    """
    layers = classifier.config.num_hidden_layers
    if not 0 <= layer < layers:
        raise IndexError(f"layer {layer} of an encoder with {layers} layers")
    ids = inputs["input_ids"]
    batches = token_budget_batches(np.array([len(row) for row in ids]), TOKEN_BUDGET)
    # A worker without a share embeds a batch too, to learn the sizes.
    share = batches[workers.rank :: workers.size] or batches[-1:]
    means: dict[str, Tensor] = {}
    embeddings: list[Tensor] = []
    hook = watch_embeddings(classifier, embeddings.append)
    training = classifier.training
    classifier.eval()
    try:
        for batch in share:
            model_inputs = padded_batch(inputs, batch, pad_id, workers.device)
            del model_inputs["tokens"]  # every token's hidden state is wanted, in its place
            with workers.autocast():
                # Unlike attentions, hidden states are available on the fast attention path.
                hidden = classifier.base_model(
                    **model_inputs, output_hidden_states=True
                ).hidden_states
            states = (embeddings.pop(), hidden[layer + 1], hidden[-1])
            places = torch.from_numpy(batch).to(workers.device)
            for place, state in zip(PLACES, states, strict=True):
                mean = mean_embedding(state, model_inputs["attention_mask"])
                if place not in means:
                    means[place] = mean.new_full((len(ids), mean.size(1)), -torch.inf)
                means[place][places] = mean
    finally:
        hook.remove()
        classifier.train(training)
    return {place: workers.maximum(mean).cpu().numpy() for place, mean in means.items()}


def alignment_metrics(
    embeddings: np.ndarray,
    language: np.ndarray,
    row: np.ndarray,
    languages: Sequence[str],
    source: str,
) -> dict[str, float]:
    """Measure how near translations lie to each other, by the cosine of sentence embeddings.

    Embeddings are not centred by language: that would hide how far whole languages lie apart, and
    most published figures are raw cosines.

    Args:
        embeddings: Sentence embeddings (texts, hidden).
        language: Position in `languages` of each text's language (texts,).
        row: Position of each text in its language's split, each once a language (texts,).
        languages: Codes of the languages.
        source: Code of the source language, which the others are compared with.

    Returns:
        For each target language, over the rows that it shares with the source language, and as
        the mean over the target languages (`.../mean`):

        - `retrieval/{language}`: translation retrieval accuracy@1 in [0, 1], how often a text's
          nearest neighbour in the other language is its translation; the mean of both directions
          (the nearest-neighbour search of Tatoeba; Artetxe and Schwenk, TACL 2019). Being as
          near as the nearest counts, so that equal texts are no errors. A random order gives
          1 / rows.
        - `margin/{language}`: mean cosine of translations minus mean cosine of all other pairs
          of a source and a target text, in [-2, 2]. (Not the ratio margin of Artetxe and
          Schwenk, ACL 2019.)

    Raises:
        UserError: If a target language shares fewer than two rows with the source language.
    """
    start = languages.index(source)
    retrieval: dict[str, float] = {}
    margin: dict[str, float] = {}
    for index, code in enumerate(languages):
        if code == source:
            continue
        sources, targets = np.flatnonzero(language == start), np.flatnonzero(language == index)
        rows, first, second = np.intersect1d(row[sources], row[targets], return_indices=True)
        if len(rows) < 2:
            raise UserError(
                f"language '{code}': {len(rows)} of its rows are in '{source}' too; "
                "alignment is measured on parallel data of two rows or more"
            )
        one = _normalised(embeddings[sources[first]])
        other = _normalised(embeddings[targets[second]])
        retrieval[code], margin[code] = _retrieval(one, other), _margin(one, other)
    metrics: dict[str, float] = {}
    for name, values in (("retrieval", retrieval), ("margin", margin)):
        metrics |= {f"{name}/{code}": value for code, value in values.items()}
        metrics[f"{name}/mean"] = float(np.mean(list(values.values())))
    return metrics


def _normalised(embeddings: np.ndarray) -> np.ndarray:
    # Squares of small or large numbers leave the range of float32.
    exact = embeddings.astype(np.float64)
    norms = np.linalg.norm(exact, axis=1, keepdims=True)
    return (exact / np.where(norms > 0, norms, 1)).astype(np.float32)


def _retrieval(source: np.ndarray, target: np.ndarray) -> float:
    """Accuracy@1, the mean of both directions, of translations (rows, hidden) of length 1."""
    rows = len(source)
    gold = np.empty(rows, np.float32)
    nearest_target = np.empty(rows, np.float32)
    nearest_source = np.full(rows, -np.inf, np.float32)
    for begin in range(0, rows, _BLOCK):
        block = slice(begin, begin + _BLOCK)
        similarity = source[block] @ target.T
        gold[block] = similarity.diagonal(begin)
        nearest_target[block] = similarity.max(1)
        np.maximum(nearest_source, similarity.max(0), out=nearest_source)
    found = [gold >= nearest - _TIE for nearest in (nearest_target, nearest_source)]
    return float(np.mean(found))


def _margin(source: np.ndarray, target: np.ndarray) -> float:
    """Mean cosine of translations minus that of all other pairs; (rows, hidden) of length 1."""
    rows = len(source)
    translations = np.einsum("rh,rh->", source, target, dtype=np.float64)
    # The sum over all pairs is a product of sums.
    pairs = source.sum(0, dtype=np.float64) @ target.sum(0, dtype=np.float64)
    return float(translations / rows - (pairs - translations) / (rows * (rows - 1)))


def principal_components(embeddings: np.ndarray) -> np.ndarray:
    """Project embeddings onto their first two principal components, for a picture.

    Args:
        embeddings: (texts, hidden), two or more of each.

    Returns:
        (texts, 2), centred, the same for the same embeddings: of each component the largest
        absolute loading is positive.
    """
    from sklearn.decomposition import PCA

    pca = PCA(2, svd_solver="covariance_eigh")
    projected = pca.fit_transform(np.asarray(embeddings, dtype=np.float64))
    largest = np.abs(pca.components_).argmax(1)
    return projected * np.sign(pca.components_[np.arange(2), largest])
