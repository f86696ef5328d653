"""`xlt-ray ui`: serve MLflow's or Optuna's pages on this machine."""

from __future__ import annotations

import sys
from itertools import islice
from typing import Annotated

import typer

from xlt_ray.cli import flags
from xlt_ray.errors import UserError
from xlt_ray.tracking.uri import default_tracking_uri

_MAX_LISTED = 10
"""Maximum number of experiments whose address is printed."""


def ui(
    tracking_uri: flags.TrackingUri = None,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port on this machine.")] = 5000,
    optuna: Annotated[
        str | None,
        typer.Option(
            metavar="SEARCH",
            help="Show Optuna's dashboard of this search instead, also while it runs: its folder, "
            "or its name, for the latest.",
        ),
    ] = None,
    storage: flags.Storage = "runs",
) -> None:
    """Show what was recorded: MLflow's pages, on http://127.0.0.1:PORT until Ctrl-C.

    The command prints the address of each experiment's results. Only this machine can open the
    pages. For a tracking server, the command prints the server's address and ends.
    """
    if optuna is not None:
        if tracking_uri is not None:
            raise UserError(
                "--optuna and --tracking-uri: name one of the two; Optuna's pages do not "
                "read MLflow's store"
            )
        _show_study(optuna, storage, port)
        return
    from xlt_ray.tracking.client import check_begun, check_tracking, tagged_experiments
    from xlt_ray.tracking.results_view import VIEW_TAG, results_page
    from xlt_ray.tracking.ui import check_port, serve_ui
    from xlt_ray.tracking.uri import is_server, redact

    uri = default_tracking_uri(tracking_uri)
    if is_server(uri):
        print(redact(uri))
        return
    check_tracking(uri)
    check_begun(uri)
    check_port(port)
    address = f"http://127.0.0.1:{port}"
    print(f"MLflow:  {address}, until Ctrl-C")
    experiments = tagged_experiments(uri, VIEW_TAG)
    for name, number in islice(experiments.items(), _MAX_LISTED):
        print(f"Results: {results_page(address, number)}  ({name})")
    sys.stdout.flush()
    serve_ui(uri, port)


def _show_study(search: str, storage: str, port: int) -> None:
    from xlt_ray.search.dashboard import serve_dashboard
    from xlt_ray.search.resume import find_folder
    from xlt_ray.tracking.ui import check_port

    folder = find_folder(search, storage, "--optuna")
    check_port(port)
    # The copy has one study.
    page = f"http://127.0.0.1:{port}/dashboard/studies/0"
    print(f"Optuna:  {page} until Ctrl-C  ({folder})", flush=True)
    serve_dashboard(folder, port)
