"""Mean embedding and the embedding layer's output."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from tests.support.core_models import FAMILIES, tiny_classifier
from tests.support.families import family_encoder
from xlt_ray.encoders.pooling import mean_embedding, watch_embeddings

IDS = torch.tensor([[5, 6, 7, 8]])


def test_mean_is_over_the_real_tokens_only() -> None:
    embeddings = torch.tensor([[[1.0, 2.0], [3.0, 6.0], [100.0, 100.0]]])
    assert mean_embedding(embeddings, torch.tensor([[1, 1, 0]])).tolist() == [[2.0, 4.0]]


def test_mean_of_half_precision_is_float32() -> None:
    embeddings = torch.full((1, 4096, 1), 1.0, dtype=torch.float16)
    mean = mean_embedding(embeddings, torch.ones(1, 4096, dtype=torch.long))
    assert mean.dtype == torch.float32 and mean.item() == 1.0


def watched(classifier: PreTrainedModel, training: bool) -> Tensor:
    """E of one forward pass: (1, tokens, hidden)."""
    found: list[Tensor] = []
    handle = watch_embeddings(classifier, found.append)
    classifier.train(training)(input_ids=IDS)
    handle.remove()
    classifier(input_ids=IDS)
    [embeddings] = found
    return embeddings


@pytest.mark.parametrize("family", FAMILIES)
def test_it_is_the_output_of_the_embedding_layers_norm(family: str) -> None:
    classifier = tiny_classifier(family)
    outputs: list[Tensor] = []
    classifier.base_model.embeddings.LayerNorm.register_forward_hook(
        lambda module, inputs, output: outputs.append(output)
    )
    assert torch.equal(watched(classifier, training=True), outputs[0])


@pytest.mark.parametrize(
    "family",
    [
        "bert",
        "xlm-roberta",
        "xlm-roberta-xl",
        "deberta",
        "deberta-v2",
        "distilbert",
        "electra",
        "modernbert",
        "mpnet",
        "nomic_bert",
        "gte",
        "megatron-bert",
        "big_bird",
        "eurobert",
    ],
)
def test_no_dropout_is_in_it(family: str, tmp_path: Path) -> None:
    folder = family_encoder(tmp_path / family, family)
    classifier = AutoModelForSequenceClassification.from_pretrained(folder)
    in_training, in_evaluation = (watched(classifier, training) for training in (True, False))
    torch.testing.assert_close(in_training, in_evaluation, rtol=0, atol=1e-7)
    assert in_training.requires_grad and in_training.shape == (1, 4, in_training.size(-1))


def test_without_an_embedding_layer_it_is_the_word_embeddings(tmp_path: Path) -> None:
    folder = family_encoder(tmp_path / "encoder", "eurobert")
    classifier = AutoModelForSequenceClassification.from_pretrained(folder)
    expected = classifier.get_input_embeddings().weight[IDS]
    assert torch.equal(watched(classifier, training=True), expected)
