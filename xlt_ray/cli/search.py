"""`xlt-ray search`: run or resume a search; the command that `launch.py` runs by default."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from xlt_ray.cli import flags
from xlt_ray.cli.launch import launch
from xlt_ray.config.loading import available_searches, load_spec, read_yaml
from xlt_ray.config.method import PAPER_METHOD, PRESETS
from xlt_ray.config.spec import SearchSpec
from xlt_ray.errors import UserError, brief
from xlt_ray.pipeline.settings import RunSettings, storage_of, tracking_of

Search = Annotated[
    str | None, typer.Option(help="A search of search_spaces/ (without .yaml), or the path of one.")
]
Resume = Annotated[
    str | None,
    typer.Option(
        help="Resume a search: its folder, such as runs/demo-20260101-120000, or its name, "
        "for the latest. Finished trials are kept."
    ),
]
Force = Annotated[
    bool,
    typer.Option(
        "--force",
        help="With --resume: resume although the spec, the data, the synonyms or the model have "
        "changed since the start.",
    ),
]
ListSearches = Annotated[bool, typer.Option("--list", help="Show the searches and exit.")]
NumTrials = Annotated[
    int | None, typer.Option(help="Number of trials; a resumed search may have more than before.")
]
TimeBudget = Annotated[
    str | None,
    typer.Option(
        metavar="DURATION",
        help="Start no more trials after this time, such as 2h, 90m or 1h30m.",
    ),
]
MaxConcurrent = Annotated[int | None, typer.Option(help="Maximum number of concurrent trials.")]
Seed = Annotated[int | None, typer.Option(help="Seed of the sampler.")]
Baselines = Annotated[
    bool,
    typer.Option(
        "--baselines",
        help="Compare with every method: plain, plain-long, rs-da, rs-rp, adv, ear and its "
        "ablations.",
    ),
]
Generalized = Annotated[
    bool,
    typer.Option(
        "--generalized",
        help="Score plain fine-tuning and the best trial on every pair of a premise language "
        "and a hypothesis language.",
    ),
]
Seeds = Annotated[
    int | None,
    typer.Option(
        metavar="K",
        help="Rerun the best configuration and each baseline with K seeds, and report mean, "
        "deviation, differences and their intervals.",
    ),
]


# Each parameter is a flag of the command line.
def search(
    search: Search = None,
    resume: Resume = None,
    force: Force = False,
    list_searches: ListSearches = False,
    dry_run: flags.DryRun = False,
    num_trials: NumTrials = None,
    time_budget: TimeBudget = None,
    max_concurrent: MaxConcurrent = None,
    seed: Seed = None,
    baselines: Baselines = False,
    generalized: Generalized = False,
    seeds: Seeds = None,
    address: flags.Address = None,
    storage: flags.Storage = "runs",
    tracking_uri: flags.TrackingUri = None,
    experiment: flags.Experiment = None,
    languages: flags.Languages = None,
    data_dir: flags.DataDir = None,
    model: flags.Model = None,
    overrides: flags.Overrides = None,
) -> None:
    """Search for the configuration of a method that transfers best across languages.

    Each trial fine-tunes a multilingual encoder on English labels. Dev data selects the trial's
    checkpoint, which is then scored once on every language's test data. MLflow records everything.
    """
    console = Console()
    if list_searches:
        show_searches(console)
        return
    chosen = flags.given(
        {
            "search.num_trials": num_trials,
            "search.time_budget": time_budget,
            "search.max_concurrent": max_concurrent,
            "search.seed": seed,
            "search.baselines": list(PRESETS) if baselines else None,
            "search.comparison_seeds": seeds,
            "assessment.generalized": generalized or None,
            "target_languages": flags.codes(languages),
            "data_dir": None if data_dir is None else str(data_dir),
            "model": model,
        }
    )
    changes = flags.spec_changes(overrides, chosen)
    folder = _resumed_folder(resume, storage, force)
    if folder is not None:
        search = search or str(folder / "search.yaml")
    storage = storage_of(folder, storage)
    if search is None:
        raise UserError("--search NAME is missing; --list shows the searches")
    spec = load_spec(search, changes)
    _check_values_are_used(spec, changes, search)
    recorded = tracking_of(folder, tracking_uri, experiment, spec.name)
    settings = RunSettings(address, storage, *recorded)
    raise typer.Exit(launch(spec, settings, console, dry_run, folder, force))


def _check_values_are_used(spec: SearchSpec, changes: Mapping[str, Any], search: str) -> None:
    """Check that no value was given for a key of the method that the search draws.

    The baselines and the paper's trial take the paper's value of such a key, so no trial would have
    the one given. Other keys, such as `training.learning_rate`, give the baselines' value.

    Raises:
        UserError: If one was.
    """
    for key, value in changes.items():
        if key in spec.search.parameters and key.removeprefix("method.") in PAPER_METHOD:
            raise UserError(
                f"{key}={brief(str(value))}: {spec.name} draws this value for its trials, so the "
                f"one given would have no effect; change search.parameters.{key}, or train one "
                f"configuration with xlt-ray train --config {search} --set {key}=..."
            )


def _resumed_folder(resume: str | None, storage: str, force: bool) -> Path | None:
    """Return the folder of the search to resume; None for a new search.

    Raises:
        UserError: If there is no such search, or `--force` comes without `--resume`.
    """
    if resume is None:
        if force:
            raise UserError("--force goes with --resume only")
        return None
    from xlt_ray.search.resume import find_folder

    return find_folder(resume, storage)


def show_searches(console: Console) -> None:
    """Print the name and the description of each search."""
    for name, path in available_searches().items():
        description = read_yaml(path).get("description", "")
        console.print(f"{name:<12} {description}", highlight=False, soft_wrap=True, markup=False)
