"""optuna-dashboard's pages of a search, also while it runs; `xlt-ray ui --optuna` calls it."""

from __future__ import annotations

import tempfile
from pathlib import Path
from threading import Event, Thread
from wsgiref.simple_server import WSGIRequestHandler, make_server

from xlt_ray.errors import UserError, install_command
from xlt_ray.search.study import STUDY_FILE

_EVERY_S = 2.0
"""Seconds between two looks at the study."""


def serve_dashboard(folder: Path, port: int) -> None:
    """Serve a study's pages, to this machine only, until Ctrl-C.

    The pages are those of a copy, which follows the study: what a visitor writes there reaches
    neither the search nor its files.

    Args:
        folder: The search's folder.
        port: Port on the loopback address.

    Raises:
        UserError: If optuna-dashboard is missing or the search has no study.
    """
    try:
        from optuna_dashboard import wsgi
    except ImportError:
        raise UserError(
            f"--optuna needs a further package: {install_command('dashboard')}"
        ) from None
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    study = folder / STUDY_FILE
    if not study.is_file():
        raise UserError(f"{folder}: it has no {STUDY_FILE}; the search has not begun")
    with tempfile.TemporaryDirectory(prefix="xlt-ray-optuna-") as place:
        copy = Path(place) / study.name
        end = Event()
        follower = Thread(target=_follow, args=(study, copy, extend(study, copy), end))
        follower.start()
        try:
            app = wsgi(JournalStorage(JournalFileBackend(str(copy))))
            make_server("127.0.0.1", port, app, handler_class=_Quiet).serve_forever()
        finally:
            end.set()
            follower.join()


def extend(study: Path, copy: Path, known: int = 0) -> int:
    """Append the new whole lines of a study to its copy.

    Args:
        study: The study's file, a journal that only grows.
        copy: The copy; created if absent.
        known: Bytes of the study that the copy has.

    Returns:
        Bytes of the study that the copy has now.
    """
    with study.open("rb") as source, copy.open("ab") as target:
        source.seek(known)
        lines, line_end, _ = source.read().rpartition(b"\n")
        target.write(lines + line_end)
    return known + len(lines) + len(line_end)


def _follow(study: Path, copy: Path, known: int, end: Event) -> None:
    while not end.wait(_EVERY_S):
        known = extend(study, copy, known)


class _Quiet(WSGIRequestHandler):
    """Prints no line for every request."""

    def log_message(self, format: str, *args: object) -> None:
        """Print nothing."""
