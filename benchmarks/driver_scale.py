"""What a trial costs the driver, from the first to the thousandth, with MLflow.

    python -m benchmarks.driver_scale --trials 1000

Trials report as real ones do, through Tune, to the same callbacks, sampler, pruner and MLflow
records; they train nothing. The cluster's nodes are logical.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
import zlib
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from ray.tune import Callback, Trainable

from benchmarks.measuring import machine, show
from xlt_ray.config.loading import load_spec
from xlt_ray.config.task import load_task
from xlt_ray.names import OBJECTIVE
from xlt_ray.search.make_plan import make_plan
from xlt_ray.search.plan import Plan
from xlt_ray.search.trials import LABEL

EVALUATIONS = 4
TERMS = ("classification", "robust", "push", "pull", "total")


class StubTrial(Trainable):
    """Reports what a trial does, at once.

    A class, not a function as a search's trial is: its actor can take the next trial after one
    that was stopped, so that starting a thousand processes is not what is measured.
    """

    def setup(self, config: dict[str, Any], **shared: Any) -> None:
        """Begin the process's first trial; it is given what a search's trial is."""
        self._languages = load_task(shared["spec"].task).languages
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Begin a trial."""
        self._random = np.random.default_rng(zlib.crc32(new_config[LABEL].encode()))
        self._evaluation = 0
        return True

    def step(self) -> dict[str, Any]:
        """Report an evaluation."""
        self._evaluation += 1
        trained = self._evaluation > EVALUATIONS
        split = "test" if trained else "dev"
        scores = {code: float(self._random.uniform(0.3, 0.9)) for code in self._languages}
        metrics = {f"{split}/accuracy/{code}": score for code, score in scores.items()}
        metrics |= {f"{split}/accuracy/mean": 0.5, f"{split}/accuracy/zero_shot_mean": 0.5}
        if not trained:
            metrics |= {f"train/loss/{term}": 1.0 for term in TERMS}
            metrics["train/examples_per_second"] = 10.0
        return {
            **metrics,
            "step": min(self._evaluation, EVALUATIONS),
            "steps": EVALUATIONS,
            "evaluations": self._evaluation,
            OBJECTIVE: scores["en"],
            "done": trained,
        }

    def save_checkpoint(self, checkpoint_dir: str) -> dict[str, Any]:
        """Save nothing: Tune asks at a trial's end."""
        return {}


class Watch(Callback):
    """Reads the driver's clocks and memory whenever some more trials have ended."""

    def __init__(self, every: int) -> None:
        self.every = every
        self.ended = 0
        self.readings = [self._read()]

    def _read(self) -> tuple[int, float, float, float]:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        memory = pages * os.sysconf("SC_PAGE_SIZE")
        return self.ended, time.perf_counter(), time.process_time(), memory

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Count, and read now and then."""
        self.ended += 1
        if self.ended % self.every == 0:
            self.readings.append(self._read())
            print(f"{self.ended} trials have ended", file=sys.stderr, flush=True)


def main(
    trials: Annotated[int, typer.Option(help="Trials in all.")] = 1000,
    every: Annotated[int, typer.Option(help="Trials between two readings.")] = 100,
    nodes: Annotated[int, typer.Option(help="Logical nodes of one CPU.")] = 64,
    concurrent: Annotated[int, typer.Option(help="Trials side by side.")] = 8,
    json_file: Annotated[Path | None, typer.Option("--json", help="Keep the figures.")] = None,
) -> None:
    """Measure the driver's time and memory a trial."""
    import ray

    plan = make_plan(load_spec("demo", {"search.num_trials": trials}))
    # Without an address, Ray joins any cluster that it finds on the machine.
    ray.init(address="local", num_cpus=nodes, log_to_driver=False, include_dashboard=False)
    with tempfile.TemporaryDirectory() as folder:
        watch = Watch(every)
        started = time.perf_counter()
        recorded, metrics = run(plan, trials, concurrent, Path(folder), watch)
        whole = time.perf_counter() - started
    ray.shutdown()
    rows = []
    for before, after in zip(watch.readings[:-1], watch.readings[1:], strict=True):
        count = after[0] - before[0]
        rows.append(
            {
                "trials": f"{before[0] + 1} to {after[0]}",
                "driver's CPU seconds a trial": f"{(after[2] - before[2]) / count:.3f}",
                "wall seconds a trial": f"{(after[1] - before[1]) / count:.3f}",
                "driver's memory, MB a trial": f"{(after[3] - before[3]) / count / 1e6:.2f}",
                "driver's memory, MB": f"{after[3] / 1e6:.0f}",
            }
        )
    facts: dict[str, Any] = {
        "machine": machine(os.cpu_count() or 1, bf16=False),
        "trials": f"{trials}, {concurrent} side by side on {nodes} logical nodes, "
        f"{EVALUATIONS} dev evaluations and a test evaluation each",
        "wall time": f"{whole:.0f} s, delivery to MLflow (SQLite) included; "
        f"it has {recorded:,} runs and {metrics:,} metric values",
    }
    show("The driver", rows, json_file, facts)


def run(plan: Plan, trials: int, concurrent: int, folder: Path, watch: Watch) -> tuple[int, int]:
    """Run the stub trials as a search runs its own; return MLflow's runs and metric values."""
    import sqlite3

    from xlt_ray.cluster.recording import RecordTrials
    from xlt_ray.cluster.tune import Stage, resumed_pruner, run_tune
    from xlt_ray.search.ledger import Ledger
    from xlt_ray.search.plan import parameters_of
    from xlt_ray.search.study import Study
    from xlt_ray.tracking.recorder import MlflowRecorder, TrackingSettings

    settings = TrackingSettings(f"sqlite:///{folder}/mlflow.db", "scale", folder / "tracking")
    recorder = MlflowRecorder(settings)
    recorder.start_search("scale", parameters_of(plan.spec), {})
    ledger, study = Ledger(folder / "trials.jsonl"), Study(plan.spec, folder / "study.log")
    fixed = plan.fixed_trials()[:1]
    pruner = resumed_pruner(plan, fixed, ledger)
    run_tune(
        plan,
        fixed,
        trials,
        Stage(study, ledger, pruner, concurrent, str(folder), "search"),
        callbacks=[RecordTrials(recorder, ledger, study, plan, {}), watch],
        trainable=StubTrial,
        reuse_actors=True,
    )
    delivery = recorder.finish("FINISHED", timeout_s=600)
    assert delivery.pending == 0, delivery.problem
    with sqlite3.connect(folder / "mlflow.db") as store:
        counts = [
            store.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0]
            for table in ("runs", "metrics")
        ]
    return counts[0], counts[1]


if __name__ == "__main__":
    typer.run(main)
