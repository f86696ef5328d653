"""Start a search and turn its outcome into an exit code; `search` and `train` call it."""

from __future__ import annotations

import signal
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from xlt_ray.config.spec import SearchSpec
from xlt_ray.errors import UserError
from xlt_ray.names import LEDGER
from xlt_ray.pipeline.settings import RunSettings
from xlt_ray.storage import is_remote, write_problem
from xlt_ray.tracking.uri import redact


def launch(
    spec: SearchSpec,
    settings: RunSettings,
    console: Console,
    dry_run: bool,
    resumed: Path | None = None,
    force: bool = False,
) -> int:
    """Check a search, show its plan and run it.

    Args:
        spec: The search.
        settings: Where it runs and what it records where.
        console: Where the plan, the progress and the result are shown.
        dry_run: Stop before training.
        resumed: Folder of the search to resume; None for a new search.
        force: Resume although the spec, the data or the model have changed.

    Returns:
        Exit code: 0 for success, 1 if trials failed or the best model could not be written, 130 if
        the search was stopped.

    Raises:
        UserError: If the spec, the data or the settings are wrong, or the disk is full.
    """
    # Ray, transformers and MLflow take seconds to import, so flags are checked before.
    from xlt_ray.pipeline import start
    from xlt_ray.search.ledger import begun, begun_inputs
    from xlt_ray.search.plan_lines import describe
    from xlt_ray.search.resume import check_same_inputs, check_unchanged

    plan = start.checked_plan(spec, settings, prepared=not dry_run)
    if resumed is not None:
        ledger = resumed / LEDGER
        check_unchanged(begun(ledger), plan.spec, resumed, force)
        check_same_inputs(begun_inputs(ledger), plan.inputs, resumed, force)
    view = Table(title=f"Search {escape(spec.name)}", show_header=False, title_justify="left")
    for what, value in describe(plan):
        view.add_row(what, escape(value))
    console.print(view)
    with start.connected(plan.spec, settings, dry_run) as (cluster, concurrent):
        # SIGTERM stops the search like Ctrl-C. Ray's `init` installs its own handler, so after it.
        signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
        if dry_run:
            runs = plan.trials + plan.compared_runs + plan.confirmation_runs
            console.print(
                f"Checked. {'At most ' if plan.confirmation_runs else ''}{runs} trials, "
                f"{concurrent} side by side on {cluster.cpus:g} CPU and {cluster.gpus:g} GPU. "
                "Nothing was trained.",
                soft_wrap=True,
            )
            return 0
        folder = resumed or start.new_search_folder(plan.spec, settings.storage)
        resume = resume_command(folder, settings)
        try:
            outcome = start.run_search(plan, settings, console, folder)
            interrupted = outcome.interrupted
        except KeyboardInterrupt:
            interrupted = True
        except Exception as error:
            problem = write_problem(error)
            if problem is None:
                raise
            raise UserError(
                f"{folder}: {problem}; finished work is kept. Free some space, then resume: "
                f"{resume}"
            ) from None
        if interrupted:
            line = f"Stopped. To go on: {resume}"
            console.print(line, soft_wrap=True, highlight=False, markup=False)
            return 130
        lacks_model = outcome.model is None and any(entry.rank for entry in outcome.entries)
        return 1 if outcome.failed or lacks_model else 0


def resume_command(folder: Path, settings: RunSettings) -> str:
    """Return the shell command that resumes an interrupted search, without credentials."""
    from xlt_ray.search.summary import search_command

    arguments = ["--resume", str(folder)]
    flags = {
        "--address": settings.address,
        "--storage": redact(settings.storage) if is_remote(settings.storage) else None,
        "--tracking-uri": redact(settings.tracking_uri),
        "--experiment": settings.experiment,
    }
    for flag, value in flags.items():
        if value is not None:
            arguments += [flag, value]
    return search_command(*arguments)
