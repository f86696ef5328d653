"""One layer's attention map against transformers' own, and that nothing else changes."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from tests.support.core_models import FAMILIES, padded, random_texts, tiny_classifier
from tests.support.families import family_encoder
from xlt_ray.config.method import MethodSpec
from xlt_ray.encoders.attention import AttentionRecorder, attend
from xlt_ray.method.objective import Objective

LAYERS = 3
INPUTS = padded(random_texts([9, 4, 7], seed=1))


@pytest.fixture(scope="module", params=FAMILIES)
def eager(request: pytest.FixtureRequest) -> Any:
    model = tiny_classifier(request.param, layers=LAYERS)
    model.set_attn_implementation("eager")
    return model


@pytest.mark.parametrize("layer", range(LAYERS))
def test_map_of_every_layer_is_the_eager_one_and_logits_stay(eager: Any, layer: int) -> None:
    expected = eager(**INPUTS, output_attentions=True)
    assert len(expected.attentions) == LAYERS
    # A map that is nearly uniform would be matched by a wrong layer's too.
    other = expected.attentions[(layer + 1) % LAYERS]
    assert (expected.attentions[layer] - other).abs().max() > 0.1

    model = copy.deepcopy(eager)
    recorder = AttentionRecorder(model, layer)
    assert not recorder.native
    with recorder:
        recorded = model(**INPUTS)
    torch.testing.assert_close(recorder.take(), expected.attentions[layer], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(recorded.logits, expected.logits, rtol=1e-5, atol=1e-5)

    plain = copy.deepcopy(eager)
    plain.set_attn_implementation("sdpa")
    torch.testing.assert_close(recorded.logits, plain(**INPUTS).logits, rtol=1e-5, atol=1e-5)


def test_unpadded_batch_is_recorded_alike(eager: Any) -> None:
    """Without padding transformers passes no mask at all."""
    inputs = padded(random_texts([6, 6], seed=2))
    expected = eager(**inputs, output_attentions=True).attentions[1]
    model = copy.deepcopy(eager)
    recorder = AttentionRecorder(model, 1)
    with recorder:
        model(**inputs)
    torch.testing.assert_close(recorder.take(), expected, rtol=1e-5, atol=1e-5)


def test_nothing_is_recorded_outside_the_block_and_logits_are_the_fast_path_s(eager: Any) -> None:
    model = copy.deepcopy(eager)
    recorder = AttentionRecorder(model, 1)
    assert recorder.probabilities is None  # the search for the layer left nothing behind
    outside = model(**INPUTS).logits
    assert recorder.probabilities is None
    with recorder:
        model(**INPUTS)
    recorder.take()
    assert recorder.probabilities is None
    model(**INPUTS)
    assert recorder.probabilities is None

    plain = copy.deepcopy(eager)
    plain.set_attn_implementation("sdpa")
    torch.testing.assert_close(outside, plain(**INPUTS).logits, rtol=1e-5, atol=1e-5)


def test_recording_ends_with_the_block_even_when_the_forward_fails(eager: Any) -> None:
    model = copy.deepcopy(eager)
    recorder = AttentionRecorder(model, 0)
    with pytest.raises(IndexError), recorder:
        model(input_ids=torch.tensor([[10**6]]))
    model(**INPUTS)
    assert recorder.probabilities is None
    with recorder:
        model(**INPUTS)
    expected = eager(**INPUTS, output_attentions=True).attentions[0]
    torch.testing.assert_close(recorder.take(), expected, rtol=1e-5, atol=1e-5)


def test_two_models_do_not_disturb_each_other() -> None:
    first, second = tiny_classifier("bert"), tiny_classifier("xlm-roberta")
    recorders = [AttentionRecorder(first, 0), AttentionRecorder(second, 1)]
    with recorders[0]:
        second(**INPUTS)
    assert recorders[0].probabilities is None and recorders[1].probabilities is None


def test_model_keeps_its_mode_and_its_weights(eager: Any) -> None:
    model = copy.deepcopy(eager).train()
    AttentionRecorder(model, 0)
    assert model.training
    for name, value in model.state_dict().items():
        assert torch.equal(value, eager.state_dict()[name]), name


@pytest.mark.parametrize("family", ["bert", "deberta-v2"])
def test_layer_that_the_encoder_lacks(family: str) -> None:
    with pytest.raises(IndexError, match="2 layers"):
        AttentionRecorder(tiny_classifier(family), 2)


@pytest.mark.parametrize("layer", range(LAYERS))
def test_encoder_outside_the_attention_interface_gives_its_own_maps(layer: int) -> None:
    model = tiny_classifier("deberta-v2", layers=LAYERS)
    texts, views = random_texts([8, 5], seed=3), random_texts([6, 5], seed=4)
    maps = [
        model(**padded(side, extra=extra), output_attentions=True).attentions[layer]
        for side, extra in ((texts, 0), (views, 2))
    ]
    expected = []
    for a, b, length_a, length_b in zip(*maps, (8, 5), (6, 5), strict=True):
        size = max(length_a, length_b)
        left, right = torch.zeros(4, size, size), torch.zeros(4, size, size)
        left[:, :length_a, :length_a] = a[:, :length_a, :length_a]
        right[:, :length_b, :length_b] = b[:, :length_b, :length_b]
        expected.append((left - right).square().mean())

    objective = Objective(model, MethodSpec(pull_layer=layer))
    assert objective.recorder is not None and objective.recorder.native
    terms = objective(**padded(texts + views), labels=torch.tensor([0, 2]))
    torch.testing.assert_close(terms["pull"], torch.stack(expected), rtol=1e-5, atol=1e-7)
    assert (terms["pull"] > 1e-4).all()
    terms["total"].mean().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("family", ["bert", "deberta-v2"])
def test_equal_texts_are_pulled_by_nothing_whatever_attention_drops(family: Any) -> None:
    model = tiny_classifier(family, layers=LAYERS).train()
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.5 if "attention.self" in name else 0.0
    texts = random_texts([8, 5], seed=3)
    # Deeper layers get what the first one's attention dropped.
    objective = Objective(model, MethodSpec(pull_layer=0)).train()
    terms = objective(**padded(texts + texts), labels=torch.tensor([0, 2]))
    assert terms["distance"].tolist() == [0, 0]
    assert terms["pull"].tolist() == [0, 0]
    # Something was dropped: the two sides are classified differently.
    assert not torch.equal(terms["classification"], terms["robust"])


@pytest.mark.parametrize("family", ["eurobert", "convbert"])
def test_maps_are_those_that_the_model_itself_returns_in_evaluation(
    family: str, tmp_path: Path
) -> None:
    """EuroBERT's query heads share keys, and ConvBERT has fewer heads than it says."""
    folder = family_encoder(tmp_path / "encoder", family)
    model = AutoModelForSequenceClassification.from_pretrained(folder, attn_implementation="eager")
    ids = torch.tensor([[5, 6, 7, 8, 9]])
    expected = model.eval()(input_ids=ids, output_attentions=True).attentions[1]
    recorder = AttentionRecorder(model, 1)
    with recorder:
        outputs = model(input_ids=ids, output_attentions=recorder.native)
    torch.testing.assert_close(recorder.take(outputs.attentions), expected, rtol=1e-5, atol=1e-6)
    # In training, what the model returns has dropout.
    with recorder:
        outputs = model.train()(input_ids=ids, output_attentions=recorder.native)
    recorded = recorder.take(outputs.attentions)
    torch.testing.assert_close(recorded.sum(-1), torch.ones(recorded.shape[:-1]))


