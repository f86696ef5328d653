"""Packed forward passes: what is computed, and that nothing else changes."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import BertForSequenceClassification

from tests.support.core_models import FAMILIES, PAD, padded, random_texts, tiny_classifier
from xlt_ray.data.batching import pad_inputs
from xlt_ray.encoders.attention import AttentionRecorder
from xlt_ray.encoders.packing import TokenPacking

LENGTHS = [9, 4, 7, 12, 1]


def packed_logits(model: Any, lengths: Sequence[int], extra: int = 0) -> tuple[Tensor, Tensor]:
    """The logits of random texts, as the model gives them and packed."""
    texts = [np.array(text) for text in random_texts(lengths, seed=3)]
    arrays = pad_inputs({"input_ids": texts}, PAD, max(lengths) + extra)
    inputs = {name: torch.from_numpy(array) for name, array in arrays.items()}
    tokens = inputs.pop("tokens")
    packing = TokenPacking.on(model)
    with packing.of(tokens, inputs["attention_mask"]):
        packed = model(**inputs).logits
    return model(**inputs).logits, packed


def rows_of(model: Any, module: torch.nn.Module, lengths: Sequence[int]) -> list[int]:
    """How many token vectors a module is given in a padded and in a packed pass."""
    rows: list[int] = []
    hook = module.register_forward_hook(
        lambda _, arguments, __: rows.append(arguments[0].flatten(0, -2).size(0))
    )
    packed_logits(model, lengths)
    hook.remove()
    return rows


@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=15, deadline=None)
@given(lengths=st.lists(st.integers(1, 12), min_size=1, max_size=5), extra=st.integers(0, 3))
def test_logits_are_the_padded_ones(family: str, lengths: list[int], extra: int) -> None:
    model = tiny_classifier(family)
    assert TokenPacking.on(model).supported
    expected, found = packed_logits(model, lengths, extra)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", ["bert", "xlm-roberta"])
def test_layers_see_real_tokens_and_the_end_of_the_last_one_first_tokens(family: str) -> None:
    model = tiny_classifier(family)
    layers = model.base_model.encoder.layer
    TokenPacking.on(model)
    real, cells = sum(LENGTHS), len(LENGTHS) * max(LENGTHS)
    # The packed pass comes first.
    assert rows_of(model, layers[0].intermediate, LENGTHS) == [real, cells]
    assert rows_of(model, layers[-1].attention.self.key, LENGTHS) == [real, cells]
    assert rows_of(model, layers[-1].intermediate, LENGTHS) == [len(LENGTHS), cells]


def test_head_that_reads_every_token_gets_them() -> None:
    class MeanHead(BertForSequenceClassification):
        def forward(self, **inputs: Any) -> Any:
            output = super().forward(**inputs)
            hidden = self.bert(**inputs).last_hidden_state
            mask = inputs["attention_mask"].unsqueeze(-1)
            output.logits = (hidden * mask).sum(1)[:, :3] / mask.sum(1)
            return output

    model = MeanHead(tiny_classifier("bert").config).eval()
    assert TokenPacking.on(model).supported
    expected, found = packed_logits(model, LENGTHS)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    rows = rows_of(model, model.bert.encoder.layer[-1].intermediate, LENGTHS)
    assert rows[0] == sum(LENGTHS)


@pytest.mark.parametrize("layer", [0, 1])
def test_recorded_maps_are_those_of_a_padded_batch(layer: int) -> None:
    """Of the last layer too, which is then computed whole."""
    model = tiny_classifier("bert")
    recorder = AttentionRecorder(model, layer)
    inputs = padded(random_texts(LENGTHS, seed=3))
    with recorder:
        model(**inputs)
    expected = recorder.take()
    packing = TokenPacking.on(model)
    mask = inputs["attention_mask"]
    with packing.of(mask.flatten().nonzero().squeeze(1), mask), recorder:
        model(**inputs)
    real = (mask[:, None, :, None] * mask[:, None, None, :]).bool().expand_as(expected)
    torch.testing.assert_close(recorder.take()[real], expected[real], rtol=1e-5, atol=1e-6)


def test_encoder_outside_the_attention_interface_is_left_as_it_is() -> None:
    model = tiny_classifier("deberta-v2")
    assert not TokenPacking.on(model).supported
    expected, found = packed_logits(model, LENGTHS)
    assert torch.equal(found, expected)


def test_layers_that_mind_their_neighbours_are_left_as_they_are() -> None:
    model = tiny_classifier("bert")
    mixing = model.bert.encoder.layer[0].output
    mixing.register_forward_hook(lambda _, __, output: output + output.mean(1, keepdim=True))
    assert not TokenPacking.on(model).supported
    expected, found = packed_logits(model, LENGTHS)
    assert torch.equal(found, expected)


def test_there_is_one_packing_a_classifier_and_a_copy_has_its_own() -> None:
    model = tiny_classifier("bert")
    packing = TokenPacking.on(model)
    assert TokenPacking.on(model) is packing
    other = copy.deepcopy(model)
    assert TokenPacking.on(other) is not packing
    for parameter in other.parameters():
        parameter.data.mul_(1.5)
    expected, found = packed_logits(other, LENGTHS)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(found, packed_logits(model, LENGTHS)[1], atol=1e-3)
