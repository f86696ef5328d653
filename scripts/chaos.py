"""Kill parts of running searches, resume them, and check that nothing is lost or doubled.

    python -m scripts.chaos --searches 5 --kills 6
    python -m scripts.chaos --searches 2 --kills 4 --nodes

The script runs a small search undisturbed. It then repeats the search; a seeded random generator
chooses what to kill, and when. A search whose driver was killed is resumed with `--resume`. Each
must end with the undisturbed search's leaderboard, to the last digit, and with one MLflow run per
trial that has each evaluation once.

With `--nodes` the search runs on a Ray cluster of a head and two nodes on this machine. It loses
nodes, either at once or after a warning of some seconds, as spot instances do.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import random
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import psutil
import typer
from rich.console import Console

from scripts.tiny_search import ROOT, environment, write_search
from xlt_ray.names import LEDGER
from xlt_ray.report.comparison_tables import grid

Fault = Literal[
    "worker", "supervisor", "raylet", "driver", "Ctrl-C", "Ctrl-C twice", "node", "warning"
]

FAULTS: dict[Fault, str] = {
    "worker": "SIGKILL of a training worker",
    "supervisor": "SIGKILL of the process that supervises a trial",
    "raylet": "SIGKILL of the node's Ray daemon",
    "driver": "SIGKILL of the driver",
    "Ctrl-C": "SIGINT",
    "Ctrl-C twice": "SIGINT, and again",
}
NODE_FAULTS: dict[Fault, str] = {
    "node": "node lost while it trains",
    "warning": "node lost after a warning",
    "driver": "SIGKILL of the driver",
}
_PROCESSES: dict[Fault, str] = {
    "worker": "ray::RayTrainWorker",
    "supervisor": "ray::TrainController",
    "raylet": "raylet/raylet",
}
"""What the command line of the process that a fault kills begins with, or holds."""
_PATIENCE_S = 600.0
_WARNING_S = 20
"""Seconds between a node's warning and its end. Of AWS it is 120."""


@dataclass
class Observed:
    """The outcome of a disturbed search."""

    faults: list[tuple[Fault, float]] = field(default_factory=list)
    """Each fault, with the seconds until the next evaluation."""
    resumes: int = 0
    """Number of resumes with `--resume`."""
    stops: list[float] = field(default_factory=list)
    """Seconds from SIGINT to the end of the process."""
    broken: list[str] = field(default_factory=list)
    """Invariants that do not hold."""


class Search:
    """The process of a search, and its output.

    Args:
        folder: Where it runs.
        arguments: Those of `launch.py`.
    """

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.folder = folder
        self._log = folder / f"launch-{len(list(folder.glob('launch-*.log')))}.log"
        with self._log.open("w", encoding="utf-8") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(ROOT / "launch.py"), *arguments],
                cwd=folder,
                env=environment(folder),
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def output(self) -> str:
        """Return the output so far."""
        return self._log.read_text(encoding="utf-8")

    def find(self, fault: Fault) -> list[psutil.Process]:
        """Return the processes that a fault would kill."""
        if fault not in _PROCESSES:
            return [psutil.Process(self.process.pid)]
        found = []
        for child in self.descendants():
            try:
                if _PROCESSES[fault] in " ".join(child.cmdline()):
                    found.append(child)
            except psutil.NoSuchProcess:
                continue
        return found

    def descendants(self) -> list[psutil.Process]:
        """Return all child processes, recursively."""
        try:
            return psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []


class Nodes:
    """A Ray cluster of a head without cores and two nodes of one, on this machine."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as free:
            port = free.getsockname()[1]
        head = {"num_cpus": 0, "include_dashboard": True, "dashboard_port": port}
        self._cluster = Cluster(initialize_head=True, head_node_args=head)
        self._nodes = [self._cluster.add_node(num_cpus=1) for _ in range(2)]
        self._cluster.wait_for_nodes()
        self.address = self._cluster.address

    def lose(self, warned: bool) -> bool:
        """Remove the node that trains and add another.

        Args:
            warned: Whether Ray gets a warning some seconds before.

        Returns:
            Whether there was one.
        """
        node = next((node for node in self._nodes if self._trains(node)), None)
        if node is None:
            return False
        if warned:
            subprocess.run(
                [
                    *(str(Path(sys.executable).with_name("ray")), "drain-node"),
                    *("--address", self.address, "--node-id", node.node_id),
                    *("--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "chaos"),
                    *("--deadline-remaining-seconds", str(_WARNING_S)),
                ],
                check=True,
                capture_output=True,
            )
            time.sleep(_WARNING_S)
        self._cluster.remove_node(node, allow_graceful=False)
        self._nodes.remove(node)
        self._nodes.append(self._cluster.add_node(num_cpus=1))
        return True

    def stop(self) -> None:
        """End it."""
        self._cluster.shutdown()

    @staticmethod
    def _trains(node: Any) -> bool:
        raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
        return any(
            "ray::RayTrainWorker" in " ".join(child.cmdline())
            for child in raylet.children(recursive=True)
        )


def records(folder: Path) -> list[dict[str, Any]]:
    """Return the ledger's records of the only search in a folder."""
    lines = [line for file in folder.glob(f"runs/*/{LEDGER}") for line in file.open("rb")]
    return [json.loads(line) for line in lines if line.endswith(b"\n")]


