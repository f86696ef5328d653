"""The ledger: what it keeps, and that nothing but a half-written line is lost with its process."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from xlt_ray.names import OBJECTIVE
from xlt_ray.search.ledger import Ledger, begun
from xlt_ray.search.trials import Trial, TrialStatus
from xlt_ray.training.faults import FailureKind


def metrics(evaluation: int, objective: float, **others: Any) -> dict[str, Any]:
    progress = {"evaluations": evaluation, "step": 5 * evaluation, "steps": 10}
    return {**progress, OBJECTIVE: objective, **others}


def fill(ledger: Ledger) -> None:
    ledger.begin({"name": "any"})
    ledger.start(Trial.labelled("paper"))
    ledger.evaluated("paper", metrics(1, 0.5, time_total_s=10.0))
    ledger.start(Trial.labelled("01", {"method.push_margin": None}))
    ledger.evaluated("paper", metrics(2, 0.6, **{"test/accuracy/mean": 0.4, "time_total_s": 20.0}))
    ledger.end("paper", TrialStatus.FINISHED)
    ledger.evaluated("01", metrics(1, 0.55))
    ledger.end("01", TrialStatus.FAILED, "ActorDiedError: gone")


def test_records_are_read_back(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "trials.jsonl")
    fill(ledger)
    again = Ledger(tmp_path / "trials.jsonl")
    assert again.records == ledger.records and again.search == {"name": "any"}
    again.begin({"name": "another"})
    again.begin({"name": "another"})
    assert begun(tmp_path / "trials.jsonl") == {"name": "another"}
    paper, first = again.records["paper"], again.records["01"]
    assert (paper.status, paper.ended, paper.seconds) == ("finished", True, 20.0)
    assert [evaluation[OBJECTIVE] for evaluation in paper.evaluations] == [0.5, 0.6]
    assert (first.status, first.ended, first.reason) == (
        TrialStatus.FAILED,
        False,
        "ActorDiedError: gone",
    )


def test_a_file_cut_off_anywhere_has_all_that_came_before(tmp_path: Path) -> None:
    file = tmp_path / "trials.jsonl"
    fill(Ledger(file))
    content = file.read_bytes()
    for size in range(len(content)):
        file.write_bytes(content[:size])
        ledger = Ledger(file)
        assert file.read_bytes() == content[: content[:size].rfind(b"\n") + 1]
        tested = content.index(b"test/accuracy") < file.stat().st_size
        assert ("paper" in ledger.records and ledger.records["paper"].ended) == tested
        ledger.begin({"name": "any"})
        assert Ledger(file).search == {"name": "any"}


def test_an_evaluation_counts_once_and_one_in_between_does_not(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "trials.jsonl")
    ledger.start(Trial.labelled("01"))
    assert not ledger.evaluated("01", metrics(0, float("-inf")))
    assert ledger.evaluated("01", metrics(1, 0.5))
    assert not ledger.evaluated("01", metrics(1, 0.7))
    assert ledger.evaluated("01", metrics(2, 0.6))
    assert not ledger.evaluated("01", metrics(1, 0.7))
    assert [evaluation[OBJECTIVE] for evaluation in ledger.records["01"].evaluations] == [0.5, 0.6]


def test_the_test_evaluation_counts_after_a_forced_change_left_fewer_before_it(
    tmp_path: Path,
) -> None:
    ledger = Ledger(tmp_path / "trials.jsonl")
    tested = metrics(2, 0.6) | {"test/accuracy/mean": 0.7}
    for evaluation in (1, 2, 3):
        ledger.start(Trial.labelled("01"))
        assert ledger.evaluated("01", metrics(evaluation, 0.5))
    assert ledger.evaluated("01", tested)
    assert not ledger.evaluated("01", tested)
    assert ledger.records["01"].status == TrialStatus.FINISHED


def test_nan_is_null_in_the_file_and_nan_when_read_back(tmp_path: Path) -> None:
    file = tmp_path / "trials.jsonl"
    ledger = Ledger(file)
    ledger.start(Trial.labelled("01"))
    assert ledger.evaluated("01", metrics(1, 0.5, **{"train/loss/pull": float("nan")}))

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    [*_, last] = file.read_text(encoding="utf-8").splitlines()
    assert json.loads(last, parse_constant=refuse)["metrics"]["train/loss/pull"] is None
    assert math.isnan(Ledger(file).records["01"].metrics["train/loss/pull"])


def test_time_is_that_of_all_attempts(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "trials.jsonl")
    ledger.start(Trial.labelled("01"))
    ledger.evaluated("01", metrics(1, 0.5, time_total_s=10.0))
    ledger.start(Trial.labelled("01"))
    assert ledger.records["01"].seconds == 10.0
    ledger.evaluated("01", metrics(2, 0.6, time_total_s=7.0))
    assert Ledger(tmp_path / "trials.jsonl").records["01"].seconds == 17.0


def test_another_configuration_of_the_same_label_begins_anew(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "trials.jsonl")
    ledger.start(Trial.labelled("best-seed8", {"method.pull_weight": 1.0}))
    ledger.evaluated("best-seed8", metrics(1, 0.5))
    ledger.start(Trial.labelled("best-seed8", {"method.pull_weight": 2.0}))
    assert ledger.records["best-seed8"].evaluations == []


@pytest.mark.parametrize(
    ("reason", "ended"),
    [
        ("NonFiniteLoss: the loss term 'push' is nan, first in step 3", True),
        ("ray.exceptions.RayTaskError(OutOfMemory): out of memory with one example", True),
        ("ActorDiedError: the actor's node is gone", False),
        # Ray's word for a worker that it ended as the machine's memory ran out.
        ("ray.exceptions.OutOfMemoryError: Task was killed", False),
    ],
)
def test_what_fails_for_its_own_reasons_is_not_run_again(
    tmp_path: Path, reason: str, ended: bool
) -> None:
    ledger = Ledger(tmp_path / "trials.jsonl")
    ledger.start(Trial.labelled("01"))
    ledger.end("01", TrialStatus.FAILED, reason)
    assert ledger.records["01"].ended is ended


@pytest.mark.parametrize("failure", list(FailureKind))
def test_the_kind_of_a_failure_is_kept_whatever_its_reason(
    tmp_path: Path, failure: FailureKind
) -> None:
    ledger = Ledger(tmp_path / "trials.jsonl")
    ledger.start(Trial.labelled("01"))
    ledger.end("01", TrialStatus.FAILED, "any", failure)
    record = Ledger(tmp_path / "trials.jsonl").records["01"]
    assert record.failure is failure and record.ended is (failure is FailureKind.OUTCOME)
    ledger.start(Trial.labelled("01"))
    assert Ledger(tmp_path / "trials.jsonl").records["01"].failure is None


def test_a_ledger_of_an_older_version_is_read(tmp_path: Path) -> None:
    """It has no kinds of failures, and null for values that the paper leaves out."""
    file = tmp_path / "trials.jsonl"
    config = '{"label": "01", "method.push_margin": null}'
    file.write_text(
        '{"search": {"name": "old"}}\n'
        f'{{"trial": "01", "config": {config}}}\n'
        '{"trial": "01", "status": "failed", "reason": "NonFiniteLoss: nan"}\n'
    )
    record = Ledger(file).records["01"]
    assert record.trial == Trial.proposal(1, {"method.push_margin": None})
    assert record.failure is FailureKind.OUTCOME and record.ended


def test_reading_what_was_begun_leaves_the_file_alone(tmp_path: Path) -> None:
    """The search may be writing to it."""
    file = tmp_path / "trials.jsonl"
    assert begun(file) is None and not file.exists()
    content = b'{"search": {"name": "any"}}\n{"trial": "pa'
    file.write_bytes(content)
    assert begun(file) == {"name": "any"}
    assert file.read_bytes() == content
