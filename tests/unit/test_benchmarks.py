"""The benchmarks measure what they say, and both sides compute the same."""

from __future__ import annotations

import contextlib
import copy
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import baseline, gpu, memory, report, search_table
from benchmarks.workload import END, PAD, Workload, forward_flops, load_workload
from tests.support.core_models import padded, random_texts, tiny_classifier
from tests.support.core_toy import make_toy
from xlt_ray.config.method import MethodSpec
from xlt_ray.data.batching import pad_inputs
from xlt_ray.distributed import Workers
from xlt_ray.evaluation.predict import predict
from xlt_ray.method.objective import Objective

ROOT = Path(__file__).resolve().parents[2]
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def workload() -> Workload:
    return load_workload(None, None)


def arrays(lengths: list[int], seed: int) -> list[np.ndarray]:
    return [np.array(row) for row in random_texts(lengths, seed)]


def test_baseline_step_has_the_gradient_of_the_objective(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the authors' normaliser and unclipped, as is the baseline's way."""
    monkeypatch.setattr(baseline, "MAX_LENGTH", 16)
    monkeypatch.setattr(baseline, "PULL_LAYER", 1)
    texts, views = arrays([9, 4, 7, 5, 6, 3, 8, 2], 1), arrays([7, 4, 9, 6, 6, 3, 5, 4], 2)
    labels = torch.arange(8) % 3
    model = tiny_classifier("xlm-roberta")
    other = copy.deepcopy(model)
    model.set_attn_implementation("eager")
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", lambda *_: None)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    no_cast: Any = contextlib.nullcontext()
    baseline.ear_step(model, optimizer, texts, views, labels, PAD, no_cast)

    objective = Objective(other, MethodSpec(reduction="padded", pull_layer=1))
    inputs = pad_inputs({"input_ids": [*texts, *views]}, PAD, 16)
    tensors = {name: torch.from_numpy(array) for name, array in inputs.items() if name != "tokens"}
    objective(**tensors, labels=labels)["total"].mean().backward()
    for name, parameter in other.named_parameters():
        moved = before[name] - model.state_dict()[name]
        torch.testing.assert_close(moved, parameter.grad, rtol=1e-4, atol=1e-6)


def test_baseline_evaluation_predicts_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_classifier("bert")
    texts = arrays([9, 4, 7, 12, 3, 6], 4)
    no_cast: Any = contextlib.nullcontext()
    monkeypatch.setattr(baseline, "MAX_LENGTH", 64)
    found = baseline.evaluate(copy.deepcopy(model), [texts[:3], texts[3:]], PAD, CPU, no_cast)
    ours = predict(model, {"input_ids": texts}, pad_id=PAD, workers=Workers())
    assert np.concatenate(found).tolist() == ours.tolist()


@pytest.mark.parametrize("length", [1, 7, 32])
def test_operations_are_those_that_torch_counts(length: int) -> None:
    model = tiny_classifier("bert", layers=3)
    model.set_attn_implementation("eager")
    inputs = padded(random_texts([length] * 4, seed=1))
    with FlopCounterMode(display=False) as counter:
        model.base_model.encoder(model.base_model.embeddings(inputs["input_ids"]))
    assert forward_flops(model.config, np.full(4, length)) == counter.get_total_flops()


def test_made_up_texts_have_real_lengths_and_the_shape_of_pairs(workload: Workload) -> None:
    lengths = json.loads((ROOT / "benchmarks" / "lengths.json").read_text())
    assert [len(row) for row in workload.texts] == lengths["text"]
    vocabulary = workload.vocabulary
    kept = set(vocabulary.kept.tolist())
    assert len(vocabulary.kept) == lengths["kept"] == len(kept)
    trained = set(vocabulary.kept[: lengths["trained"]].tolist())
    rows = [*workload.texts, *workload.views]
    assert trained.issuperset(np.concatenate(rows).tolist())
    assert kept.issuperset(np.concatenate(workload.languages["sw"]).tolist())
    for row in (*rows, *workload.languages["sw"]):
        assert row[0] == 0 and (row == END).sum() == 3 and row[-1] == END


@pytest.mark.parametrize(
    ("benchmark", "options", "sides"),
    [
        ("training_step", ["--no-profile", "--no-ideas"], 3),
        ("evaluation", ["--rows", "4", "--pair-rows", "2"], 3),
    ],
)
def test_benchmark_keeps_its_figures(
    benchmark: str, options: list[str], sides: int, tmp_path: Path
) -> None:
    file = tmp_path / "measured.json"
    command = [sys.executable, "-m", f"benchmarks.{benchmark}", "tiny", *options]
    command += ["--turns", "1", "--threads", "1", "--json", str(file)]
    subprocess.run(command, check=True, cwd=ROOT, capture_output=True, timeout=300)
    measured = json.loads(file.read_text())
    ratios = [float(row["× baseline"]) for row in measured["rows"]]
    assert len(ratios) == sides and ratios[0] == 1.0 and min(ratios) > 0
    assert {"title", "rows", "machine", "text", "floor"} <= measured.keys()
    assert all(cell in report.section(measured) for cell in measured["rows"][1].values())


def test_tables_replace_what_stands_between_their_markers_alone() -> None:
    page = "a\n<!-- x -->\nold\n<!-- /x -->\nb\n<!-- y -->\n<!-- /y -->\n"
    once = report.replace(page, "x", "new")
    assert once == "a\n<!-- x -->\n\nnew\n\n<!-- /x -->\nb\n<!-- y -->\n<!-- /y -->\n"
    assert report.replace(once, "x", "new") == once
    with pytest.raises(typer.BadParameter, match="<!-- z -->"):
        report.replace(page, "z", "new")


def test_a_recorded_training_has_every_dev_metric_and_ends_with_the_selected_weights(
    tmp_path: Path,
) -> None:
    toy = make_toy(tmp_path)
    changes = {"training.epochs": 2, "training.evaluations_per_epoch": 2, "method.name": "plain"}
    mean, single = (
        search_table.train(toy.spec({**changes, "training.average_last": last}), 0)
        for last in (2, 1)
    )
    assert len(mean) == len(single) == 4
    for curve in (mean, single):
        assert all(
            {"step", *search_table.OBJECTIVES, "dev/accuracy/zero_shot_mean"} <= set(report)
            for report in curve
        )
    # All dev texts are scored at the end, however few are before it.
    name = "dev/accuracy/zero_shot_mean"
    few = search_table.train(toy.spec({**changes, "data.target_dev_limit": 7}), 0)
    whole = search_table.train(toy.spec(changes), 0)
    assert few[3][name] == whole[3][name]
    assert all((7 * report[name]).is_integer() for report in few[:3])
    # One training; at its end, the mean of its last weights answers differently.
    assert mean[:3] == single[:3]
    assert mean[3] != single[3] and mean[3]["step"] == single[3]["step"]


@pytest.mark.parametrize("name", ["small micro-batches", "noise on the GPU"])
def test_checks_of_a_gpu_hold_on_a_cpu(name: str) -> None:
    """They are about the arithmetic; on a CPU they must hold all the same."""
    assert gpu.CHECKS[name](torch.device("cpu"))


def test_without_a_gpu_its_benchmark_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(typer.Exit) as ended:
        gpu.main()
    assert ended.value.exit_code == 2
    assert capsys.readouterr().err == "error: torch finds no GPU on this machine\n"


def test_a_difference_beyond_the_tolerance_is_told() -> None:
    assert gpu.near(1.001, 1.0, 0.01) == "losses differ by 1.0e-03"
    with pytest.raises(AssertionError, match=r"1\.1 instead of 1\.0"):
        gpu.near(1.1, 1.0, 0.01)


@pytest.mark.parametrize(
    ("command", "role"),
    [
        ("ray::RayTrainWorker.execute", "training workers"),
        ("ray::TrainController", "supervisors of trials"),
        ("python -m xlt_ray.cluster.fork_server", "warm process that they are forks of"),
        ("python /home/me/launch.py --search demo", "driver"),
        ("/site-packages/ray/core/src/ray/raylet/raylet --port=1", "Ray's daemons"),
    ],
)
def test_the_memory_of_a_process_counts_for_its_role(command: str, role: str) -> None:
    assert memory.role_of(command) == role


def test_memory_is_of_the_marked_processes_alone() -> None:
    code = "x = bytearray(b'1' * 50_000_000); print(flush=True); input()"
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code, "ray::RayTrainWorker"],
            env=os.environ | {memory._MARK: mark},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for mark in ("own", "another")
    ]
    try:
        for process in started:
            assert process.stdout is not None
            process.stdout.readline()
        found, workers = memory.memory_of("own")
    finally:
        for process in started:
            process.communicate(b"\n")
    assert workers == 1 and 50e6 < found.total() < 95e6