def evaluations(folder: Path) -> int:
    """Count the evaluations in the ledger."""
    return sum("metrics" in record for record in records(folder))


def wait_for(
    condition: Any, what: str, search: Search | None = None, limit_s: float = _PATIENCE_S
) -> bool:
    """Wait until a condition holds; false where the search's process ends before.

    Raises:
        TimeoutError: If neither happens.
    """
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        if condition():
            return True
        if search is not None and search.process.poll() is not None:
            return bool(condition())
        time.sleep(0.05)
    raise TimeoutError(f"{what}: not within {limit_s:.0f} s")


def disturb(
    folder: Path,
    search_file: Path,
    faults: list[Fault],
    draw: random.Random,
    nodes: Nodes | None = None,
) -> Observed:
    """Run a search to its end and inject the faults one after the other."""
    observed = Observed()
    where = ["--address", nodes.address] if nodes else []
    search = Search(folder, "--search", str(search_file), *where)
    for fault in faults:
        # At a random moment of training: from one evaluation to the next it takes about a second.
        before = evaluations(folder)
        if not wait_for(lambda n=before: evaluations(folder) > n, "an evaluation", search):
            break  # it has come to its end
        time.sleep(draw.uniform(0, 3))
        targets = search.find(fault)
        if not targets or search.process.poll() is not None:
            continue
        below = search.descendants()
        known = evaluations(folder)
        started = time.monotonic()
        if nodes is not None and fault in ("node", "warning"):
            if not nodes.lose(warned=fault == "warning"):
                continue
        else:
            _inject(fault, draw.choice(targets), search)
        if fault in ("raylet", "driver", "Ctrl-C", "Ctrl-C twice"):
            search.process.wait(_PATIENCE_S)
            if fault.startswith("Ctrl-C"):
                observed.stops.append(time.monotonic() - started)
            # Another search may begin at once; what is left of this one must not disturb it.
            psutil.wait_procs(below, timeout=60)
            search = Search(folder, "--resume", "tiny", *where)
            observed.resumes += 1
        wait_for(lambda n=known: evaluations(folder) > n, "training to go on", search)
        observed.faults.append((fault, time.monotonic() - started))
    code = search.process.wait(_PATIENCE_S)
    if code != 0:
        observed.broken.append(f"exit code {code}: {search.output()[-2000:]}")
    return observed


def _inject(fault: Fault, target: psutil.Process, search: Search) -> None:
    if fault == "Ctrl-C":
        target.send_signal(signal.SIGINT)
    elif fault == "Ctrl-C twice":
        target.send_signal(signal.SIGINT)
        try:
            search.process.wait(1)
        except subprocess.TimeoutExpired:
            target.send_signal(signal.SIGINT)
    else:
        target.kill()


