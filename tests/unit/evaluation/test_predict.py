"""Predictions against one text at a time; metrics against numbers worked out by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from tests.support.core_models import PAD, random_texts, tiny_classifier
from tests.support.core_workers import run_workers
from xlt_ray.distributed import Workers, computes_in_bf16
from xlt_ray.encoders.packing import TokenPacking
from xlt_ray.evaluation.predict import class_probabilities, predict

TEXTS = random_texts([3, 17, 8, 8, 30, 5, 2, 12, 40, 9, 21], seed=9)
SEGMENTS = [[int(i >= len(text) // 2) for i in range(len(text))] for text in TEXTS]


def one_by_one(model: Any, segments: bool) -> list[int]:
    found = []
    for text, segment in zip(TEXTS, SEGMENTS, strict=True):
        inputs = {"input_ids": torch.tensor([text])}
        if segments:
            inputs["token_type_ids"] = torch.tensor([segment])
        found.append(int(model(**inputs).logits.argmax()))
    return found


def inputs_of(segments: bool) -> dict[str, Any]:
    return {"input_ids": TEXTS, **({"token_type_ids": SEGMENTS} if segments else {})}


@pytest.mark.parametrize("budget", [1, 64, 10**6])
@pytest.mark.parametrize(("family", "segments"), [("bert", True), ("xlm-roberta", False)])
def test_predictions_are_those_of_one_text_at_a_time(
    family: str, segments: bool, budget: int
) -> None:
    model = tiny_classifier(family)
    expected = one_by_one(model, segments)
    assert len(set(expected)) > 1
    found = class_probabilities(
        model, inputs_of(segments), pad_id=PAD, workers=Workers(), token_budget=budget
    )
    assert found.argmax(1).tolist() == expected


def test_segments_and_dropout() -> None:
    """Segments reach the model; dropout is off meanwhile and the mode comes back."""
    model = tiny_classifier("bert")
    with torch.no_grad():
        model.bert.embeddings.token_type_embeddings.weight[1] += 5
    assert one_by_one(model, True) != one_by_one(model, False)
    model.train()
    found = [
        predict(model, inputs_of(True), pad_id=PAD, workers=Workers()).tolist() for _ in range(3)
    ]
    assert model.training
    assert found == [one_by_one(model.eval(), True)] * 3
    predict(model, inputs_of(True), pad_id=PAD, workers=Workers())
    assert not model.training


def predict_on_worker(workers: Workers) -> tuple[list[int], int]:
    """The predictions, and how many batches this worker classified."""
    model = tiny_classifier("bert")
    TokenPacking.on(model)  # its trial passes are no batches
    calls: list[int] = []
    model.register_forward_hook(lambda *_: calls.append(1))
    found = class_probabilities(
        model, inputs_of(True), pad_id=PAD, workers=workers, token_budget=64
    )
    return found.argmax(1).tolist(), len(calls)


@pytest.mark.parametrize("size", [2, 3])
def test_workers_share_the_texts_and_all_learn_the_predictions(size: int) -> None:
    expected = one_by_one(tiny_classifier("bert"), True)
    alone, batches = predict_on_worker(Workers())
    assert alone == expected
    results = run_workers(size, predict_on_worker)
    assert [found for found, _ in results] == [expected] * size
    shares = [share for _, share in results]
    assert sum(shares) == batches and max(shares) - min(shares) <= 1


def broken_on_worker(workers: Workers) -> list[list[bool]]:
    """Which probabilities of a model with weights that are not finite are NaN."""
    model = tiny_classifier("bert")
    with torch.no_grad():
        model.classifier.bias.fill_(torch.nan)
    found = class_probabilities(model, inputs_of(True), pad_id=PAD, workers=workers)
    return np.isnan(found).tolist()


def test_every_worker_sees_what_is_not_finite_on_another() -> None:
    """The maximum of NaN and a number may be the number, depending on their order and backend."""
    everything = np.full((len(TEXTS), 3), True).tolist()
    assert run_workers(2, broken_on_worker) == [everything] * 2


def test_precision_is_what_was_asked_for() -> None:
    cpu = torch.device("cpu")
    assert computes_in_bf16(cpu, "bf16") is True
    assert computes_in_bf16(cpu, "fp32") is False
    linear = torch.nn.Linear(2, 2)
    for bf16, expected in ((True, torch.bfloat16), (False, torch.float32)):
        with Workers(bf16=bf16).autocast():
            assert linear(torch.ones(1, 2)).dtype == expected
