"""Fine-tuning: arithmetic that no split of the work changes, resuming, selection, failure."""

from __future__ import annotations

import dataclasses
import itertools
import math
import sys
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sklearn.metrics import f1_score
from transformers import AutoTokenizer

from tests.support.core_toy import (
    EXAMPLES,
    LABELS,
    SYNONYMS,
    Run,
    Toy,
    assert_close,
    make_toy,
    train,
)
from tests.support.core_workers import run_workers
from xlt_ray.config.spec import SearchSpec
from xlt_ray.data.batching import BatchSchedule
from xlt_ray.data.training_set import TrainingSet
from xlt_ray.distributed import Workers
from xlt_ray.evaluation.predict import predict
from xlt_ray.evaluation.saved_predictions import Predictions
from xlt_ray.search.make_plan import make_plan
from xlt_ray.training import trainer
from xlt_ray.training.build import build
from xlt_ray.training.faults import MemoryShortage, NonFiniteLoss, OutOfMemory

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Toy]:
    folder = tmp_path_factory.mktemp("toy")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XLT_RAY_CACHE", str(folder / "cache"))
        yield make_toy(folder)
    torch.set_num_threads(threads)


# 65 examples in batches of 16: the last batch of an epoch is one example.
UNEVEN = {"data.train_limit": 65, "training.epochs": 2}
METHODS: dict[str, dict[str, Any]] = {
    "ear": {},
    "word": {"method.pull_alignment": "word", "method.pull_weight": 20.0},
    "padded": {"method.reduction": "padded"},
    "rs-rp": {"method.name": "rs-rp", "method.view.noise_radius": 0.5},
    "adv": {"method.name": "adv", "method.view.noise_radius": 0.5},
    "recipe": {
        "training.warmup_share": 0.3,
        "training.layer_decay": 0.8,
        "training.frozen_layers": 1,
        "training.frozen_embeddings": True,
        "training.label_smoothing": 0.1,
        "training.ema_decay": 0.5,
        "training.learning_rate": 1e-2,
    },
    "lora": {"training.lora_rank": 4, "training.learning_rate": 2e-2},
}
"""What must not depend on how a batch is split."""


