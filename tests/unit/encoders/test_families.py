"""Encoders of many families: those that train are exported whole, the others are refused early."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from tests.support.core_toy import EXAMPLES, MAX_LENGTH, Toy, train
from tests.support.families import POSITIONS, family_encoder
from xlt_ray.encoders.loading import check_encoder
from xlt_ray.errors import UserError
from xlt_ray.evaluation.saved_predictions import Predictions
from xlt_ray.inference.export import write_model
from xlt_ray.search.make_plan import make_probed_plan
from xlt_ray.training.build import build

TRAINED = (
    "bert",
    "xlm-roberta",
    "roberta",
    "deberta-v2",
    "modernbert",
    "eurobert",
    "distilbert",
    "electra",
    "mpnet",
    "nomic_bert",
    "gte",
)
SMALL = {
    "data.train_limit": 16,
    "training.max_steps": 2,
    "training.precision": "fp32",
    "training.trim_vocabulary": True,
    "search.baselines": [],
}


def refusal(toy: Toy, model: Path, **changes: Any) -> str:
    spec = toy.spec(SMALL | {"model": str(model)} | changes)
    with pytest.raises(UserError) as caught:
        make_probed_plan(spec)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("trim", [True, False])
@pytest.mark.parametrize("family", TRAINED)
def test_a_family_is_probed_trained_exported_and_read_again(
    toy: Toy, tmp_path: Path, family: str, trim: bool
) -> None:
    """transformers alone predicts with the export what training predicted at its end."""
    model = family_encoder(tmp_path / "encoder", family)
    changes = {"model": str(model), "training.trim_vocabulary": trim}
    plan = make_probed_plan(toy.spec(SMALL | changes))
    assert plan.probe is not None
    assert (plan.probe.methods, plan.probe.tokens) == (("ear",), MAX_LENGTH)
    run = train(plan.spec, tmp_path / "run")
    last = run.checkpoints[-1]
    write_model(plan.spec, last / "model.safetensors", tmp_path / "export")

    classifier = AutoModelForSequenceClassification.from_pretrained(tmp_path / "export").eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "export")
    lines = (toy.folder / "test-de.tsv").read_text(encoding="utf-8").splitlines()
    probabilities = []
    for line in lines:
        tokens = tokenizer(*line.split("\t")[:2], truncation=True, return_tensors="pt")
        with torch.no_grad():
            probabilities.append(classifier(**tokens).logits.softmax(-1)[0].numpy())
    trained = Predictions.load(last / "predictions.npz")
    german = trained.language == trained.languages.index("de")
    assert german.sum() == len(lines) == EXAMPLES["test"]
    assert trained.probability is not None
    expected = np.array(probabilities)
    # The file keeps 1 - p in 16 bits.
    np.testing.assert_allclose(trained.probability[german], expected.max(1), atol=1e-3)
    sure = abs(expected[:, 0] - expected[:, 1]) > 2e-3
    assert (trained.predicted[german] == expected.argmax(1))[sure].all()


@pytest.mark.parametrize("family", ["fnet", "funnel", "mra", "yoso"])
def test_a_family_without_attention_maps_is_refused_and_then_trained_without_them(
    toy: Toy, tmp_path: Path, family: str
) -> None:
    model = family_encoder(tmp_path / "encoder", family)
    message = refusal(toy, model)
    assert "method ear: no attention maps: use ear-no-pull, rs-da or plain" in message
    plan = make_probed_plan(toy.spec(SMALL | {"model": str(model), "method.name": "ear-no-pull"}))
    assert plan.probe is not None
    assert plan.probe.methods == ("ear-no-pull",)
    train(plan.spec, tmp_path / "run")


@pytest.mark.parametrize("family", ["xlm", "layoutlm"])
def test_maps_that_dropout_has_changed_are_refused(toy: Toy, tmp_path: Path, family: str) -> None:
    """The two families drop attention by a function, which no hook precedes."""
    model = family_encoder(tmp_path / "encoder", family)
    message = refusal(toy, model)
    assert "method ear: no attention maps: use ear-no-pull, rs-da or plain (its maps" in message
    assert "those after dropout; attention dropout 0 would avoid that)" in message
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    key = {"xlm": "attention_dropout", "layoutlm": "attention_probs_dropout_prob"}[family]
    (model / "config.json").write_text(json.dumps(config | {key: 0.0}), encoding="utf-8")
    assert make_probed_plan(toy.spec(SMALL | {"model": str(model)})).probe is not None


def test_noise_on_bare_word_embeddings_is_pushed_apart(toy: Toy, tmp_path: Path) -> None:
    """EuroBERT's layers get the word embeddings as they are; noise joins before they are kept."""
    model = family_encoder(tmp_path / "encoder", "eurobert")
    spec = toy.spec(SMALL | {"model": str(model), "method.view.kind": "random"})
    parts = build(spec, torch.device("cpu"))
    batch = parts.training_set.batch(np.arange(4), 0, torch.device("cpu"))
    assert (parts.objective(**batch)["distance"] > 0).all()


def test_the_refusal_names_the_keys_that_bring_the_method_in(toy: Toy, tmp_path: Path) -> None:
    model = family_encoder(tmp_path / "encoder", "fnet")
    searched = {"training.learning_rate": {"distribution": "uniform", "low": 1e-5, "high": 1e-4}}
    changes: dict[str, Any] = {"method.name": "plain", "search.parameters": searched}
    assert "rs-da or plain, set search.paper_trial=false (" in refusal(toy, model, **changes)
    changes["search.paper_trial"] = False
    assert make_probed_plan(toy.spec(SMALL | {"model": str(model)} | changes)).trials == 20
    changes["search.baselines"] = ["ear"]
    assert "leave ear out of search.baselines" in refusal(toy, model, **changes)


@pytest.mark.parametrize("family", ["xmod", "nystromformer", "ibert"])
def test_a_family_that_cannot_be_trained_is_refused(toy: Toy, tmp_path: Path, family: str) -> None:
    message = refusal(toy, family_encoder(tmp_path / "encoder", family))
    assert "it fails in the first training step, whatever the method" in message


@pytest.mark.parametrize("family", ["mpnet", "roberta", "xmod", "ibert"])
def test_positions_before_the_first_token_are_not_counted(tmp_path: Path, family: str) -> None:
    """The padding token has id 1 and the first token position 2."""
    assert check_encoder(str(family_encoder(tmp_path, family))).max_length == POSITIONS - 2


def test_a_head_of_another_number_of_classes_is_replaced(toy: Toy, tmp_path: Path) -> None:
    model = family_encoder(tmp_path / "encoder", "bert")
    three = AutoModelForSequenceClassification.from_pretrained(model, num_labels=3)
    three.save_pretrained(model)
    plan = make_probed_plan(toy.spec(SMALL | {"model": str(model)}))
    run = train(plan.spec, tmp_path / "run")
    assert run.weights["classifier.weight"].shape == (2, 32)


def test_weights_of_other_sizes_than_the_configuration_are_refused(
    toy: Toy, tmp_path: Path
) -> None:
    model = family_encoder(tmp_path / "encoder", "bert")
    config = (model / "config.json").read_text(encoding="utf-8")
    (model / "config.json").write_text(
        config.replace('"intermediate_size": 64', '"intermediate_size": 48'), encoding="utf-8"
    )
    message = refusal(toy, model)
    assert "its weights do not fit its configuration" in message
    assert "64 x 32 and should be 48 x 32" in message or "is 64 and should be 48" in message
