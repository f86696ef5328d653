"""How much memory a search takes, and which of its processes take it.

python -m benchmarks.memory -- --search demo

Runs `launch.py` with the given flags and samples the proportional set size (PSS) of every process
that it brings about: a page that several processes share counts once in the sum. Linux only.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
import uuid
from collections import Counter
from pathlib import Path
from typing import Annotated

import psutil
import typer

from benchmarks.measuring import device, machine, show
from xlt_ray.distributed import computes_in_bf16

_MARK = "XLT_RAY_MEMORY_BENCHMARK"
"""Environment variable by which the processes of the run are known, whoever their parent is."""
_SECONDS = 1.0
"""Time between two samples."""

_ROLES = {
    "training workers": ("ray::RayTrainWorker",),
    "supervisors of trials": ("ray::TrainController", "ray::ImplicitFunc"),
    "other processes of trials": (
        *("ray::PlacementGroupCleaner", "ray::PreemptionWatcher", "ray::DatasetManager"),
        *("ray::SynchronizationActor", "ray::_QueueActor", "ray::IDLE"),
    ),
    "warm process that they are forks of": ("xlt_ray.cluster.fork_server",),
    "driver": ("launch.py",),
}
"""What the command line of a role's processes holds; the rest are Ray's daemons."""


def main(
    flags: Annotated[list[str], typer.Argument(help="Flags of launch.py.")],
    json_file: Annotated[Path | None, typer.Option("--json", help="Keep the figures.")] = None,
) -> None:
    """Run a search and show the memory of its processes at the moment when they took most."""
    mark = uuid.uuid4().hex
    started = time.monotonic()
    search = subprocess.Popen(
        [sys.executable, str(Path(__file__).parents[1] / "launch.py"), *flags],
        env=os.environ | {_MARK: mark},
    )
    peak: Counter[str] = Counter()
    training: Counter[str] = Counter()
    workers = 0
    while search.poll() is None:
        sample, count = memory_of(mark)
        if sample.total() > peak.total():
            peak = sample
        # Between trials, fewer workers run.
        if count >= workers and (count > workers or sample.total() > training.total()):
            training, workers = sample, count
        time.sleep(_SECONDS)
    if search.returncode:
        raise typer.Exit(search.returncode)
    roles = [*_ROLES, "Ray's daemons"]
    rows = [
        {"processes": role, "GB": f"{training[role] / 2**30:.2f}"}
        for role in roles
        if training[role]
    ]
    rows.append({"processes": "all", "GB": f"{training.total() / 2**30:.2f}"})
    of_trials = sum(training[role] for role in roles[:3])
    facts = {
        "machine": machine(1, computes_in_bf16(device(), "auto")).replace(
            "1 CPU threads", "trials on one CPU thread each"
        ),
        "a trial": f"{of_trials / max(workers, 1) / 2**30:.2f} GB, {workers} side by side",
        "peak of the whole search": f"{peak.total() / 2**30:.2f} GB",
        "wall time": f"{time.monotonic() - started:.0f} s",
    }
    show("Memory (PSS) while trials train", rows, json_file, facts)


def memory_of(mark: str) -> tuple[Counter[str], int]:
    """Return the bytes of each role's processes, and the number of training workers."""
    found: Counter[str] = Counter()
    workers = 0
    for process in psutil.process_iter():
        try:
            if process.environ().get(_MARK) != mark:
                continue
            command = " ".join(process.cmdline())
            used = process.memory_full_info().pss
        except psutil.Error:
            continue
        role = role_of(command)
        found[role] += used
        workers += role == "training workers"
    return found, workers


def role_of(command: str) -> str:
    """Return the role of a process by its command line."""
    for role, parts in _ROLES.items():
        if any(part in command for part in parts):
            return role
    return "Ray's daemons"


if __name__ == "__main__":
    typer.run(main)