@pytest.fixture(scope="module")
def uneven(toy: Toy, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    return {
        name: train(toy.spec(UNEVEN | method), tmp_path_factory.mktemp("uneven"))
        for name, method in METHODS.items()
    }


@pytest.mark.parametrize("method", METHODS)
def test_accumulated_micro_batches_are_one_batch(
    toy: Toy, uneven: dict[str, Run], method: str, tmp_path: Path
) -> None:
    changes = UNEVEN | METHODS[method] | {"training.micro_batch_tokens": 60}
    micro = train(toy.spec(changes), tmp_path)
    assert_close(micro.weights, uneven[method].weights, 1e-5)
    for one, other in zip(micro.reports, uneven[method].reports, strict=True):
        assert_close(one, other, 1e-5)


def train_on_worker(
    workers: Workers, specs: dict[str, SearchSpec], folder: Path
) -> dict[str, dict[str, Any]]:
    results = {}
    for name, spec in specs.items():
        run = train(spec, folder / name, workers=workers)
        results[name] = {
            "reports": run.reports,
            "weights": {key: value.numpy() for key, value in run.weights.items()},
            "checkpoints": len(run.checkpoints),
            "imported": set(sys.modules),
        }
    return results


@pytest.fixture(scope="module")
def two_workers(
    toy: Toy, tmp_path_factory: pytest.TempPathFactory
) -> list[dict[str, dict[str, Any]]]:
    micro = UNEVEN | {"training.micro_batch_tokens": 60}
    specs = {name: toy.spec(micro | method) for name, method in METHODS.items()}
    return run_workers(2, train_on_worker, specs, tmp_path_factory.mktemp("workers"))


@pytest.mark.parametrize("method", METHODS)
def test_two_workers_train_what_one_does(
    two_workers: list[dict[str, dict[str, Any]]], uneven: dict[str, Run], method: str
) -> None:
    for result in two_workers:
        assert_close(result[method]["weights"], uneven[method].weights, 1e-5)
        for one, other in zip(result[method]["reports"], uneven[method].reports, strict=True):
            assert_close(one, other, 1e-5)
    # Two evaluations, and what is left at the end.
    assert [result[method]["checkpoints"] for result in two_workers] == [3, 0]


def test_training_imports_neither_ray_nor_mlflow(
    two_workers: list[dict[str, dict[str, Any]]],
) -> None:
    for results in two_workers:
        for result in results.values():
            assert {"xlt_ray.method.objective", "xlt_ray.training.trainer"} <= result["imported"]
            assert not {"ray", "mlflow", "optuna"} & result["imported"]


def test_uneven_runs_move_the_weights_and_not_alike(toy: Toy, uneven: dict[str, Run]) -> None:
    """Equality of runs would say nothing if they all stood still, or were one run."""
    before = build(toy.spec(UNEVEN), CPU)[0].classifier.state_dict()
    for run in uneven.values():
        moved = {name: (value - before[name]).abs().max() for name, value in run.weights.items()}
        assert max(moved.values()) > 1e-2
    for one, other in itertools.combinations(uneven.values(), 2):
        apart = {
            name: (value - other.weights[name]).abs().max() for name, value in one.weights.items()
        }
        assert max(apart.values()) > 1e-4


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_optimiser_steps_follow_the_recipe(toy: Toy, weight_decay: float, tmp_path: Path) -> None:
    """A loop by hand: every batch padded to the full length, torch's own AdamW, lr to 0."""
    spec = toy.spec(
        {
            "method.name": "plain",
            "training.epochs": 2,
            "training.max_steps": 8,
            "training.weight_decay": weight_decay,
            "training.gradient_clip": 0.25,
        }
    )
    run = train(spec, tmp_path)
    recipe = spec.training
    objective, training_set, _, _ = build(spec, CPU)
    model = objective.classifier.train()
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=1.0,  # set below at every step
        betas=(0.9, 0.999),
        eps=recipe.adam_epsilon,
        weight_decay=weight_decay,
        foreach=False,
    )
    plan = BatchSchedule(training_set.lengths, recipe.batch_size, 2, 8, recipe.seed)
    losses, norms = [], []
    for step, epoch, batch in plan.batches():
        inputs = training_set.batch(batch, epoch, CPU)
        labels = inputs.pop("labels")
        del inputs["tokens"]
        missing = recipe.max_length - inputs["input_ids"].size(1)
        inputs = {k: torch.nn.functional.pad(v, (0, missing)) for k, v in inputs.items()}
        loss = torch.nn.functional.cross_entropy(model(**inputs).logits, labels)
        optimizer.zero_grad()
        loss.backward()
        gradients = [p.grad for p in model.parameters()]
        norm = math.sqrt(sum(gradient.square().sum().item() for gradient in gradients))
        for gradient in gradients:
            gradient.mul_(min(1.0, recipe.gradient_clip / norm))
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate * (1 - step / 8)
        optimizer.step()
        losses.append(loss.item() * len(batch))
        norms.append(norm)
    assert min(norms) < recipe.gradient_clip < max(norms), norms  # some are clipped, some not
    # 8 steps of a 6-step epoch: evaluated after step 8 only.
    assert [report["step"] for report in run.reports] == [8, 8]
    assert run.reports[0]["train/loss/classification"] == pytest.approx(sum(losses) / 128, rel=1e-5)
    assert_close(load_file(run.checkpoints[-1] / "model.safetensors"), model.state_dict(), 1e-5)


DROPOUT = {"training.epochs": 3, "training.evaluations_per_epoch": 2}


