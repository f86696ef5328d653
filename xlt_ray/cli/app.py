"""The command line: flags, exit codes and one-line errors."""

from __future__ import annotations

import os
import shlex
import signal
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from xlt_ray.cli import commands, flags
from xlt_ray.config.loading import available_searches, load_spec, parse_overrides, read_yaml
from xlt_ray.config.method import PRESETS
from xlt_ray.config.spec import SearchSpec
from xlt_ray.errors import UserError, brief, nearest, run_command_line
from xlt_ray.pipeline.settings import Settings, check_address
from xlt_ray.storage import check_storage, is_remote, try_writing, write_problem
from xlt_ray.tracking.uri import tracking_store

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
train_app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
predict_app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

COMMANDS = {
    "search": app,
    "train": train_app,
    "evaluate": commands.evaluate_app,
    "predict": predict_app,
    "report": commands.report_app,
    "ui": commands.ui_app,
}
"""The commands; without one, what is typed are the flags of the first."""


_OTHERS = """Commands, each with a --help of its own:

xlt-ray search: this one, which may be left out

xlt-ray train: run one configuration, with one seed or several

xlt-ray evaluate: score a model on a task, in every language

xlt-ray predict: classify the texts of a file

xlt-ray report: write a search's report again

xlt-ray ui: look at what was recorded"""


@app.command(epilog=_OTHERS)
def launch(
    search: Annotated[
        str | None,
        typer.Option(help="A search of search_spaces/ (without .yaml), or the path of one."),
    ] = None,
    resume: Annotated[
        str | None,
        typer.Option(
            help="Go on with a search: its folder, such as runs/demo-20260101-120000, or its name, "
            "for the latest. What had ended stays."
        ),
    ] = None,
    force: Annotated[
        bool,
        typer.Option("--force", help="With --resume: go on although the search changed meanwhile."),
    ] = False,
    list_searches: Annotated[
        bool, typer.Option("--list", help="Show the searches and exit.")
    ] = False,
    dry_run: flags.DryRun = False,
    num_trials: Annotated[int | None, typer.Option(help="Trials of the search.")] = None,
    max_concurrent: Annotated[int | None, typer.Option(help="Trials side by side at most.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the sampler.")] = None,
    baselines: Annotated[
        bool,
        typer.Option(
            "--baselines",
            help="Compare with every method: plain, rs-da, rs-rp, adv, ear and its ablations.",
        ),
    ] = False,
    generalized: Annotated[
        bool,
        typer.Option(
            "--generalized",
            help="Score plain fine-tuning and the best trial on every pair of a premise language "
            "and a hypothesis language.",
        ),
    ] = False,
    seeds: Annotated[
        int | None,
        typer.Option(
            metavar="K",
            help="Run the best configuration and each baseline anew with K seeds, and report mean, "
            "deviation, differences and their intervals.",
        ),
    ] = None,
    address: flags.Address = None,
    storage: flags.Storage = "runs",
    tracking_uri: flags.TrackingUri = None,
    experiment: flags.Experiment = None,
    data_dir: flags.DataDir = None,
    model: flags.Model = None,
    overrides: flags.Overrides = None,
) -> None:
    """Search for the configuration of a method that transfers best across languages.

    Each trial fine-tunes a multilingual encoder on English labels, is selected on dev data and
    scored once on every language's test data; MLflow records all of it.
    """
    console = Console()
    if list_searches:
        show_searches(console)
        return
    comparison = _given(
        {
            "search.baselines": list(PRESETS) if baselines else None,
            "search.comparison_seeds": seeds,
            "assessment.generalized": generalized or None,
        }
    )
    chosen = _given(
        {
            "search.num_trials": num_trials,
            "search.max_concurrent": max_concurrent,
            "search.seed": seed,
            "data_dir": None if data_dir is None else str(data_dir),
            "model": model,
        }
    )
    changes = _changes(overrides, chosen | comparison)
    folder = None
    if resume is not None:
        from xlt_ray.search.resume import find_folder

        folder = find_folder(resume, storage)
        search = search or str(folder / "search.yaml")
        if not is_remote(storage):
            storage = str(folder.parent)
    elif force:
        raise UserError("--force goes with --resume only")
    if search is None:
        raise UserError("--search NAME is missing; --list shows the searches")
    spec = load_spec(search, changes)
    uri = tracking_store(tracking_uri)
    settings = Settings(address, storage, uri, experiment or spec.name)
    raise typer.Exit(_launch(spec, settings, dry_run, folder, force, console))


