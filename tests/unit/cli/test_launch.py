"""The command that resumes a search; `tests/integration/test_search.py` launches searches."""

from __future__ import annotations

import shlex
from pathlib import Path

from xlt_ray.cli.launch import resume_command
from xlt_ray.pipeline.settings import RunSettings


def test_a_local_search_is_resumed_by_its_folder() -> None:
    settings = RunSettings(None, "runs", "sqlite:///mlflow.db", "demo")
    assert shlex.split(resume_command(Path("runs/a b"), settings)) == [
        *("python", "launch.py", "--resume", "runs/a b"),
        *("--tracking-uri", "sqlite:///mlflow.db", "--experiment", "demo"),
    ]


def test_remote_places_are_named_without_credentials() -> None:
    settings = RunSettings("auto", "s3://bucket/runs", "http://me:pw@host:5000", "demo")
    words = shlex.split(resume_command(Path("runs/x"), settings))
    flags = dict(zip(words[2::2], words[3::2], strict=True))
    assert flags == {
        "--resume": "runs/x",
        "--address": "auto",
        "--storage": "s3://bucket/runs",
        "--tracking-uri": "http://***@host:5000",
        "--experiment": "demo",
    }
