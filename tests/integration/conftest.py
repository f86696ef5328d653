"""Finished searches that several files look at; each is run once.

The tests that use one run in one process (tests/conftest.py).
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.searching import ROOT, Run, launch, write_search
from tests.support.tracking_server import MlflowServer

SECRETS = {
    "HF_TOKEN": "hf_CANARYtoken",
    "MLFLOW_TRACKING_PASSWORD": "CANARYpassword",
    "MLFLOW_TRACKING_TOKEN": "",
    "AWS_ACCESS_KEY_ID": "CANARYkeyid",
    "AWS_SECRET_ACCESS_KEY": "CANARYsecretkey",
    "AWS_SESSION_TOKEN": "CANARYsession",
    "WANDB_API_KEY": "CANARYwandb",
}
"""Environment variables with canaries, which must show up nowhere."""

_LIST_MODULES = """
import atexit, sys
if any(argument.endswith("launch.py") for argument in sys.orig_argv):
    atexit.register(lambda: open({!r}, "w").write(" ".join(sys.modules)))
"""
"""Run by Python when it starts: the driver writes what it has imported."""


@dataclass(frozen=True)
class Finished:
    """A finished search."""

    run: Run
    folder: Path
    """Working folder: task, encoder, cache, runs and MLflow's database."""
    state: Path
    """The search's own folder."""
    imported: frozenset[str]
    """Modules that its driver had imported when it ended."""


@dataclass(frozen=True)
class Recorded:
    """A search with a comparison, recorded on a server, with secrets in its environment."""

    run: Run
    folder: Path
    """Working folder: task, encoder, cache and results."""
    state: Path
    """The search's own folder, `results/NAME`."""
    config: Path
    """The config of the search."""
    server: MlflowServer
    store: Path
    """The server's folder, with `store.db` and the artifacts."""
    ray: Path
    """Ray's temporary folder, with its logs."""


@pytest.fixture(scope="session")
def finished_search(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """Run a search of two trials and two baselines."""
    folder = tmp_path_factory.mktemp("finished")
    search = write_search(folder, search={"baselines": ["plain", "rs-rp"]})
    modules = folder / "modules.txt"
    startup = tmp_path_factory.mktemp("startup")
    (startup / "sitecustomize.py").write_text(_LIST_MODULES.format(str(modules)))
    paths = {"PYTHONPATH": os.pathsep.join([str(startup), str(ROOT)])}
    run = launch("--search", str(search), folder=folder, variables=paths)
    assert run.code == 0, run.output + run.errors
    (state,) = (folder / "runs").glob("tiny-*")
    return Finished(run, folder, state, frozenset(modules.read_text().split()))


@pytest.fixture(scope="session")
def recorded_search(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recorded]:
    """Run a search of one trial, a baseline and a comparison, recorded on a server."""
    folder = tmp_path_factory.mktemp("recorded")
    config = write_search(folder, training={"seed": 4}, assessment={"alignment_rows": 5})
    store = tmp_path_factory.mktemp("server")
    server = MlflowServer(store, store / "store.db")
    # Shorter than pytest's folders: the paths of sockets are limited.
    ray = Path(tempfile.mkdtemp(prefix="xlt-"))
    server.start()
    try:
        uri = server.uri.replace("http://", "http://CANARYuser:CANARYlogin@")
        flags = ("--seeds", "1", "--num-trials", "1", "--storage", "results")
        run = launch(
            *("--search", str(config), *flags, "--tracking-uri", uri),
            folder=folder,
            variables=SECRETS | {"RAY_TMPDIR": str(ray)},
        )
        assert run.code == 0, run.output + run.errors
        (state,) = (folder / "results").glob("tiny-*")
        yield Recorded(run, folder, state, config, server, store, ray)
    finally:
        server.kill()
        shutil.rmtree(ray, ignore_errors=True)
