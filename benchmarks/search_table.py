"""Train at many points of a search space and keep every evaluation, for replay.

    cp search_spaces/demo.yaml FILE.yaml
    python -m benchmarks.search_table FILE.jsonl --part 0 --parts 2 &
    python -m benchmarks.search_table FILE.jsonl --part 1 --parts 2

The points are a Sobol sequence, so that any number of them covers the space evenly. What is in the
table already is not trained again. The search file stays beside its table, so that a later change
of the search does not change the replay. demo_trainings.jsonl is a table made by this;
sib200_trainings.yaml is the search of one to make, with `--data-dir FOLDER` or the hub's data.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer

from xlt_ray.cli.flags import DataDir, Overrides, given, spec_changes
from xlt_ray.config.loading import load_spec
from xlt_ray.config.space import Integer, LogUniform, Uniform
from xlt_ray.config.spec import SearchSpec
from xlt_ray.names import ZERO_SHOT_ACCURACY
from xlt_ray.search.trials import trial_spec
from xlt_ray.training.build import build

TABLE = Path(__file__).with_name("demo_trainings.jsonl")
OBJECTIVES = ("dev/accuracy/en", "dev/accuracy/en_virtual")
"""What every table has; newer ones have all dev metrics, and the zero-shot mean at the end."""


def main(
    file: Annotated[
        Path, typer.Argument(help="Table to extend; its search is in the same folder.")
    ],
    points: Annotated[int, typer.Option(help="Points of the sequence; a power of 2.")] = 64,
    part: Annotated[int, typer.Option(help="Which share of them to train here.")] = 0,
    parts: Annotated[int, typer.Option(help="Shares.")] = 1,
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 1,
    data_dir: DataDir = None,
    changes: Overrides = None,
) -> None:
    """Train the points that the table lacks."""
    torch.set_num_threads(threads)
    # The test sets are not needed; the dev sets take their place.
    own = {"data.test_limit": 1}
    own |= given({"data_dir": data_dir and str(data_dir.resolve())})
    spec = search_of(file, spec_changes(changes, own))
    for number, values in list(enumerate(sobol(spec, points)))[part::parts]:
        if file.exists() and any(
            json.loads(line)["point"] == number for line in file.read_text().splitlines()
        ):
            continue
        curve = train(trial_spec(spec, values), number)
        line = json.dumps({"point": number, "values": values, "curve": curve})
        with file.open("a", encoding="utf-8") as table:
            table.write(line + "\n")


def search_of(table: Path, changes: dict[str, Any] | None = None) -> SearchSpec:
    """The search whose trainings a table has: the YAML file of the same name."""
    return load_spec(str(table.with_suffix(".yaml")), changes)


def sobol(spec: SearchSpec, points: int) -> list[dict[str, float]]:
    """The first points of a scrambled Sobol sequence in the search space."""
    from scipy.stats import qmc

    parameters = spec.search.parameters
    unit = qmc.Sobol(len(parameters), seed=0).random(points)
    return [
        {key: from_unit(parameters[key], x) for key, x in zip(parameters, row, strict=True)}
        for row in unit
    ]


def from_unit(distribution: Any, position: float) -> float:
    """The value at a position in [0, 1] of a parameter's range."""
    low, high = distribution.low, distribution.high
    if isinstance(distribution, LogUniform):
        return float(low * (high / low) ** position)
    if isinstance(distribution, Integer):
        return min(high, low + int((high - low + 1) * position))
    assert isinstance(distribution, Uniform)
    return float(low + (high - low) * position)


def to_unit(distribution: Any, value: float) -> float:
    """The reverse of :func:`from_unit`; of whole numbers, the middle of what becomes the same."""
    low, high = distribution.low, distribution.high
    if isinstance(distribution, LogUniform):
        return float(np.log(value / low) / np.log(high / low))
    if isinstance(distribution, Integer):
        return float((value - low + 0.5) / (high - low + 1))
    return float((value - low) / (high - low))


def train(spec: SearchSpec, number: int) -> list[dict[str, float]]:
    """Run one training as a trial does.

    Returns:
        Its dev metrics after each evaluation. The last are those of the weights it selected; their
        zero-shot mean is that of all dev texts, which shows what transfers.
    """
    from xlt_ray.distributed import Workers, computes_in_bf16
    from xlt_ray.training.trainer import Trainer

    curve: list[dict[str, float]] = []

    def report(metrics: Mapping[str, float], checkpoint: Path | None) -> None:
        if OBJECTIVES[0] in metrics:
            kept = {name: metrics[name] for name in metrics if name.startswith("dev/")}
            curve.append({"step": metrics["step"], **kept})
            print(f"point {number}: {len(curve)} evaluations", flush=True)
        else:
            # At its end a trial has the scores of its selected weights, which may be a mean.
            selected = {k: v for k, v in metrics.items() if k.startswith("selected/")}
            curve[-1] |= {k.replace("selected/", "dev/", 1): v for k, v in selected.items()}
            curve[-1][f"dev/{ZERO_SHOT_ACCURACY}"] = metrics[f"test/{ZERO_SHOT_ACCURACY}"]

    device = torch.device("cpu")
    data = spec.data.model_copy(update={"target_dev_limit": None})
    everywhere = build(spec.model_copy(update={"data": data}), device).dev
    with tempfile.TemporaryDirectory() as folder:
        Trainer(
            # Scored once, at the end, as the test sets of a trial are.
            build(spec, device)._replace(test=everywhere),
            spec.training,
            selection=spec.search.objective,
            workers=Workers(bf16=computes_in_bf16(device, spec.training.precision)),
            folder=Path(folder),
            report=report,
        ).train()
    return curve


if __name__ == "__main__":
    typer.run(main)