def _given(values: dict[str, Any]) -> dict[str, Any]:
    """Keys of the spec whose flags were given."""
    return {key: value for key, value in values.items() if value is not None}


def _changes(overrides: list[str] | None, chosen: dict[str, Any]) -> dict[str, Any]:
    """What --set says and what flags of their own say, which must not both say a key."""
    changes = parse_overrides(overrides or [])
    for key in changes.keys() & chosen.keys():
        raise UserError(f"--set {key}: a flag of its own sets it too; leave one of them out")
    return changes | chosen


@train_app.command()
def train(
    config: Annotated[
        str,
        typer.Option(
            help="The configuration: a search file such as runs/NAME-DATE/best.yaml, or a name of "
            "search_spaces/. What it searches and compares with is left out; its own values count."
        ),
    ],
    seeds: Annotated[
        int,
        typer.Option(
            metavar="K",
            help="1: one run with the configuration's own seed. More: that many runs, with the "
            "seeds after its own, because it may have been chosen for what it did with that one.",
        ),
    ] = 1,
    dry_run: flags.DryRun = False,
    max_concurrent: Annotated[int | None, typer.Option(help="Runs side by side at most.")] = None,
    address: flags.Address = None,
    storage: flags.Storage = "runs",
    tracking_uri: flags.TrackingUri = None,
    experiment: flags.Experiment = None,
    data_dir: flags.DataDir = None,
    model: flags.Model = None,
    overrides: flags.Overrides = None,
) -> None:
    """Run one configuration, and show its accuracy in each language: mean ± deviation over seeds.

    It is a search that searches nothing, with the same records and the same folder. Of several
    runs the one with the best dev score is the model that is left; `--resume` of `xlt-ray search`
    goes on with one that was stopped.
    """
    if seeds < 1:
        raise UserError(f"--seeds {seeds}: at least one seed is needed")
    for key in parse_overrides(overrides or []):
        if key.startswith(("search.parameters", "search.num_trials", "search.baselines")):
            raise UserError(f"--set {key}: one configuration is run and nothing beside it")
    chosen = {
        "search.parameters": {},
        "search.baselines": [],
        "search.comparison_seeds": seeds if seeds > 1 else 0,
    }
    chosen |= _given(
        {
            "search.max_concurrent": max_concurrent,
            "data_dir": None if data_dir is None else str(data_dir),
            "model": model,
        }
    )
    spec = load_spec(config, _changes(overrides, chosen))
    uri = tracking_store(tracking_uri)
    settings = Settings(address, storage, uri, experiment or spec.name)
    raise typer.Exit(_launch(spec, settings, dry_run, None, False, Console()))


