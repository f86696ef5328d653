"""Processes that the fork server makes, as Ray starts them: through the client."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.searching import ROOT
from tests.support.tiny_encoder import tiny_encoder
from tests.support.waiting import until
from xlt_ray.cluster import fork_client, fork_server

SCRIPT = """
import json, os, random, sys
numbers, encoded = [], []
if "xlt_ray.training.trainer" in sys.modules:
    import numpy
    from ray._raylet import WorkerID
    from ray import ActorClassID, ObjectRef
    numbers = [WorkerID.from_random().hex(), ObjectRef.from_random().hex()]
    numbers += [ActorClassID.from_random().hex(), random.random(), float(numpy.random.random())]
    import transformers
    from xlt_ray.encoders.loading import load_tokenizer
    transformers.AutoTokenizer = None
    encoded = load_tokenizer(os.environ["XLT_RAY_FORK_MODEL"])(["the cat"] * 100)["input_ids"]
print(json.dumps({
    "numbers": numbers,
    "encoded": len(encoded),
    "arguments": sys.argv[1:],
    "environment": os.environ.get("XLT_RAY_TEST"),
    "cluster": os.environ.get("RAY_ADDRESS"),
    "folder": os.getcwd(),
    "niceness": os.nice(0),
    "main": __name__,
    "imported": "xlt_ray.training.trainer" in sys.modules,
    "parent": os.getppid(),
    "leads": os.getpgid(0) == os.getpid(),
    "threads": len(os.listdir("/proc/self/task")),
}))
print("told", file=sys.stderr)
sys.exit(int(sys.argv[1]))
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment in which a client finds a server; a process stands in for the raylet."""
    folder = tmp_path_factory.mktemp("fork")
    (folder / "script.py").write_text(SCRIPT)
    # A user's working folder may have anything in it.
    (folder / "tokenizers.py").write_text("raise SystemExit('no library')")
    raylet = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    address = folder / "own" / "server"
    address.parent.mkdir()
    variables = os.environ | {
        fork_client.ADDRESS: str(address),
        fork_server.MODEL: str(tiny_encoder(folder / "encoder")),
        "RAY_RAYLET_PID": str(raylet.pid),
        "PYTHONPATH": str(ROOT),
    }
    first = run(variables, "0")
    assert first["imported"]  # it started the server and waited for it
    yield variables
    raylet.kill()
    raylet.wait()
    # The server ends with the raylet, and leaves nothing.
    until(lambda: not address.parent.exists())


def start(variables: dict[str, str], *arguments: str, niceness: int = 0) -> subprocess.Popen[str]:
    folder = Path(variables[fork_client.ADDRESS]).parents[1]
    return subprocess.Popen(
        [
            *("nice", "-n", str(niceness)),
            *(sys.executable, "-I", "-S", fork_client.__file__, str(folder / "script.py")),
            *arguments,
        ],
        env=variables | {"XLT_RAY_TEST": "ä b"},
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(variables: dict[str, str], code: str, *arguments: str, niceness: int = 0) -> dict:
    process = start(variables, code, *arguments, niceness=niceness)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == int(code), errors
    assert errors.strip() == "told"
    found: dict = json.loads(output)
    return found


def test_a_fork_is_the_process_that_was_asked_for(environment: dict[str, str]) -> None:
    found = run(environment, "3", "--flag", "a 'b'", niceness=3)
    assert found["imported"], "the libraries are there before the script starts"
    assert found["arguments"] == ["3", "--flag", "a 'b'"] and found["main"] == "__main__"
    assert found["environment"] == "ä b"
    assert found["folder"] == str(Path(environment[fork_client.ADDRESS]).parents[1])
    assert found["niceness"] == os.nice(0) + 3
    # Ray ends a process together with its group.
    assert found["leads"]


def test_a_process_knows_its_cluster_among_those_of_the_machine(
    environment: dict[str, str], tmp_path: Path
) -> None:
    asked = "--gcs-address=192.0.2.7:6379"
    assert run(environment, "0", asked)["cluster"] == "192.0.2.7:6379"
    # If the server has ended, the client becomes an ordinary process.
    absent = environment | {fork_client.ADDRESS: str(tmp_path / "a" / "server")}
    (tmp_path / "script.py").write_text(SCRIPT)
    (tmp_path / "a").mkdir()
    gone = subprocess.Popen(["true"])
    gone.wait()
    (tmp_path / "a" / "server.started").write_text(str(gone.pid))
    found = run(absent, "0", asked)
    assert found["cluster"] == "192.0.2.7:6379" and not found["imported"]


def test_a_server_that_cannot_start_costs_nothing_but_time(
    environment: dict[str, str], tmp_path: Path
) -> None:
    """As where the package cannot be imported: the client goes on as an ordinary process."""
    (tmp_path / "script.py").write_text(SCRIPT)
    (tmp_path / "b").mkdir()
    broken = environment | {
        fork_client.ADDRESS: str(tmp_path / "b" / "server"),
        "PYTHONPATH": "",
        "PYTHONNOUSERSITE": "1",
        "PYTHONSAFEPATH": "1",
        "RAY_RAYLET_PID": "not a number",
    }
    assert not run(broken, "0")["imported"]


def test_forks_have_the_tokenizer(environment: dict[str, str]) -> None:
    # The script forbids to load one; the tokenizer computes with threads of its own.
    assert run(environment, "0")["encoded"] == 100


def test_many_at_once_each_get_their_own_exit_code(environment: dict[str, str]) -> None:
    processes = {code: start(environment, str(code)) for code in range(8)}
    found = []
    for code, process in processes.items():
        output, _ = process.communicate(timeout=60)
        assert process.returncode == code
        found.append(json.loads(output))
    assert len({one["parent"] for one in found}) == 1
    # Ray finds an object by a random id: two processes that draw the same one wait forever.
    for draws in zip(*(one["numbers"] for one in found), strict=True):
        assert len(set(draws)) == len(processes)


def test_a_fork_that_is_killed_ends_its_client_and_no_other(environment: dict[str, str]) -> None:
    folder = Path(environment[fork_client.ADDRESS]).parents[1]
    (folder / "sleep.py").write_text(
        "import os, time; print(os.getpid(), flush=True); time.sleep(99)"
    )
    client = [sys.executable, "-I", "-S", fork_client.__file__, str(folder / "sleep.py")]
    processes = [
        subprocess.Popen(client, env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    pids = []
    for process in processes:
        assert process.stdout is not None
        pids.append(int(process.stdout.readline()))
    os.killpg(pids[0], signal.SIGKILL)
    assert processes[0].wait(60) != 0
    assert processes[1].poll() is None
    processes[1].terminate()  # passed on to the fork
    assert processes[1].wait(60) != 0
    assert run(environment, "0")["imported"], "the server goes on"


def test_an_error_is_printed_as_python_does(environment: dict[str, str]) -> None:
    folder = Path(environment[fork_client.ADDRESS]).parents[1]
    (folder / "wrong.py").write_text("1 / 0\n")
    found = subprocess.run(
        [sys.executable, "-I", "-S", fork_client.__file__, str(folder / "wrong.py")],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert found.returncode == 1
    assert "ZeroDivisionError: division by zero" in found.stderr
