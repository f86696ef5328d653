"""The commands for what a search left: scoring a model, the report anew, MLflow's pages."""

from __future__ import annotations

import sys
from itertools import islice
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

from xlt_ray.cli import flags
from xlt_ray.errors import UserError
from xlt_ray.tracking.uri import tracking_store

evaluate_app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
report_app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
ui_app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

_LISTED = 10
"""Experiments whose pages `ui` prints at most."""


@evaluate_app.command()
def evaluate(
    model: flags.FineTuned,
    task: Annotated[
        str, typer.Option(help="A task, such as xnli, pawsx or demo, or the path of one.")
    ],
    languages: Annotated[
        str | None,
        typer.Option(
            metavar="XX,XX",
            help="Codes of the languages. Default: the task's. Others are taken where there is "
            "data of them.",
        ),
    ] = None,
    split: Annotated[Literal["test", "dev"], typer.Option(help="What is scored.")] = "test",
    data_dir: flags.DataDir = None,
    alignment: Annotated[
        bool,
        typer.Option(
            "--alignment", help="Also how near translations lie to each other; of parallel data."
        ),
    ] = False,
    generalized: Annotated[
        bool,
        typer.Option(
            "--generalized",
            help="Also every pair of a premise language and a hypothesis language; of parallel "
            "data of pairs.",
        ),
    ] = False,
    output: Annotated[
        Path | None, typer.Option(help="JSON file that gets all of it, unrounded.")
    ] = None,
    device: flags.Device = None,
) -> None:
    """Score a model on a task, language by language, with 95 % intervals (Wilson).

    The model is the best-model/ of a search, or any fine-tuned Hugging Face classifier whose
    classes have the names of the task's.
    """
    # Mistakes in the flags are told before torch and the model are loaded.
    from xlt_ray.inference.scoring import Wanted, check_output, task_of
    from xlt_ray.report.score_tables import show

    codes = None if languages is None else languages.split(",")
    wanted = Wanted(model, task_of(task, data_dir, codes), codes, split, alignment, generalized)
    wanted.check()
    if output is not None:
        check_output(output)
    scores = wanted.score(device)
    if output is not None:
        scores.write(output)
    show(scores, Console())


@report_app.command()
def report(
    search: Annotated[
        str | None,
        typer.Option(
            help="A search's folder, such as runs/demo-20260101-120000, or its name, for the "
            "latest. With --experiment: name or id of its run; default: the latest that finished."
        ),
    ] = None,
    experiment: Annotated[
        str | None,
        typer.Option(help="MLflow experiment of the search, whose folder is then not needed."),
    ] = None,
    tracking_uri: flags.TrackingUri = None,
    output: Annotated[
        Path | None,
        typer.Option(
            help="The file. Default: report.html in the search's folder; with --experiment, here."
        ),
    ] = None,
    storage: flags.Storage = "runs",
) -> None:
    """Write a search's report again, from its folder or from MLflow; nothing is trained.

    From its folder it also reports on a search that was stopped or that is under way, as far as it
    has come. From MLflow it takes the pictures as they were recorded.
    """
    if search is None and experiment is None:
        raise UserError("--search FOLDER is missing, or --experiment NAME for a search in MLflow")
    if experiment is None and tracking_uri is not None:
        raise UserError("--tracking-uri goes with --experiment; a folder has the report's data")
    if experiment is not None and search is not None and Path(search, "search.yaml").is_file():
        raise UserError(
            f"--search {search}: it is a folder, and --experiment asks MLflow; leave one of them "
            "out, or give the id of the search's run"
        )
    from xlt_ray.report.from_folder import check_page, rebuild_report
    from xlt_ray.report.from_mlflow import report_recorded
    from xlt_ray.search.resume import find_folder

    missing: list[str] = []
    if experiment is not None:
        page = output or Path("report.html")
        check_page(page)
        missing = report_recorded(tracking_store(tracking_uri), experiment, search, page)
    else:
        assert search is not None
        folder = find_folder(search, storage, "--search")
        page = output or folder / "report.html"
        check_page(page)
        rebuild_report(folder, page)
    told = f" (not in MLflow: {', '.join(missing)})" if missing else ""
    Console().print(f"Report:  {page}{told}", soft_wrap=True, highlight=False, markup=False)


@ui_app.command()
def ui(
    tracking_uri: flags.TrackingUri = None,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port on this machine.")] = 5000,
) -> None:
    """Show what was recorded: MLflow's pages, on http://127.0.0.1:PORT until Ctrl-C.

    The address of each experiment's results is printed. Nobody on another machine can see them. Of
    a tracking server only its address is printed.
    """
    from xlt_ray.tracking.client import check_tracking, tagged_experiments
    from xlt_ray.tracking.results_view import VIEW_TAG, results_page
    from xlt_ray.tracking.ui import check_ui, serve_ui
    from xlt_ray.tracking.uri import is_server, redact

    uri = tracking_store(tracking_uri)
    if is_server(uri):
        print(redact(uri))
        return
    check_tracking(uri)
    check_ui(uri, port)
    address = f"http://127.0.0.1:{port}"
    print(f"MLflow:  {address}, until Ctrl-C")
    experiments = tagged_experiments(uri, VIEW_TAG)
    for name, number in islice(experiments.items(), _LISTED):
        print(f"Results: {results_page(address, number)}  ({name})")
    sys.stdout.flush()
    serve_ui(uri, port)