def leaderboard(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the leaderboard of the only search in a folder, without times."""
    (file,) = folder.glob("runs/*/leaderboard.json")
    rows = json.loads(file.read_text(encoding="utf-8"))
    return {
        row["trial"]: {key: value for key, value in row.items() if not key.startswith("seconds/")}
        for row in rows
    }


def check(folder: Path, expected: dict[str, dict[str, Any]]) -> Iterator[str]:
    """Yield the invariants that a search broke.

    Args:
        folder: Where it ran.
        expected: The undisturbed search's leaderboard.
    """
    from mlflow.tracking import MlflowClient

    found = leaderboard(folder)
    for label in sorted(found.keys() | expected.keys()):
        if found.get(label) != expected.get(label):
            yield f"{label} is {found.get(label)}, undisturbed {expected.get(label)}"
    ended: set[str] = set()
    for record in records(folder):
        if "config" in record and record["trial"] in ended:
            yield f"{record['trial']} was run again after its end"
        if record.get("status") in ("finished", "pruned"):
            ended.add(record["trial"])
    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("tiny")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    parents = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    if len(parents) != 1:
        yield f"MLflow has {len(parents)} parent runs"
    by_label = defaultdict(list)
    for run in runs:
        if run.data.tags.get("stage") == "search" and "trial" in run.data.tags:
            by_label[run.data.tags["trial"]].append(run)
    if by_label.keys() != expected.keys():
        yield f"MLflow has trials {sorted(by_label)}"
    for label, same in by_label.items():
        if len(same) > 1:
            yield f"MLflow has {len(same)} runs of {label}"
        status = expected[label]["status"]
        if same[0].info.status != ("FINISHED" if status == "finished" else "KILLED"):
            yield f"MLflow says {same[0].info.status} of {label}, which is {status}"
        history = client.get_metric_history(same[0].info.run_id, "dev/accuracy/en")
        steps = [metric.step for metric in history]
        known = [
            record["metrics"]["step"]
            for record in records(folder)
            if record["trial" if "trial" in record else "search"] == label
            and "dev/accuracy/en" in record.get("metrics", {})
        ]
        if steps != sorted(set(steps)) or steps != known:
            yield f"MLflow has {label}'s evaluations at steps {steps}, the ledger at {known}"


def prepare(folder: Path) -> Path:
    """Write the search to disturb; it runs one trial at a time, so that its outcome is fixed."""
    return write_search(
        folder,
        training={"epochs": 20, "evaluations_per_epoch": 1},
        search={
            "num_trials": 2,
            "max_concurrent": 1,
            "max_failures": 20,
            "sampler": {"startup_trials": 1},
            "early_stopping": {"enabled": True, "grace_evaluations": 4},
        },
        assessment={"alignment_rows": 0},
    )


def undisturbed(folder: Path) -> dict[str, dict[str, Any]]:
    """Run the search without faults; return its leaderboard."""
    search = Search(folder, "--search", str(prepare(folder)))
    code = search.process.wait(_PATIENCE_S)
    assert code == 0, search.output()
    return leaderboard(folder)


def main(
    searches: Annotated[int, typer.Option(help="Searches to disturb.")] = 5,
    kills: Annotated[int, typer.Option(help="Faults in each.")] = 6,
    seed: Annotated[int, typer.Option(help="Decides what is killed, and when.")] = 0,
    nodes: Annotated[
        bool, typer.Option("--nodes", help="Lose nodes of a cluster instead of processes.")
    ] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Keep the figures.")] = None,
) -> None:
    """Disturb searches and print the outcome."""
    console = Console()
    draw = random.Random(seed)
    injected = NODE_FAULTS if nodes else FAULTS
    kinds = itertools.cycle(draw.sample(list(injected), len(injected)))
    found: dict[Fault, list[float]] = defaultdict(list)
    broken: list[str] = []
    stops: list[float] = []
    resumes = 0
    with tempfile.TemporaryDirectory(prefix="xlt-ray-chaos-") as name:
        started = time.monotonic()
        (Path(name) / "undisturbed").mkdir()
        expected = undisturbed(Path(name) / "undisturbed")
        console.print(f"undisturbed: {time.monotonic() - started:.0f} s")
        for number in range(1, searches + 1):
            folder = Path(name) / f"search-{number}"
            folder.mkdir()
            faults = [next(kinds) for _ in range(kills)]
            started = time.monotonic()
            cluster = Nodes() if nodes else None
            observed = disturb(folder, prepare(folder), faults, draw, cluster)
            if cluster is not None:
                cluster.stop()
            # What did not come to its end has no leaderboard to look at.
            observed.broken = observed.broken or list(check(folder, expected))
            for fault, seconds in observed.faults:
                found[fault].append(seconds)
            broken += observed.broken
            stops += observed.stops
            resumes += observed.resumes
            text = ", ".join(f"{fault} {seconds:.0f} s" for fault, seconds in observed.faults)
            console.print(
                f"search {number}: {time.monotonic() - started:.0f} s; {text}; "
                f"{observed.broken or 'as undisturbed'}",
                soft_wrap=True,
                highlight=False,
            )
    rows = [
        [injected[fault], str(len(times)), f"{statistics.median(times):.0f}", f"{max(times):.0f}"]
        for fault, times in found.items()
    ]
    table = grid(["fault", "injected", "seconds to go on, median", "longest"], rows)
    total = sum(map(len, found.values()))
    facts = {
        "injected": f"{total} faults into {searches} searches; {resumes} went on with `--resume`",
        "invariants broken": str(len(broken)),
        "from Ctrl-C to the end": f"{max(stops, default=0):.0f} s at most",
        "machine": f"{os.cpu_count()} CPU threads",
    }
    console.print(table, *(f"{key}: {value}" for key, value in facts.items()), sep="\n")
    if json_file is not None:
        columns = ("fault", "injected", "seconds to go on, median", "longest")
        kept = {"title": "Chaos", "rows": [dict(zip(columns, row, strict=True)) for row in rows]}
        json_file.write_text(json.dumps({**kept, **facts}, indent=2), encoding="utf-8")
    for line in broken:
        console.print(line, soft_wrap=True, highlight=False)
    raise typer.Exit(1 if broken else 0)


if __name__ == "__main__":
    typer.run(main)
