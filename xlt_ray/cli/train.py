"""`xlt-ray train`: run one configuration with one or several seeds."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.console import Console

from xlt_ray.cli import flags
from xlt_ray.cli.launch import launch
from xlt_ray.config.loading import load_spec, parse_overrides
from xlt_ray.errors import UserError
from xlt_ray.pipeline.settings import RunSettings
from xlt_ray.tracking.uri import default_tracking_uri

_OF_SEARCHES = tuple(
    f"search.{key}"
    for key in ("parameters", "num_trials", "baselines", "target", "time_budget", "confirmation")
)
"""Keys that need several configurations."""


# Each parameter is a flag of the command line.
def train(
    config: Annotated[
        str,
        typer.Option(
            help="The configuration: a search file such as runs/NAME-DATE/best.yaml, or a name of "
            "search_spaces/. Its search space and baselines are ignored; its own values count."
        ),
    ],
    seeds: Annotated[
        int,
        typer.Option(
            metavar="K",
            help="1: one run with the configuration's own seed. More: K runs with the seeds after "
            "its own, because its own seed may have led to its selection.",
        ),
    ] = 1,
    dry_run: flags.DryRun = False,
    max_concurrent: Annotated[
        int | None, typer.Option(help="Maximum number of concurrent runs.")
    ] = None,
    address: flags.Address = None,
    storage: flags.Storage = "runs",
    tracking_uri: flags.TrackingUri = None,
    experiment: flags.Experiment = None,
    languages: flags.Languages = None,
    data_dir: flags.DataDir = None,
    model: flags.Model = None,
    overrides: flags.Overrides = None,
) -> None:
    """Run one configuration, and show its accuracy in each language: mean ± deviation over seeds.

    The command runs a search without a search space, with the same records and the same folder. Of
    several runs, it keeps the model with the best dev score. `xlt-ray search --resume` continues a
    stopped run.
    """
    if seeds < 1:
        raise UserError(f"--seeds {seeds}: at least one seed is needed")
    for key in parse_overrides(overrides or []):
        if key.startswith(_OF_SEARCHES):
            raise UserError(f"--set {key}: train runs one configuration only; remove this key")
    # All seeds run: `best.yaml` may have the target that its search reached.
    chosen: dict[str, Any] = {
        "search.parameters": {},
        "search.baselines": [],
        "search.target": None,
        "search.time_budget": None,
        "search.confirmation": {"seeds": 0},
        "search.comparison_seeds": seeds if seeds > 1 else 0,
    }
    chosen |= flags.given(
        {
            "search.max_concurrent": max_concurrent,
            "target_languages": flags.codes(languages),
            "data_dir": None if data_dir is None else str(data_dir),
            "model": model,
        }
    )
    spec = load_spec(config, flags.spec_changes(overrides, chosen))
    uri = default_tracking_uri(tracking_uri)
    settings = RunSettings(address, storage, uri, experiment or spec.name)
    raise typer.Exit(launch(spec, settings, Console(), dry_run))
