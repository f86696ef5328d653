"""Adapters: where they are, what trains, and that merging them changes no prediction."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from tests.support.tiny_encoder import Family, tiny_encoder
from xlt_ray.encoders import lora
from xlt_ray.encoders.lora import add_lora, check_lora, merge_lora
from xlt_ray.errors import UserError

pytest.importorskip("peft")
INPUTS = {
    "input_ids": torch.tensor([[5, 6, 7, 8], [9, 10, 11, 1]]),
    "attention_mask": torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]]),
}


@pytest.fixture(params=["bert", "xlm-roberta"])
def classifier(request: pytest.FixtureRequest, tmp_path: Path) -> PreTrainedModel:
    family: Family = request.param
    tiny_encoder(tmp_path / "encoder", family)
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "encoder", num_labels=3)
    return model.eval()


def logits(model: nn.Module) -> Tensor:
    with torch.no_grad():
        return model(**INPUTS).logits


def test_adapters_change_nothing_at_first_and_train_with_the_head_alone(
    classifier: PreTrainedModel,
) -> None:
    before = logits(classifier)
    linear = [m for m in classifier.base_model.encoder.modules() if isinstance(m, nn.Linear)]
    add_lora(classifier, rank=2, seed=0)
    assert torch.equal(logits(classifier), before)
    trained = {name: p for name, p in classifier.named_parameters() if p.requires_grad}
    adapters = {name: p for name, p in trained.items() if "lora_" in name}
    # Two thin matrices for each weight: rank × (inputs + outputs).
    expected = sum(2 * (module.in_features + module.out_features) for module in linear)
    assert sum(p.numel() for p in adapters.values()) == expected
    others = trained.keys() - adapters.keys()
    assert others and all("classifier" in name or "pooler" in name for name in others)


def test_merged_weights_are_the_sum_written_out_and_predict_alike(
    classifier: PreTrainedModel,
) -> None:
    names = set(classifier.state_dict())
    query = classifier.base_model.encoder.layer[1].attention.self.query
    base = query.weight.detach().clone()
    add_lora(classifier, rank=2, seed=0)
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in classifier.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.2)
    adapted = classifier.base_model.encoder.layer[1].attention.self.query
    low, high = adapted.lora_A["default"].weight, adapted.lora_B["default"].weight
    by_hand = base + 2 * high.detach() @ low.detach()
    unmerged = logits(classifier)
    merge_lora(classifier)
    torch.testing.assert_close(logits(classifier), unmerged, rtol=1e-4, atol=1e-5)
    assert set(classifier.state_dict()) == names
    merged = classifier.base_model.encoder.layer[1].attention.self.query.weight
    torch.testing.assert_close(merged, by_hand)
    assert (merged - base).abs().max() > 1e-2


def test_frozen_layers_get_no_adapters_and_the_seed_decides_the_others(
    classifier: PreTrainedModel,
) -> None:
    drawn = []
    for seed in (3, 3, 4):
        model = copy.deepcopy(classifier)
        add_lora(model, rank=2, seed=seed, lowest=2)
        adapters = {name: p for name, p in model.named_parameters() if "lora_A" in name}
        assert adapters and all(".layer.1." in name for name in adapters)
        drawn.append(torch.cat([value.flatten() for value in adapters.values()]))
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])


def test_missing_package_is_an_error_that_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    check_lora()
    monkeypatch.setattr(lora.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        UserError, match=r"training.lora_rank.*pip install -c constraints.txt -e '\.\[lora\]'"
    ):
        check_lora()
