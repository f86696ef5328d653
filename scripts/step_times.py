"""Time a training step of each method of an experiment, all of them on one machine.

    python -m scripts.step_times sib200 --data-dir FOLDER --synonyms FILE

The runs of `python -m scripts.evidence` may come from several machines, so their times say nothing.
This command trains each method of the table for a few steps, one after the other, and writes the
median seconds of a step to docs/results/EXPERIMENT-times.json. `python -m scripts.results` puts
them on the page. Nothing else should run meanwhile.
"""

from __future__ import annotations

import json
import statistics
import tempfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated

import typer

from scripts.evidence import EXPERIMENTS, TABLES, Run, read_table, spec_of, train
from xlt_ray.cli.command_line import run_command_line
from xlt_ray.cli.flags import DataDir, Overrides
from xlt_ray.config.spec import SearchSpec
from xlt_ray.errors import UserError

STEPS = 8
"""Steps between two readings of the clock."""

READINGS = 3
"""Readings of a training; the first counts as warm-up."""

SHORT = {
    "training.max_steps": STEPS * READINGS,
    "training.evaluations_per_epoch": READINGS,
}
"""What makes a training short."""

FEW_TEXTS = ("data.dev_limit=1", "data.test_limit=1")
"""What leaves next to nothing to evaluate."""


def main(
    name: Annotated[str, typer.Argument(help=f"One of {', '.join(EXPERIMENTS)}.")],
    data_dir: DataDir = None,
    synonyms: Annotated[
        str | None, typer.Option(help="Synonyms as of method.view.synonyms; default: the search's.")
    ] = None,
    rounds: Annotated[int, typer.Option(help="Trainings of each method.", min=1)] = 2,
    changes: Overrides = None,
) -> None:
    """Time each method of the experiment's table."""
    spec = spec_of(name, data_dir, synonyms, [*FEW_TEXTS, *(changes or [])])
    table = TABLES / f"{name}.jsonl"
    runs = timed_runs(table)
    seconds: dict[str, list[float]] = {run.label: [] for run in runs}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(rounds):
            for run in runs:
                seconds[run.label] += step_seconds(run, spec, Path(folder))
                print(f"{run.label}: {statistics.median(seconds[run.label]):.3f} s", flush=True)
    medians = {label: round(statistics.median(found), 4) for label, found in seconds.items()}
    times_file(table).write_text(json.dumps(medians, indent=1) + "\n", encoding="utf-8")


def times_file(table: Path) -> Path:
    """The file beside a table that has the seconds of a training step by method."""
    return table.with_name(f"{table.stem}-times.json")


def timed_runs(table: Path) -> list[Run]:
    """Return one short run of each method of a table, with the values of its first row.

    Soups and the members that only they need are left out.

    Raises:
        UserError: If the table has no run.
    """
    rows = {row["label"]: row for row in reversed(read_table(table).values())}
    runs = [
        Run(label, row["seed"], {**row["values"], **SHORT})
        for label, row in rows.items()
        if "/" not in label and "members" not in row["values"]
    ]
    if not runs:
        raise UserError(f"{table}: has no run yet; make some with python -m scripts.evidence")
    return runs[::-1]


def step_seconds(run: Run, spec: SearchSpec, folder: Path) -> list[float]:
    """Train a run in a process of its own; return the seconds of a step, reading by reading."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        row = pool.submit(train, run, spec, folder).result()
    batch = spec.training.batch_size
    return [batch / one["train/examples_per_second"] for one in row["curve"][1:]]


if __name__ == "__main__":
    run_command_line(main)