@pytest.fixture(scope="module")
def undisturbed(toy: Toy, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return train(toy.spec(DROPOUT, dropout=0.1), tmp_path_factory.mktemp("undisturbed"))


@pytest.mark.parametrize("evaluation", [1, 3, 6])
def test_resumed_training_repeats_the_undisturbed_exactly(
    toy: Toy, undisturbed: Run, evaluation: int, tmp_path: Path
) -> None:
    resumed = train(
        toy.spec(DROPOUT, dropout=0.1),
        tmp_path,
        resume=undisturbed.checkpoints[evaluation - 1],
    )
    # What it had reported before, it reports again.
    assert resumed.reports == undisturbed.reports
    assert_close(resumed.weights, undisturbed.weights, 0)
    for own, other in zip(resumed.checkpoints, undisturbed.checkpoints[evaluation:], strict=True):
        name = "model.safetensors"
        assert_close(load_file(own / name), load_file(other / name), 0)


@pytest.mark.parametrize("step", [2, 8])
def test_a_warning_gets_a_checkpoint_at_once_that_training_goes_on_from_exactly(
    toy: Toy, undisturbed: Run, step: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Before the first evaluation, and between two later ones."""
    monkeypatch.setattr(trainer, "STEPS_BETWEEN_WARNINGS", step)
    spec = toy.spec(DROPOUT, dropout=0.1)
    answers = iter([True])
    warned = train(spec, tmp_path / "warned", preempted=lambda: next(answers, False))
    (number,) = (n for n, report in enumerate(warned.reports) if "faults/preempted" in report)
    told = warned.reports.pop(number)
    evaluations = (step - 1) // 3
    assert (told["step"], told["evaluations"], number) == (step, evaluations, evaluations)
    # It goes on undisturbed where the node is not taken away after all.
    assert warned.reports == undisturbed.reports
    resumed = train(spec, tmp_path / "resumed", resume=warned.checkpoints[number])
    assert_close(resumed.weights, undisturbed.weights, 0)
    for own, other in zip(resumed.reports, undisturbed.reports, strict=True):
        # The means of the loss since the last evaluation are those since the checkpoint.
        scores = {k: v for k, v in own.items() if not k.startswith("train/")}
        assert scores == {k: v for k, v in other.items() if not k.startswith("train/")}


def test_same_seed_same_metrics_another_seed_others(
    toy: Toy, undisturbed: Run, tmp_path: Path
) -> None:
    again = train(toy.spec(DROPOUT, dropout=0.1), tmp_path / "again")
    assert again.reports == undisturbed.reports
    assert_close(again.weights, undisturbed.weights, 0)
    other = train(toy.spec(DROPOUT | {"training.seed": 8}, dropout=0.1), tmp_path / "other")
    assert other.curve("train/loss/total") != undisturbed.curve("train/loss/total")


def test_reports_have_every_term_and_count_up(undisturbed: Run) -> None:
    *evaluations, last = undisturbed.reports
    assert [report["step"] for report in evaluations] == [3, 6, 9, 12, 15, 18]
    assert [report["evaluations"] for report in undisturbed.reports] == [1, 2, 3, 4, 5, 6, 7]
    best = -math.inf
    for report in evaluations:
        losses = {name: report[f"train/loss/{name}"] for name in ("robust", "push", "pull")}
        expected = report["train/loss/classification"] + sum(losses.values())  # weights are 1
        assert report["train/loss/total"] == pytest.approx(expected, rel=1e-5)
        assert report["train/embedding_distance"] > 0
        best = max(best, report["dev/accuracy/en"])
        assert report["objective"] == best
        assert not any(name.startswith("test/") for name in report)
    assert last["objective"] == best and "test/accuracy/zero_shot_mean" in last


LEARNING = {"training.learning_rate": 5e-3, "training.adam_epsilon": 1e-8}


def test_model_learns_a_separable_task(toy: Toy, tmp_path: Path) -> None:
    run = train(toy.spec(LEARNING | {"training.epochs": 12}), tmp_path)
    assert run.curve("dev/accuracy/en")[0] < 0.9 < run.curve("dev/accuracy/en")[-1]
    assert run.reports[-1]["test/accuracy/en"] > 0.9


class Turning(TrainingSet):
    """From some pass on, every label is wrong: what was learnt before is unlearnt."""

    turn = 8

    def batch(self, examples: np.ndarray, epoch: int, device: torch.device) -> dict[str, Any]:
        inputs = super().batch(examples, epoch, device)
        if epoch >= self.turn:
            inputs["labels"] = (inputs["labels"] + 1) % 2
        return inputs


class Watched(dict[str, Any]):
    """Model inputs that tell how much had been reported whenever they were read."""

    def __init__(self, inputs: Any, run: Run) -> None:
        super().__init__(inputs)
        self.run = run
        self.reads: list[int] = []

    def __getitem__(self, name: str) -> Any:
        self.reads.append(len(self.run.reports))
        return super().__getitem__(name)


MISLABELLED = 10
"""German test texts, the last ones, whose gold labels are wrong."""
UNLEARNT = LEARNING | {"method.name": "plain", "training.epochs": 16}


@dataclasses.dataclass
class Unlearnt:
    """A run whose best evaluation is one in the middle."""

    run: Run
    best: int
    """Position of that evaluation."""
    reads: list[int]
    """Number of reports before each reading of the test texts."""


def turning(spec: SearchSpec) -> tuple[Any, TrainingSet, Any, Any]:
    objective, training_set, dev, test = build(spec, CPU)
    training_set.__class__ = Turning
    # So that the languages' test accuracies differ.
    labels = test.labels.copy()
    labels[-MISLABELLED:] = 1 - labels[-MISLABELLED:]
    return objective, training_set, dev, dataclasses.replace(test, labels=labels)


@pytest.fixture(scope="module")
def unlearnt(toy: Toy, tmp_path_factory: pytest.TempPathFactory) -> Unlearnt:
    spec = toy.spec(UNLEARNT)
    objective, training_set, dev, test = turning(spec)
    run = Run()
    watched = Watched(test.inputs, run)
    test = dataclasses.replace(test, inputs=watched)
    folder = tmp_path_factory.mktemp("unlearnt")
    train(spec, folder, parts=(objective, training_set, dev, test), run=run)
    curve = run.curve("dev/accuracy/en")
    best = curve.index(max(curve))
    assert 0 < best < Turning.turn and curve[-1] < curve[best] - 0.5, curve
    return Unlearnt(run, best, watched.reads)


def test_test_split_is_read_once_after_training(unlearnt: Unlearnt) -> None:
    assert unlearnt.reads and set(unlearnt.reads) == {16}
    with_test = [any(k.startswith("test/") for k in report) for report in unlearnt.run.reports]
    assert with_test == [False] * 16 + [True]


def test_test_split_is_scored_with_the_weights_of_the_best_dev_evaluation(
    toy: Toy, unlearnt: Unlearnt
) -> None:
    run, last = unlearnt.run, unlearnt.run.reports[-1]
    assert last["best_step"] == run.reports[unlearnt.best]["step"] == 6 * (unlearnt.best + 1)
    assert last["objective"] == run.curve("dev/accuracy/en")[unlearnt.best]
    best = run.reports[unlearnt.best]
    dev = {name.removeprefix("dev/"): v for name, v in best.items() if name.startswith("dev/")}
    assert {"accuracy/en", "accuracy/de", "accuracy/en_virtual"} <= set(dev)
    assert {name: last[f"selected/{name}"] for name in dev} == dev
    selected = load_file(run.checkpoints[unlearnt.best] / "model.safetensors")
    assert_close(run.weights, selected, 0)

    objective, _, _, test = build(toy.spec(UNLEARNT), CPU)

    def accuracy(checkpoint: Path) -> float:
        objective.classifier.load_state_dict(load_file(checkpoint / "model.safetensors"))
        found = predict(objective.classifier, test.inputs, pad_id=0, workers=Workers())
        return float((found == test.labels)[test.language == 0].mean())

    assert last["test/accuracy/en"] == accuracy(run.checkpoints[unlearnt.best])
    assert accuracy(run.checkpoints[-2]) < last["test/accuracy/en"] - 0.3


def test_resuming_after_the_best_evaluation_still_selects_it(
    toy: Toy, unlearnt: Unlearnt, tmp_path: Path
) -> None:
    spec = toy.spec(UNLEARNT)
    later = unlearnt.best + 3
    checkpoint = unlearnt.run.checkpoints[later - 1]
    resumed = train(spec, tmp_path, parts=turning(spec), resume=checkpoint)
    assert resumed.reports == unlearnt.run.reports
    assert_close(resumed.weights, unlearnt.run.weights, 0)


def test_finished_training_leaves_the_selected_model_and_its_test_predictions(
    toy: Toy, unlearnt: Unlearnt
) -> None:
    run, last = unlearnt.run, unlearnt.run.reports[-1]
    assert len(run.checkpoints) == len(run.reports)
    folder = run.checkpoints[-1]
    assert {path.name for path in folder.iterdir()} == {
        "model.safetensors",
        "predictions.npz",
        "progress.json",
    }
    assert_close(load_file(folder / "model.safetensors"), run.weights, 0)

    found = Predictions.load(folder / "predictions.npz")
    assert found.languages == ("en", "de")
    lines = [
        line.split("\t")[-1]
        for language in found.languages
        for line in (toy.folder / f"test-{language}.tsv").read_text("utf-8").splitlines()
    ]
    gold = np.array([LABELS.index(label) for label in lines])
    gold[-MISLABELLED:] = 1 - gold[-MISLABELLED:]
    assert found.labels.tolist() == gold.tolist()
    correct = found.correct()
    assert [len(correct[code]) for code in found.languages] == [EXAMPLES["test"]] * 2
    for number, code in enumerate(found.languages):
        assert last[f"test/accuracy/{code}"] == pytest.approx(correct[code].mean(), abs=1e-12)
        own = found.language == number
        macro = f1_score(found.labels[own], found.predicted[own], average="macro")
        assert last[f"test/macro_f1/{code}"] == pytest.approx(macro, abs=1e-12)
        assert 0 <= last[f"test/calibration_error/{code}"] <= 1
    assert last["test/accuracy/de"] < last["test/accuracy/en"]


def test_finished_training_can_be_resumed_to_the_same_end(
    toy: Toy, unlearnt: Unlearnt, tmp_path: Path
) -> None:
    spec, finished = toy.spec(UNLEARNT), unlearnt.run.checkpoints[-1]
    resumed = train(spec, tmp_path, parts=turning(spec), resume=finished)
    assert resumed.reports[-1] == unlearnt.run.reports[-1]
    assert_close(resumed.weights, unlearnt.run.weights, 0)
    (folder,) = resumed.checkpoints
    own, other = (Predictions.load(path / "predictions.npz") for path in (folder, finished))
    assert own.predicted.tolist() == other.predicted.tolist()


def test_long_plain_fine_tuning_is_plain_fine_tuning_with_twice_the_steps(
    toy: Toy, tmp_path: Path
) -> None:
    """Also when it resumes from a checkpoint of its first half."""
    recipe = {"training.epochs": 2, "training.max_steps": 4, "training.evaluations_per_epoch": 3}
    doubled = recipe | {"training.epochs": 4, "training.max_steps": 8}
    twice = train(toy.spec(doubled | {"method.name": "plain"}), tmp_path / "twice")
    spec = toy.spec(recipe | {"method.name": "plain-long"})
    long = train(spec, tmp_path / "long")
    assert {report["steps"] for report in long.reports} == {8}
    assert long.reports[-1]["step"] == 8
    assert long.reports == twice.reports
    assert_close(long.weights, twice.weights, 0)
    assert len(long.reports) - 1 == make_plan(spec).evaluations
    resumed = train(spec, tmp_path / "resumed", resume=long.checkpoints[0])
    assert resumed.reports == long.reports
    assert_close(resumed.weights, long.weights, 0)


@pytest.mark.parametrize("name", ["ear", "plain"])
def test_loss_that_is_not_finite_is_named_and_nothing_is_reported(
    toy: Toy, name: str, tmp_path: Path
) -> None:
    spec = toy.spec({"method.name": name, "training.max_steps": 2})
    parts = build(spec, CPU)
    with torch.no_grad():
        parts[0].classifier.classifier.weight[0, 0] = math.inf
    run = Run()
    with pytest.raises(NonFiniteLoss, match=r"'classification' is (nan|inf), first in step 1$"):
        train(spec, tmp_path, parts=parts, run=run)
    assert run.reports == [] and run.checkpoints == []


def test_learning_rate_that_diverges_is_a_loss_that_is_not_finite(toy: Toy, tmp_path: Path) -> None:
    with pytest.raises(NonFiniteLoss, match=r"loss term '[a-z]+' is"):
        train(toy.spec({"training.learning_rate": 1e30}), tmp_path)


@pytest.mark.parametrize("average_last", [None, 1])
def test_weights_that_the_last_step_breaks_are_neither_scored_nor_kept(
    toy: Toy, tmp_path: Path, average_last: int | None
) -> None:
    changes = {"training.max_steps": 1, "training.average_last": average_last}
    run = Run()
    with pytest.raises(NonFiniteLoss, match=r"the weights are not finite after step 1$"):
        train(toy.spec(changes | {"training.learning_rate": 1e30}), tmp_path, run=run)
    assert run.reports == []


def test_term_that_is_not_finite_is_the_one_named(toy: Toy, tmp_path: Path) -> None:
    """A word that only views hold has no number for an embedding: the texts' own loss is fine."""
    spec = toy.spec({"training.max_steps": 1, "method.view.radius": 1.0})
    parts = build(spec, CPU)
    tokenizer = AutoTokenizer.from_pretrained(spec.model)
    views_only = sorted({word for others in SYNONYMS.values() for word in others})
    with torch.no_grad():
        rows = parts[0].classifier.get_input_embeddings().weight
        rows[tokenizer.convert_tokens_to_ids(views_only)] = math.nan
    with pytest.raises(NonFiniteLoss, match=r"loss term 'robust' is nan, first in step 1$"):
        train(spec, tmp_path, parts=parts)


def with_memory_for(
    spec: SearchSpec, tokens: int, training: bool = True
) -> tuple[Any, Any, Any, Any]:
    """A training on a device that holds a forward pass over so many tokens.

    The limit is that of passes with gradients, or that of passes which score texts.
    """
    parts = build(spec, CPU)

    def allocate(module: Any, arguments: Any, named: dict[str, Any]) -> None:
        if module.training == training and named["attention_mask"].sum() > tokens:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    parts[0].classifier.register_forward_pre_hook(allocate, with_kwargs=True)
    return parts


def test_short_memory_halves_the_micro_batches_and_changes_no_result(
    toy: Toy, uneven: dict[str, Run], tmp_path: Path
) -> None:
    spec = toy.spec(UNEVEN)
    run = train(spec, tmp_path, parts=with_memory_for(spec, 80))
    halvings = [report.pop("faults/micro_batch_halvings") for report in run.reports]
    assert halvings[0] >= 1 and halvings == sorted(halvings)
    assert_close(run.weights, uneven["ear"].weights, 1e-5)
    for own, other in zip(run.reports, uneven["ear"].reports, strict=True):
        assert_close(own, other, 1e-4)


def test_a_shortage_halves_once_also_where_steps_were_prepared_before_it(
    toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = toy.spec(UNEVEN | {"training.micro_batch_tokens": 320})
    expected = train(spec, tmp_path / "one", parts=with_memory_for(spec, 200))
    assert expected.reports[-1]["faults/micro_batch_halvings"] == 1

    def ahead(items: Iterator[trainer.Work], steps: int) -> Iterator[trainer.Work]:
        """As on a GPU, where a thread makes the micro-batches of the next steps."""
        assert steps == 0
        made: deque[trainer.Work] = deque()
        for item in items:
            made.append(item)
            if len(made) > trainer.PREFETCHED_STEPS:
                yield made.popleft()
        yield from made

    monkeypatch.setattr(trainer, "prefetch", ahead)
    prefetched = train(spec, tmp_path / "two", parts=with_memory_for(spec, 200))
    assert prefetched.reports == expected.reports
    assert_close(prefetched.weights, expected.weights, 0)


def test_training_that_goes_on_knows_how_little_memory_there_is(toy: Toy, tmp_path: Path) -> None:
    spec = toy.spec(UNEVEN)
    first = train(spec, tmp_path / "first", parts=with_memory_for(spec, 80))
    resumed = train(
        spec,
        tmp_path / "second",
        parts=with_memory_for(spec, 80),
        resume=first.checkpoints[0],
    )
    assert resumed.reports == first.reports
    assert_close(resumed.weights, first.weights, 0)


def test_want_of_memory_in_earlier_attempts_halves_the_micro_batches(
    toy: Toy, uneven: dict[str, Run], tmp_path: Path
) -> None:
    """Also where a process was killed, and could not halve them itself."""
    spec = toy.spec(UNEVEN | {"training.micro_batch_tokens": 320})
    run = train(spec, tmp_path, parts=with_memory_for(spec, 110), memory_shortages=2)
    # No more than those two: a quarter fits.
    assert {report.pop("faults/micro_batch_halvings") for report in run.reports} == {2}
    assert_close(run.weights, uneven["ear"].weights, 1e-5)


def test_evaluations_with_little_memory_end_after_a_few_attempts(
    toy: Toy, uneven: dict[str, Run], tmp_path: Path
) -> None:
    """A worker that runs out of memory while it scores texts starts again with smaller batches."""
    spec = toy.spec(UNEVEN | {"training.micro_batch_tokens": 320})
    for shortages in (0, 1):
        with pytest.raises(torch.OutOfMemoryError):
            train(
                spec,
                tmp_path / str(shortages),
                parts=with_memory_for(spec, 110, training=False),
                memory_shortages=shortages,
            )
    run = train(
        spec,
        tmp_path / "2",
        parts=with_memory_for(spec, 110, training=False),
        memory_shortages=2,
    )
    assert {report.pop("faults/micro_batch_halvings") for report in run.reports} == {2}
    assert_close(run.weights, uneven["ear"].weights, 1e-5)
    for own, other in zip(run.reports, uneven["ear"].reports, strict=True):
        assert_close(own, other, 1e-4)


def test_attempts_end_where_one_example_at_a_time_did_not_fit(toy: Toy, tmp_path: Path) -> None:
    spec = toy.spec(UNEVEN | {"training.micro_batch_tokens": 64})
    with pytest.raises(MemoryShortage, match="with one example of up to"):
        train(spec, tmp_path, memory_shortages=7)


def test_example_that_does_not_fit_alone_is_told(toy: Toy, tmp_path: Path) -> None:
    spec = toy.spec(UNEVEN)
    with pytest.raises(OutOfMemory, match=r"step 1 with one example .*; lower training.max_length"):
        train(spec, tmp_path, parts=with_memory_for(spec, 3))


def test_least_micro_batch_is_not_halved(toy: Toy, tmp_path: Path) -> None:
    spec = toy.spec(UNEVEN | {"training.micro_batch_tokens": 1})
    with pytest.raises(OutOfMemory, match="with one example"):
        train(spec, tmp_path, parts=with_memory_for(spec, 3))
