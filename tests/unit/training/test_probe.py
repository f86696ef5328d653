"""What is tried before a search starts, and what it finds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from tests.support.core_toy import MAX_LENGTH, Toy
from tests.support.tiny_encoder import tiny_encoder
from xlt_ray.config.method import PRESETS
from xlt_ray.config.task import load_task
from xlt_ray.data.sample import TaskSample, sample_rows
from xlt_ray.data.sources import read_splits
from xlt_ray.encoders.loading import EncoderInfo, check_encoder
from xlt_ray.errors import UserError
from xlt_ray.search.make_plan import make_probed_plan
from xlt_ray.search.plan import Plan
from xlt_ray.search.plan_lines import describe
from xlt_ray.training.probe import Probe, probe


def sample_of(toy: Toy) -> TaskSample:
    task = load_task(toy.folder / "task.yaml")
    return TaskSample(task, {key: sample_rows(rows) for key, rows in read_splits(task)})


def probed(plan: Plan) -> Probe:
    assert plan.probe is not None
    return plan.probe


def test_methods_whose_terms_others_include_are_not_tried(toy: Toy) -> None:
    plan = make_probed_plan(toy.spec({"search.baselines": list(PRESETS)}))
    assert probed(plan).methods == ("ear", "adv")
    assert probed(plan).tokens == MAX_LENGTH
    assert ("tried", "a training step of ear, adv and an input of 24 tokens, in") in [
        (name, text.rpartition(" in ")[0] + " in") for name, text in describe(plan)
    ]
    assert not list((toy.folder / "cache").glob("probe-*"))


def test_an_input_longer_than_the_model_s_positions_is_found(toy: Toy) -> None:
    """Were its positions counted wrongly, the longest input would show it."""
    spec = toy.spec({"training.max_length": 200})
    info = check_encoder(spec.model)
    assert info.max_length == 128
    # The tokenizer knows the limit too.
    folder = Path(spec.model)
    settings = folder / "tokenizer_config.json"
    text = settings.read_text(encoding="utf-8")
    try:
        settings.write_text(text.replace("128", "512"), encoding="utf-8")
        with pytest.raises(UserError, match=r"training\.max_length: .* fails with 200 tokens"):
            probe(spec, [spec.method], sample_of(toy), info)
    finally:
        settings.write_text(text, encoding="utf-8")


def test_broken_weights_are_found(toy: Toy, tmp_path: Path) -> None:
    model = tiny_encoder(tmp_path / "encoder")
    weights = load_file(model / "model.safetensors")
    name = next(key for key in weights if key.endswith("query.weight"))
    weights[name] = torch.full_like(weights[name], torch.nan)
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"whatever the method .*classification' is nan") as caught:
        make_probed_plan(toy.spec({"model": str(model)}))
    assert "\n" not in str(caught.value)


def test_a_model_too_large_for_this_machine_is_not_tried(
    toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = toy.spec({})
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=10**9))
    large = EncoderInfo(spec.model, "bert", 48, 64, 100, 128, parameters=500_000_000)
    found = probe(spec, [spec.method], sample_of(toy), large)
    # Four gigabytes twice a weight, and a small map.
    assert found == Probe(skipped="it takes about 4.0 GB of memory, 1.0 GB are free here")
    plan = replace(make_probed_plan(spec), probe=found)
    assert describe(plan)[-1] == ("tried", f"nothing: {found.skipped}")


def test_unknown_pieces_are_counted_by_language_without_special_tokens(
    toy: Toy, tmp_path: Path
) -> None:
    task: dict[str, Any] = {
        "name": "shares",
        "target_languages": ["de", "bn"],
        "text_columns": ["text"],
        "labels": ["yes", "no"],
        "data": {
            "files": {split: f"{split}-{{language}}.csv" for split in ("train", "dev", "test")}
        },
    }
    (tmp_path / "task.yaml").write_text(yaml.safe_dump(task), encoding="utf-8")
    texts = {"en": "The man reads", "de": "Der Mann liest", "bn": "বই The man reads বই"}
    for split in ("train", "dev", "test"):
        for language, text in texts.items():
            rows = f"text,label\n{text},yes\n{text},no\n"
            (tmp_path / f"{split}-{language}.csv").write_text(rows, encoding="utf-8")
    model = tiny_encoder(tmp_path / "encoder")
    plan = make_probed_plan(toy.spec({"task": str(tmp_path / "task.yaml"), "model": str(model)}))
    # Two of five words; the training text repeated to full length is not counted.
    assert probed(plan).unknown == {"en": 0.0, "de": 0.0, "bn": pytest.approx(0.4)}
    name, warning = describe(plan)[-1]
    assert name == "warning" and "tokenizer: bn 40.0 %; a model" in warning
