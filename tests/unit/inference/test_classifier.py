"""The classifier against transformers, one text at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.fine_tuned import LABELS, ODD, one_by_one
from tests.support.tiny_encoder import DEFAULT_TEXTS, tiny_encoder
from xlt_ray.errors import UserError
from xlt_ray.inference.classifier import Classifier


def test_answers_are_those_of_one_text_at_a_time_in_order(single: Path) -> None:
    texts = [*DEFAULT_TEXTS, *ODD, *(text[: n * 3] for n, text in enumerate(DEFAULT_TEXTS))]
    expected = one_by_one(single, texts)
    assert len(set(expected.argmax(1))) > 1
    labels, found = Classifier.load(single, "cpu", "fp32").predict(texts)
    assert found.dtype == np.float32 and found.shape == (len(texts), 3)
    np.testing.assert_allclose(found, expected, atol=2e-5)
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-5)
    assert labels == [LABELS[best] for best in expected.argmax(1)]


def test_pairs(pair: Path) -> None:
    texts = [(one, other) for one in [*DEFAULT_TEXTS[:4], *ODD] for other in ("A book.", *ODD[:9])]
    found = Classifier.load(pair, "cpu", "fp32").predict(texts).probabilities
    np.testing.assert_allclose(found, one_by_one(pair, texts), atol=2e-5)
    swapped = Classifier.load(pair, "cpu", "fp32").predict([(b, a) for a, b in texts[:5]])
    assert np.abs(swapped.probabilities - found[:5]).max() > 0.01


def test_no_texts(single: Path) -> None:
    labels, probabilities = Classifier.load(single, "cpu").predict([])
    assert labels == [] and probabilities.shape == (0, 3)


@pytest.mark.parametrize("texts", ["a text", ["a", ("b", "c")], [("a", "b")], [("a",) * 3]])
def test_what_is_not_of_the_task_is_refused(single: Path, texts: Any) -> None:
    with pytest.raises(ValueError, match="texts: "):
        Classifier.load(single, "cpu").predict(texts)


def test_folders_without_a_classifier_are_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no model in that folder"):
        Classifier.load(tmp_path / "nowhere")
    with pytest.raises(UserError, match="was not fine-tuned"):
        Classifier.load(tiny_encoder(tmp_path / "pretrained"))
    (tmp_path / "pretrained" / "config.json").write_text("{")
    with pytest.raises(UserError, match="cannot be loaded"):
        Classifier.load(tmp_path / "pretrained")


@pytest.mark.parametrize("device", ["gpu", "cpu:x", "cuda:99"])
def test_a_device_that_is_not_there_is_told(pair: Path, device: str) -> None:
    with pytest.raises(UserError, match=f"device {device}"):
        Classifier.load(pair, device)
