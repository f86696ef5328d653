"""Optuna's dashboard shows the trials of a search, also while the search runs."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st

from tests.support.searching import ROOT, environment
from xlt_ray.config.loading import load_spec
from xlt_ray.errors import UserError
from xlt_ray.search.dashboard import extend, serve_dashboard
from xlt_ray.search.study import STUDY_FILE, Study


@given(st.lists(st.binary(max_size=9), max_size=8))
def test_the_copy_is_the_study_up_to_its_last_whole_line(
    tmp_path_factory: pytest.TempPathFactory, parts: list[bytes]
) -> None:
    folder = tmp_path_factory.mktemp("study")
    study, copy = folder / "study", folder / "copy"
    known = 0
    for number in range(len(parts) + 1):
        written = b"".join(parts[:number])
        study.write_bytes(written)
        known = extend(study, copy, known)
        assert copy.read_bytes() == written[: written.rfind(b"\n") + 1]
        assert known == len(copy.read_bytes())


@pytest.fixture
def search(tmp_path: Path) -> tuple[Path, Study]:
    """The folder of a search that runs, and its study of one trial."""
    folder = tmp_path / "runs" / "demo-20260101-120000"
    (folder / STUDY_FILE).parent.mkdir(parents=True)
    (folder / "search.yaml").write_text("name: demo\n")
    study = Study(load_spec("demo"), folder / STUDY_FILE)
    label, _ = study.propose()
    study.end(label, 0.25)
    return folder, study


@pytest.fixture
def dashboard(tmp_path: Path, search: tuple[Path, Study]) -> Iterator[Callable[[], Any]]:
    """The served study: what its interface says of the trials, by number."""
    pytest.importorskip("optuna_dashboard", reason="optuna-dashboard is not installed")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "launch.py"), "ui", "--optuna", "demo", "--port", str(port)],
        cwd=tmp_path,
        env=environment(tmp_path),
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    place = f"http://127.0.0.1:{port}"
    told = f"{place}/dashboard/studies/0 until Ctrl-C  ({search[0].relative_to(tmp_path)})"
    assert process.stdout.readline() == f"Optuna:  {told}\n"

    def trials() -> Any:
        limit = time.monotonic() + 100
        while time.monotonic() < limit:
            try:
                answer = requests.get(f"{place}/api/studies/0", timeout=30)
                return {trial["number"]: trial for trial in answer.json()["trials"]}
            except requests.ConnectionError:
                # It has told its address and starts to listen.
                assert process.poll() is None
                time.sleep(0.1)
        raise AssertionError("not served")

    yield trials
    os.killpg(process.pid, signal.SIGTERM)  # processes started in the background ignore Ctrl-C
    process.wait(60)
    process.stdout.close()


def test_a_running_search_is_shown_and_a_visitor_changes_nothing(
    dashboard: Callable[[], Any], search: tuple[Path, Study]
) -> None:
    folder, study = search
    first = dashboard()
    assert [trial["values"] for trial in first.values()] == [[0.25]]
    before = (folder / STUDY_FILE).read_bytes()
    label, _ = study.propose()
    study.end(label, 0.5)
    while len(found := dashboard()) < 2 or "values" not in found[1]:
        pass  # the copy follows within seconds; the test's own time limit ends it
    assert found[1]["values"] == [0.5]
    assert (folder / STUDY_FILE).read_bytes().startswith(before)


def test_a_search_that_has_not_begun_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("optuna_dashboard", reason="optuna-dashboard is not installed")
    with pytest.raises(UserError, match="has not begun"):
        serve_dashboard(tmp_path, 1)


def test_without_the_package_it_says_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "optuna_dashboard", None)
    with pytest.raises(UserError, match=r"pip install -c constraints.txt -e '\.\[dashboard\]'"):
        serve_dashboard(tmp_path, 1)
