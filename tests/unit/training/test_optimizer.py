"""Groups of parameters and their learning rates, and what a trial with them trains."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from transformers import AutoModelForSequenceClassification, get_linear_schedule_with_warmup

from tests.support.core_toy import Toy, assert_close, train
from tests.support.families import family_encoder
from xlt_ray.config.spec import TrainingSpec
from xlt_ray.inference.export import write_model
from xlt_ray.training.build import build
from xlt_ray.training.optimizer import LearningRates, make_optimizer

CPU = torch.device("cpu")
SHORT = {"training.epochs": 1, "training.max_steps": 3, "method.name": "plain"}


def rates_by_name(toy: Toy, **recipe: Any) -> dict[str, float]:
    classifier = build(toy.spec({}), CPU).objective.classifier
    optimizer = make_optimizer(classifier, TrainingSpec(**recipe))
    rates = {p: group["lr"] for group in optimizer.param_groups for p in group["params"]}
    return {name: rates[p] for name, p in classifier.named_parameters() if p in rates}


def test_each_layer_has_the_decayed_rate_of_the_one_above(toy: Toy) -> None:
    rates = rates_by_name(toy, learning_rate=1.0, layer_decay=0.5)
    expected = {"embeddings": 0.125, "layer.0": 0.25, "layer.1": 0.5, "pooler": 1, "classifier": 1}
    for name, rate in rates.items():
        (found,) = (value for part, value in expected.items() if part in name)
        assert rate == found, name
    assert set(rates.values()) == {0.125, 0.25, 0.5, 1.0}


def test_frozen_layers_are_not_in_the_optimiser(toy: Toy) -> None:
    everything = rates_by_name(toy)
    for layers, embeddings, parts in (
        (0, True, ["embeddings"]),
        (1, False, ["layer.0"]),
        (1, True, ["embeddings", "layer.0"]),
    ):
        left = rates_by_name(toy, frozen_layers=layers, frozen_embeddings=embeddings)
        gone = everything.keys() - left.keys()
        assert gone == {name for name in everything if any(part in name for part in parts)}


def test_the_head_trains_where_layers_share_their_weights(tmp_path: Path) -> None:
    folder = family_encoder(tmp_path / "encoder", "albert")
    classifier = AutoModelForSequenceClassification.from_pretrained(folder)
    make_optimizer(classifier, TrainingSpec(frozen_layers=2, frozen_embeddings=True))
    trained = {name for name, p in classifier.named_parameters() if p.requires_grad}
    assert trained == {
        f"{module}.{part}"
        for module in ("albert.pooler", "classifier")
        for part in ("weight", "bias")
    }


@pytest.mark.parametrize(("share", "warm"), [(0.0, 0), (0.1, 1), (0.25, 3), (0.95, 10)])
def test_rates_follow_transformers_linear_schedule(share: float, warm: int) -> None:
    steps = 10
    own, other = (
        torch.optim.AdamW(
            [
                {"params": [nn.Parameter(torch.zeros(1))], "lr": 1e-3},
                {"params": [nn.Parameter(torch.zeros(1))], "lr": 4e-5},
            ]
        )
        for _ in range(2)
    )
    rates = LearningRates(own, steps, share)
    reference = get_linear_schedule_with_warmup(other, warm, steps)
    for step in range(steps):
        rates.set(step)
        found = [group["lr"] for group in own.param_groups]
        assert found == pytest.approx(reference.get_last_lr(), rel=1e-12)
        other.step()
        reference.step()


def test_warm_up_at_hand_worked_steps() -> None:
    optimizer = torch.optim.AdamW([nn.Parameter(torch.zeros(1))], lr=8.0)
    rates = LearningRates(optimizer, steps=8, warmup_share=0.5)
    found = []
    for step in range(8):
        rates.set(step)
        found.append(optimizer.param_groups[0]["lr"])
    assert found == [0, 2, 4, 6, 8, 6, 4, 2]


@pytest.mark.parametrize("embeddings", [True, False])
def test_frozen_weights_stay_bit_by_bit_with_weight_decay_too(
    toy: Toy, embeddings: bool, tmp_path: Path
) -> None:
    frozen = {"training.frozen_layers": 1, "training.frozen_embeddings": embeddings}
    changes = SHORT | frozen | {"training.weight_decay": 0.1}
    before = build(toy.spec(changes), CPU).objective.classifier.state_dict()
    run = train(toy.spec(changes), tmp_path)
    changed = {name for name, value in run.weights.items() if not torch.equal(value, before[name])}
    assert any("layer.1" in name for name in changed)
    assert any("classifier" in name for name in changed)
    assert not any("layer.0" in name for name in changed)
    assert any("embeddings" in name for name in changed) != embeddings


def test_whole_encoder_may_be_frozen(toy: Toy, tmp_path: Path) -> None:
    changes = SHORT | {"method.name": "ear", "training.frozen_layers": 2}
    changes |= {"training.frozen_embeddings": True}
    before = build(toy.spec(changes), CPU).objective.classifier.state_dict()
    run = train(toy.spec(changes), tmp_path)
    changed = {name for name, value in run.weights.items() if not torch.equal(value, before[name])}
    assert changed == {
        "bert.pooler.dense.weight",
        "bert.pooler.dense.bias",
        "classifier.weight",
        "classifier.bias",
    }


def test_recipe_with_all_keys_resumes_exactly(toy: Toy, tmp_path: Path) -> None:
    """Warm-up, layer decay, frozen layers, smoothing and an average of weights at once."""
    recipe = {
        "training.warmup_share": 0.3,
        "training.layer_decay": 0.7,
        "training.frozen_embeddings": True,
        "training.label_smoothing": 0.1,
        "training.ema_decay": 0.8,
        "training.evaluations_per_epoch": 3,
    }
    spec = toy.spec(recipe, dropout=0.1)
    whole = train(spec, tmp_path / "whole")
    resumed = train(spec, tmp_path / "resumed", resume=whole.checkpoints[1])
    assert resumed.reports == whole.reports
    assert_close(resumed.weights, whole.weights, 0)


LORA = {"training.lora_rank": 2, "training.learning_rate": 2e-2}


@pytest.mark.parametrize("method", ["ear", "adv"])
def test_lora_trains_adapters_and_leaves_plain_weights(
    toy: Toy, method: str, tmp_path: Path
) -> None:
    pytest.importorskip("peft")
    changes = LORA | {"method.name": method, "training.evaluations_per_epoch": 2}
    spec = toy.spec(changes)
    before = build(spec, CPU).objective.classifier.state_dict()
    run = train(spec, tmp_path / "whole")
    final = load_file(run.checkpoints[-1] / "model.safetensors")
    assert set(run.weights) == set(before)
    for name in (
        "bert.embeddings.word_embeddings.weight",
        "bert.encoder.layer.0.output.dense.bias",
    ):
        assert torch.equal(final[name], before[name])
    name = "bert.encoder.layer.0.attention.self.query.weight"
    assert 1 <= torch.linalg.matrix_rank(final[name] - before[name], atol=1e-6) <= 2
    # From a checkpoint between evaluations, with adapters, and from the last one, without.
    for number in (0, 2):
        resumed = train(spec, tmp_path / f"resumed-{number}", resume=run.checkpoints[number])
        assert resumed.reports[-1]["test/accuracy/de"] == run.reports[-1]["test/accuracy/de"]
        assert_close(resumed.weights, run.weights, 0)


def test_lora_exports_a_plain_transformers_folder(toy: Toy, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    from transformers import AutoModelForSequenceClassification

    changes = SHORT | LORA | {"training.trim_vocabulary": True}
    run = train(toy.spec(changes), tmp_path / "run")
    write_model(toy.spec(changes), run.checkpoints[-1] / "model.safetensors", tmp_path / "model")
    assert not list((tmp_path / "model").glob("adapter*"))
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "model")
    exported = model.state_dict()
    for name in ("classifier.weight", "bert.encoder.layer.1.output.dense.weight"):
        assert torch.equal(exported[name], run.weights[name])
