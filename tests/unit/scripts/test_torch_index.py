"""Where `make` takes torch from, with a package index on this machine."""

from __future__ import annotations

import http.server
import os
import platform
import shutil
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts import torch_index

PYTHON = f"cp{sys.version_info[0]}{sys.version_info[1]}"


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Serve a package index with the CPU build of torch 2.7.1 for this Python and machine."""
    wheel = f"torch-2.7.1%2Bcpu-{PYTHON}-{PYTHON}-manylinux_2_28_{platform.machine()}.whl"
    other = f"torch-2.7.2%2Bcpu-{PYTHON}-{PYTHON}-manylinux_2_28_otherchip.whl"
    page = "".join(f'<a href="/whl/{name}#sha256=00">{name}</a>' for name in (wheel, other))
    folder = tmp_path_factory.mktemp("index")
    (folder / "torch").mkdir()
    (folder / "torch" / "index.html").write_text(page, encoding="utf-8")

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args: object) -> None:
            super().__init__(*args, directory=str(folder))  # type: ignore[arg-type]

        def log_message(self, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(autouse=True)
def newcomer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Act as a Linux machine without a GPU, without settings of pip."""
    for name in list(os.environ):
        if name.startswith("PIP_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(platform, "system", lambda: "Linux")
    monkeypatch.setattr(torch_index, "has_gpu", lambda: False)


def test_without_a_gpu_torch_comes_from_the_cpu_index(
    index: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch_index, "CPU_INDEX", index)
    assert torch_index.torch_index("2.7.1") == index
    assert torch_index.torch_index("2.7.1", pip_arguments="--timeout 9") == index


@pytest.mark.parametrize("version", ["2.7.0", "2.7", "2.7.2"])
def test_an_index_without_the_version_for_this_machine_is_not_taken(
    index: str, version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch_index, "CPU_INDEX", index)
    assert torch_index.torch_index(version) == ""


def test_an_index_that_does_not_answer_is_not_taken(
    index: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch_index, "CPU_INDEX", f"{index}/missing")
    assert torch_index.torch_index("2.7.1") == ""
    monkeypatch.setattr(torch_index, "CPU_INDEX", "http://127.0.0.1:1")
    assert torch_index.torch_index("2.7.1") == ""


def test_the_given_index_always_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_index, "has_gpu", lambda: True)
    monkeypatch.setenv("PIP_FIND_LINKS", "/wheels")
    assert torch_index.torch_index("2.7.1", given="https://mine") == "https://mine"


@pytest.mark.parametrize(
    "name", ["PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_NO_INDEX"]
)
def test_pips_own_settings_are_kept(index: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_index, "CPU_INDEX", index)
    monkeypatch.setenv(name, "1")
    assert torch_index.torch_index("2.7.1") == ""


def test_a_source_in_pips_configuration_file_is_kept(
    index: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch_index, "CPU_INDEX", index)
    settings = tmp_path / "pip.conf"
    monkeypatch.setenv("PIP_CONFIG_FILE", str(settings))
    settings.write_text("[global]\nfind-links = /wheels\n", encoding="utf-8")
    assert torch_index.torch_index("2.7.1") == ""
    settings.write_text("[global]\ntimeout = 9\n", encoding="utf-8")
    assert torch_index.torch_index("2.7.1") == index


@pytest.mark.parametrize("flag", ["-i https://mine", "--no-index", "-q --find-links=/wheels"])
def test_a_source_in_the_arguments_is_kept(
    index: str, flag: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch_index, "CPU_INDEX", index)
    assert torch_index.torch_index("2.7.1", pip_arguments=flag) == ""


@pytest.mark.parametrize(("system", "gpu"), [("Linux", True), ("Darwin", False)])
def test_other_machines_take_the_default_build(
    index: str, system: str, gpu: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch_index, "CPU_INDEX", index)
    monkeypatch.setattr(platform, "system", lambda: system)
    monkeypatch.setattr(torch_index, "has_gpu", lambda: gpu)
    assert torch_index.torch_index("2.7.1") == ""


@pytest.mark.skipif(
    shutil.which("nvidia-smi") is not None or bool(list(Path("/dev").glob("nvidia*"))),
    reason="this machine has a GPU",
)
def test_nvidia_smi_on_the_path_means_a_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    assert not torch_index.has_gpu()
    (tmp_path / "nvidia-smi").touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert torch_index.has_gpu()