def _launch(
    spec: SearchSpec,
    settings: Settings,
    dry_run: bool,
    resumed: Path | None,
    force: bool,
    console: Console,
) -> int:
    # Ray, transformers and MLflow take seconds to import: a mistyped flag should not.
    from xlt_ray.cluster.connection import connect
    from xlt_ray.pipeline.run import new_folder, run_search
    from xlt_ray.search.ledger import begun
    from xlt_ray.search.plan import describe, make_plan_apart
    from xlt_ray.search.resume import check_unchanged
    from xlt_ray.tracking.client import check_tracking

    check_address(settings.address or os.environ.get("RAY_ADDRESS"))
    check_storage(settings.storage)
    check_tracking(settings.tracking_uri)
    plan = make_plan_apart(spec, prepared=not dry_run)
    if resumed is not None:
        check_unchanged(begun(resumed / "trials.jsonl"), plan.spec, resumed, force)
    view = Table(title=f"Search {spec.name}", show_header=False, title_justify="left")
    for what, value in describe(plan):
        view.add_row(what, value)
    console.print(view)
    if not dry_run:
        try_writing(settings.storage)
    cluster = connect(settings.address)
    # Being told to end is being stopped by hand. After `connect`, for Ray has a handler of its own.
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    concurrent = cluster.concurrent_trials(plan.spec)
    if dry_run:
        console.print(
            f"Checked. {plan.trials + plan.compared_runs} trials, {concurrent} side by side on "
            f"{cluster.cpus:g} CPU and {cluster.gpus:g} GPU. Nothing was trained.",
            soft_wrap=True,
        )
        return 0
    folder = resumed or new_folder(plan.spec, settings.storage)
    go_on = resume_command(folder, settings)
    try:
        outcome = run_search(plan, settings, console, folder)
        interrupted = outcome.interrupted
    except KeyboardInterrupt:
        interrupted = True
    except Exception as error:
        problem = write_problem(error)
        if problem is None:
            raise
        raise UserError(
            f"{folder}: {problem}; what was done is kept. Make room, then go on: {go_on}"
        ) from None
    if interrupted:
        console.print(f"Stopped. To go on: {go_on}", soft_wrap=True, highlight=False)
        return 130
    return 1 if outcome.failed else 0


def resume_command(folder: Path, settings: Settings) -> str:
    """The command that goes on with an interrupted search; credentials are left out."""
    from xlt_ray.tracking.uri import redact

    command = ["python", "launch.py", "--resume", str(folder)]
    given = {
        "--address": settings.address,
        "--storage": redact(settings.storage) if is_remote(settings.storage) else None,
        "--tracking-uri": redact(settings.tracking_uri),
        "--experiment": settings.experiment,
    }
    for flag, value in given.items():
        if value is not None:
            command += [flag, value]
    return shlex.join(command)


def show_searches(console: Console) -> None:
    """List the searches with what each is for."""
    for name, path in available_searches().items():
        description = read_yaml(path).get("description", "")
        console.print(f"{name:<12} {description}", highlight=False, soft_wrap=True)


@predict_app.command()
def predict(
    model: flags.FineTuned,
    input: Annotated[
        Path, typer.Option(help="File of texts: .tsv (no quoting), .csv or .jsonl, in UTF-8.")
    ],
    output: Annotated[
        Path,
        typer.Option(
            help="File to write, with the same ending: the rows of the input, and with each its "
            "class (predicted) and the probability of every class."
        ),
    ],
    text: Annotated[
        list[str] | None,
        typer.Option(
            metavar="COLUMN",
            help="The column of the text; twice for a pair. Default: the columns of the task.",
        ),
    ] = None,
    columns: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,NAME",
            help="Names of all columns of a TSV or CSV file that has no header.",
        ),
    ] = None,
    device: flags.Device = None,
) -> None:
    """Classify the texts of a file, in any language."""
    # Mistakes in the flags are told before torch and the model are loaded.
    from xlt_ray.inference.text_files import TextFile

    header = None if columns is None else columns.split(",")
    file = TextFile(input, header)
    file.check_output(output)
    from xlt_ray.inference.classifier import Classifier
    from xlt_ray.inference.classify_file import classify_file

    classifier = Classifier.load(model, device)
    rows = classify_file(classifier, file, output, text or None, Console(stderr=True))
    Console(stderr=True).print(f"{rows} rows, in {output}", soft_wrap=True, highlight=False)


def main() -> None:
    """Run the command line: a command and its flags, or the flags of a search alone."""
    command = sys.argv[1] if len(sys.argv) > 1 else ""
    if command in COMMANDS:
        # The program's name has it then, and what follows is as if there was no other command.
        sys.argv[:2] = [f"{sys.argv[0]} {command}"]
        run_command_line(COMMANDS[command])
    if command and not command.startswith("-"):

        def unknown() -> None:
            raise UserError(f"no command '{brief(command)}'{nearest(command, COMMANDS)}")

        del sys.argv[1:]
        run_command_line(unknown)
    run_command_line(app)
