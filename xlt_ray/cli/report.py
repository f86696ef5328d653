"""`xlt-ray report`: write the report of a search again, from its folder or from MLflow."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from xlt_ray.cli import flags
from xlt_ray.errors import UserError
from xlt_ray.tracking.uri import default_tracking_uri


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
        typer.Option(help="MLflow experiment of the search; its folder is then not needed."),
    ] = None,
    tracking_uri: flags.TrackingUri = None,
    output: Annotated[
        Path | None,
        typer.Option(
            help="The file to write. Default: report.html in the search's folder; with "
            "--experiment, in the working folder."
        ),
    ] = None,
    storage: flags.Storage = "runs",
) -> None:
    """Write a search's report again, from its folder or from MLflow; nothing is trained.

    From its folder, the report also covers the finished part of a search that was stopped or still
    runs. From MLflow, it uses the recorded pictures.
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
        missing = report_recorded(default_tracking_uri(tracking_uri), experiment, search, page)
    else:
        assert search is not None
        folder = find_folder(search, storage, "--search")
        page = output or folder / "report.html"
        check_page(page)
        rebuild_report(folder, page)
    note = f" (not in MLflow: {', '.join(missing)})" if missing else ""
    Console().print(f"Report:  {page}{note}", soft_wrap=True, highlight=False, markup=False)
