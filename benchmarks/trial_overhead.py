"""Where the wall time of a search's trials went, from its leaderboard.

python launch.py --search demo
python -m benchmarks.trial_overhead runs/demo-...
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from benchmarks.measuring import device, machine, show
from xlt_ray.distributed import computes_in_bf16
from xlt_ray.names import LEDGER
from xlt_ray.search.ledger import Ledger

_PARTS = {
    "training": "training",
    "evaluation": "evaluation",
    "worker's process": "startup/process",
    "imports": "startup/imports",
    "preparation, cached": "startup/preparation",
    "tokenizer": "startup/tokenizer",
    "data and views of dev texts": "startup/data",
    "model": "startup/model",
    "checkpoints and reports": "checkpoint",
}

_FIRST = 2
"""Trials that start before the machine's warm process is ready."""


def main(
    run: Annotated[Path, typer.Argument(help="Folder of a finished search.")],
    json_file: Annotated[Path | None, typer.Option("--json", help="Keep the figures.")] = None,
) -> None:
    """Break the trials' time down."""
    trials = json.loads((run / "leaderboard.json").read_text(encoding="utf-8"))
    ran = Ledger(run / LEDGER).records
    # Soups are rows of the table but no trials.
    trials = [
        trial
        for trial in trials
        if trial["trial"] in ran and trial["status"] in ("finished", "pruned")
    ]
    whole = sum(trial["seconds/total"] for trial in trials)

    def row(name: str, spent: list[float]) -> dict[str, str]:
        return {
            "part": name,
            "median seconds a trial": f"{np.median(spent):.1f}",
            "share of all trials' time": f"{sum(spent) / whole:.1%}",
        }

    parts = {name: seconds(trials, key) for name, key in _PARTS.items()}
    rest = np.array(seconds(trials, "total")) - np.sum(list(parts.values()), axis=0)
    rows = [row(name, spent) for name, spent in parts.items()]
    rows.append(row("rest: the trial's own process, placement, end", rest.tolist()))
    started = list(ran)
    later = [trial["seconds/startup"] for trial in trials if trial["trial"] in started[_FIRST:]]
    useful = np.add(parts["training"], parts["evaluation"])
    # An attempt that was interrupted counts as rest; the median trial had none.
    median = np.median(useful / seconds(trials, "total"))
    facts: dict[str, Any] = {
        "machine": machine(1, computes_in_bf16(device(), "auto")).replace(
            "1 CPU threads", "trials on one CPU thread each"
        ),
        "trials": f"{len(trials)}, {whole:.0f} s of trials in all",
        "training and evaluation": f"{useful.sum() / whole:.0%} of the trials' wall time, "
        f"{median:.0%} in the median trial",
        "start-up": f"{np.median(later):.1f} s at the median until the first step, the first "
        f"{_FIRST} trials aside",
    }
    show(f"Trials of {run.name}", rows, json_file, facts)


def seconds(trials: list[dict[str, Any]], name: str) -> list[float]:
    """A part's seconds in each trial; 0 where the part was not reached."""
    return [trial.get(f"seconds/{name}") or 0.0 for trial in trials]


if __name__ == "__main__":
    typer.run(main)
