"""Searches that lose processes, memory or disk space, and resume: the real command on real Ray."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from mlflow.tracking import MlflowClient
from ray.cluster_utils import Cluster

from scripts.chaos import (
    Search,
    check,
    disturb,
    evaluations,
    leaderboard,
    prepare,
    records,
    undisturbed,
    wait_for,
)
from tests.support.recorded import runs_of
from tests.support.searching import launch, write_search
from xlt_ray.names import STATE


def test_search_that_is_interrupted_damaged_and_killed_loses_nothing(tmp_path: Path) -> None:
    """One search meets it all in turn: each start of Ray takes its time."""
    file = write_search(
        tmp_path,
        training={"epochs": 20, "evaluations_per_epoch": 1},
        search={"num_trials": 1, "max_concurrent": 2, "keep_weights": True},
    )

    def known() -> dict[str, list[int]]:
        """The steps of the evaluations in the ledger, by trial."""
        steps: dict[str, list[int]] = {"paper": [], "plain": []}
        for record in records(tmp_path):
            if "dev/accuracy/en" in record.get("metrics", {}):
                steps[record["trial"]].append(record["metrics"]["step"])
        return steps

    search = Search(tmp_path, "--search", str(file))
    assert wait_for(lambda: max(map(len, known().values())) >= 3, "three evaluations", search)
    search.process.send_signal(signal.SIGINT)
    assert search.process.wait(60) == 130, search.output()
    assert "Traceback" not in search.output(), search.output()
    for steps in known().values():
        assert steps == list(range(6, 6 * len(steps) + 1, 6))

    # As by a full disk, of one trial the last checkpoint is cut off, of the other Ray's list of
    # them. Each goes on, the first from the checkpoint before.
    victim = max(known(), key=lambda label: len(known()[label]))
    (other,) = known().keys() - {victim}
    (state,) = (tmp_path / "runs").glob("tiny-*")
    trial = state / STATE / "checkpoints" / f"trial-{victim}"
    kept = json.loads((trial / "checkpoint_manager_snapshot.json").read_text())
    _, last = (checkpoint["checkpoint_dir_name"] for checkpoint in kept["checkpoint_results"])
    os.truncate(trial / last / "optimizer.pt", 100)
    os.truncate(trial.with_name(f"trial-{other}") / "checkpoint_manager_snapshot.json", 0)

    # It goes on as it says itself, and meanwhile nobody else can make it go on.
    (command,) = re.findall("To go on: (.*)", search.output())
    arguments = command.split()[2:]
    assert arguments[0] == "--resume"
    search = Search(tmp_path, *arguments)
    assert wait_for(lambda: "2 side by side" in search.output(), "the plan", search)
    search.process.send_signal(signal.SIGSTOP)  # so that it is not over before the second comes
    second = launch(*arguments, folder=tmp_path)
    search.process.send_signal(signal.SIGCONT)
    assert second.code == 2, second.output
    assert "Traceback" not in second.errors and len(second.errors.splitlines()) == 1
    # The first news of the trial with the cut checkpoint is that it goes on from the one before.
    seen = len(known()[victim])
    assert wait_for(
        lambda: "WARNING" in search.output() and len(known()[victim]) > seen, "news of it", search
    )
    below = search.descendants()
    search.process.kill()
    search.process.wait()
    psutil.wait_procs(below, timeout=60)
    first_part = search.output()

    resumed = launch(*arguments, folder=tmp_path)
    assert resumed.code == 0, resumed.output + resumed.errors
    warned = [line for line in first_part.splitlines() if "WARNING" in line]
    assert [line.split()[2:5] for line in warned] == [[victim, "WARNING", "its"]], warned
    board = leaderboard(tmp_path)
    assert {name: row["status"] for name, row in board.items()} == dict.fromkeys(
        known(), "finished"
    )
    # MLflow has what the ledger has. None of a trial's evaluations is there twice, and at most the
    # one under way when the driver was killed is missing.
    assert list(check(tmp_path, board)) == []
    for steps in known().values():
        assert steps == sorted(set(steps)) and len(steps) >= 19 and steps[-1] == 120
    _, trials = runs_of(tmp_path, "tiny")
    assert {label: run.info.status for label, run in trials.items()} == dict.fromkeys(
        (*known(), "pretrained"), "FINISHED"
    )
    assert trials[victim].data.metrics["faults/damaged_checkpoints"] == 1
    # Finished trials leave the selected model alone.
    for label in known():
        folder = state / STATE / "checkpoints" / f"trial-{label}"
        (left,) = (path for path in folder.iterdir() if path.is_dir())
        assert not (left / "optimizer.pt").exists()
        assert (left / "model.safetensors").exists()


@pytest.mark.slow
@pytest.mark.timeout(1500)  # Three starts of Ray and six of trials, on a machine that may be busy.
def test_killed_search_goes_on_to_the_undisturbed_s_outcome(tmp_path: Path) -> None:
    """A worker, then the driver, at random moments; `python -m scripts.chaos` kills more."""
    (tmp_path / "undisturbed").mkdir()
    expected = undisturbed(tmp_path / "undisturbed")
    assert len(expected) == 3
    folder = tmp_path / "disturbed"
    folder.mkdir()
    observed = disturb(folder, prepare(folder), ["worker", "driver"], random.Random(0))
    assert [fault for fault, _ in observed.faults] == ["worker", "driver"]
    assert observed.broken + list(check(folder, expected)) == []


@pytest.mark.slow
def test_what_ray_ends_for_memory_costs_that_trial_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_search(tmp_path, search={"num_trials": 1, "max_concurrent": 1})
    # More than that is always used, so that Ray's monitor ends whatever starts.
    monkeypatch.setenv("RAY_memory_usage_threshold", "0.005")
    starved = launch("--search", str(file), folder=tmp_path)
    assert starved.code == 1, starved.output + starved.errors
    assert "Traceback" not in starved.output + starved.errors
    failed = leaderboard(tmp_path)
    assert {row["status"] for row in failed.values()} == {"failed"}
    assert starved.output.count("FAILED   the machine ran out of memory") == len(failed)
    monkeypatch.delenv("RAY_memory_usage_threshold")
    resumed = launch("--resume", "tiny", folder=tmp_path)
    assert resumed.code == 0, resumed.output + resumed.errors
    assert {row["status"] for row in leaderboard(tmp_path).values()} == {"finished"}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder that is a disk of its own."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64M", "tmpfs", str(disk)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("needs the right to mount a file system")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


@pytest.mark.slow
def test_full_disk_is_reported_and_costs_nothing_that_was_done(
    tmp_path: Path, small_disk: Path
) -> None:
    file = write_search(
        tmp_path,
        training={"epochs": 16, "evaluations_per_epoch": 1},
        search={"num_trials": 1, "max_concurrent": 1, "max_failures": 0},
        assessment={"alignment_rows": 0},
    )
    (tmp_path / "runs").symlink_to(small_disk)
    search = Search(tmp_path, "--search", str(file), "--storage", str(small_disk))
    assert wait_for(lambda: evaluations(tmp_path) >= 3, "three evaluations", search)
    with contextlib.suppress(OSError), (small_disk / "filler").open("wb", buffering=0) as filler:
        while filler.write(b"0" * 4096) == 4096:
            pass
    # What meets the full disk first is a trial, which fails, or the driver, which cannot go on.
    assert search.process.wait(300) in (1, 2), search.output()
    assert "Traceback" not in search.output(), search.output()
    assert "no space left on device" in search.output().lower()
    (small_disk / "filler").unlink()
    done = evaluations(tmp_path)
    assert done >= 3

    resumed = launch("--resume", "tiny", "--storage", str(small_disk), folder=tmp_path)
    assert resumed.code == 0, resumed.output + resumed.errors
    assert {row["status"] for row in leaderboard(tmp_path).values()} == {"finished"}
    # 16 and the test, of each of two trials, none twice.
    known = [
        (record["trial"], record["metrics"]["evaluations"])
        for record in records(tmp_path)
        if "metrics" in record
    ]
    assert sorted(known) == [(name, n) for name in ("paper", "plain") for n in range(1, 18)]


@pytest.mark.slow
def test_two_searches_at_once_keep_to_their_own(tmp_path: Path) -> None:
    file = write_search(
        tmp_path,
        search={"num_trials": 1, "max_concurrent": 1, "baselines": []},
        assessment={"alignment_rows": 0},
    )
    both = [Search(tmp_path, "--search", str(file)) for _ in range(2)]
    for search in both:
        assert search.process.wait(400) == 0, search.output()
    folders = sorted((tmp_path / "runs").iterdir())
    assert len(folders) == 2
    boards = [(folder / "leaderboard.json").read_text() for folder in folders]
    assert all('"status": "finished"' in board for board in boards)
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("tiny")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    parents = {run.info.run_id: run.info.run_name for run in runs if "trial" not in run.data.tags}
    assert sorted(parents.values()) == [folder.name for folder in folders]
    children = [run.data.tags["mlflow.parentRunId"] for run in runs if "trial" in run.data.tags]
    assert sorted(children) == sorted(parents)
    assert {run.info.status for run in runs} == {"FINISHED"}


@pytest.mark.slow
def test_beside_another_cluster_trials_that_are_stopped_give_their_cpus_back(
    tmp_path: Path,
) -> None:
    """If they did not, the search would wait for CPUs for good."""
    file = write_search(
        tmp_path,
        training={"epochs": 6, "evaluations_per_epoch": 1},
        search={
            "num_trials": 10,
            "baselines": [],
            "objective": "dev/likelihood/en",
            "early_stopping": {"enabled": True, "grace_evaluations": 1, "reduction_factor": 3},
        },
        assessment={"alignment_rows": 0},
    )
    other = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        run = launch("--search", str(file), folder=tmp_path)
    finally:
        other.shutdown()
    assert run.code == 0, run.output + run.errors
    states = [row["status"] for row in leaderboard(tmp_path).values()]
    # As many as the machine has CPUs are enough for the search to stand still.
    assert states.count("pruned") > (os.cpu_count() or 1), states
