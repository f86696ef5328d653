"""The parts of a trial, built from its spec."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from tests.support.core_toy import EXAMPLES, Toy
from xlt_ray.method import synonyms
from xlt_ray.training.build import build
from xlt_ray.training.telemetry import Stopwatch

CPU = torch.device("cpu")


def test_parts_have_every_split_and_language(toy: Toy) -> None:
    parts = build(toy.spec({}), CPU)
    assert len(parts.training_set.lengths) == EXAMPLES["train"]
    assert (parts.dev.languages[:2], parts.test.languages) == (("en", "de"), ("en", "de"))
    for data, split in ((parts.dev, "dev"), (parts.test, "test")):
        assert np.bincount(data.language)[:2].tolist() == [EXAMPLES[split]] * 2
    # The dev set has the synonym views of the English texts as well.
    assert parts.dev.languages[2:] == ("en_virtual",)
    assert parts.objective.classifier.device == CPU


def test_the_seed_decides_the_head_and_nothing_else(toy: Toy) -> None:
    one, same, other = (
        build(toy.spec({"training.seed": seed}), CPU).objective.classifier.state_dict()
        for seed in (1, 1, 2)
    )
    assert all(torch.equal(one[name], same[name]) for name in one)
    differing = [name for name in one if not torch.equal(one[name], other[name])]
    assert differing and all(name.startswith("classifier") for name in differing)


@pytest.mark.parametrize("method", ["plain", "ear", "rs-da", "rs-rp", "adv"])
def test_synonyms_are_loaded_once(toy: Toy, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    load = synonyms.load_synonyms

    def counted(source: Any) -> Any:
        calls.append(source)
        return load(source)

    monkeypatch.setattr(synonyms, "load_synonyms", counted)
    spec = toy.spec({"method.name": method})
    build(spec, CPU)
    assert calls == [spec.method.view.synonyms]


def test_the_clock_gets_every_part_of_the_start(toy: Toy) -> None:
    clock = Stopwatch()
    build(toy.spec({}), CPU, clock)
    assert set(clock.seconds) == {"imports", "preparation", "tokenizer", "data", "model"}
    assert all(seconds >= 0 for seconds in clock.seconds.values())
