"""`ui` on the command line: MLflow's pages at the right store, for this machine only."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import mlflow
import psutil
import pytest
import requests

from tests.support.searching import ROOT, environment
from xlt_ray.cli.app import main
from xlt_ray.tracking.results_view import VIEW_TAG, results_page


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder; the environment names no tracking server."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return tmp_path


def run(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> tuple[int | str | None, str, str]:
    monkeypatch.setattr(sys, "argv", ["xlt-ray", "ui", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code, *capsys.readouterr()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "there is no database"),
        (["--tracking-uri", "sqlite:///other.db"], "other.db yet"),
        (["--tracking-uri", "mlruns"], "there is no folder"),
        (["--tracking-uri", "htp://x"], "unknown scheme in 'htp://x'"),
        (["--port", "0"], "--port"),
        (["--port", "x"], "--port"),
        (["--prot", "5000"], "--port"),
    ],
)
def test_mistakes_are_reported_in_one_line(
    arguments: list[str],
    told: str,
    here: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, output, errors = run(arguments, monkeypatch, capsys)
    assert code == 2 and output == ""
    assert errors.startswith("error: ") and len(errors.splitlines()) == 1
    assert told in errors
    assert list(here.iterdir()) == []


def test_a_port_in_use_is_reported(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "mlflow.db").touch()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, output, errors = run(["--port", str(port)], monkeypatch, capsys)
    assert code == 2 and output == "" and len(errors.splitlines()) == 1
    assert f"--port {port}" in errors


@pytest.mark.parametrize("way", ["flag", "environment"])
def test_of_a_server_the_address_is_printed(
    way: str, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    uri = "http://user:SECRET@server.example:5000"
    if way == "environment":
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    code, output, errors = run(
        ["--tracking-uri", uri] if way == "flag" else [], monkeypatch, capsys
    )
    assert not code and errors == ""
    assert output == "http://***@server.example:5000\n"


def test_pages_of_the_store_are_shown_on_the_loopback_address_alone(here: Path) -> None:
    uri = f"sqlite:///{here}/records.db"
    client = mlflow.MlflowClient(uri)
    client.create_experiment("asked for")
    searched = client.create_experiment("searched", tags={VIEW_TAG: "{}"})
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    place = f"http://127.0.0.1:{port}"
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "launch.py"), "ui", "--port", str(port)],
        cwd=here,
        # A store that is here, as the environment names it.
        env=environment(here)
        | {
            "MLFLOW_TRACKING_URI": "sqlite:///records.db",
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "MLFLOW_DISABLE_TELEMETRY": "true",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None and place in process.stdout.readline()
        # Only where there are results there is a page of them.
        page = results_page(place, searched)
        assert process.stdout.readline() == f"Results: {page}  (searched)\n"
        limit = time.monotonic() + 200
        while not answers(place):
            assert process.poll() is None and time.monotonic() < limit
            time.sleep(0.1)
        found = requests.post(
            f"{place}/api/2.0/mlflow/experiments/search", json={"max_results": 10}, timeout=30
        ).json()["experiments"]
        assert "asked for" in {one["name"] for one in found}
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(True)]
        addresses = {
            connection.laddr.ip
            for member in family
            for connection in member.net_connections("inet")
            if connection.status == psutil.CONN_LISTEN
        }
        assert addresses == {"127.0.0.1"}
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def answers(place: str) -> bool:
    try:
        return requests.get(f"{place}/health", timeout=1).ok
    except requests.RequestException:
        return False