@pytest.mark.parametrize("mask", ["none", "boolean", "added"])
@pytest.mark.parametrize(("queries", "scaling"), [(7, None), (1, 0.5)])
def test_attention_with_dropout_is_that_of_sdpa_on_average(
    mask: str, queries: int, scaling: float | None
) -> None:
    """The mean over draws and its gradient, against torch's attention without dropout."""
    torch.manual_seed(0)
    query, key, value = (torch.randn(2, 3, count, 4, dtype=torch.float64) for count in (7, 7, 7))
    query = query[:, :, :queries].requires_grad_()
    real = (torch.arange(7) < torch.tensor([[7], [4]]))[:, None, None].expand(2, 1, queries, 7)
    added = torch.zeros(real.shape, dtype=torch.float64).masked_fill(~real, -1e9)
    given = {"none": None, "boolean": real, "added": added}[mask]
    module = torch.nn.Module()
    module.is_causal = False  # type: ignore[assignment]
    expected = torch.nn.functional.scaled_dot_product_attention(
        query, key, value, attn_mask=given, scale=scaling
    ).transpose(1, 2)
    draws = 4000
    many = [part.repeat(draws, 1, 1, 1) for part in (query, key, value)]
    repeated = None if given is None else given.repeat(draws, 1, 1, 1)
    found = attend(module, *many, repeated, 0.2, scaling).unflatten(0, (draws, 2)).double().mean(0)
    torch.testing.assert_close(found, expected, atol=0.06, rtol=0)
    direction = torch.randn_like(expected)
    (wanted,) = torch.autograd.grad((expected * direction).sum(), query)
    (gradient,) = torch.autograd.grad((found * direction).sum(), query)
    torch.testing.assert_close(gradient, wanted, atol=0.15, rtol=0)


def test_causal_attention_keeps_to_what_came_before() -> None:
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 1, 1, 3, 4)
    module = torch.nn.Module()
    module.is_causal = True  # type: ignore[assignment]
    output = attend(module, query, key, value, None, 0.5, None)
    # The first token sees itself alone: its value, or nothing.
    first = output[0, 0, 0]
    assert torch.allclose(first, 2 * value[0, 0, 0]) or torch.equal(first, torch.zeros(4))
