"""A process that has imported what trials need, and forks itself for each process that Ray starts.

Ray runs nine processes for a trial, of which one trains, and each would import for seconds. On a
cluster that the search starts on this machine, they are forks of one warm process instead: a trial
starts in a fraction of the time, and the processes share the memory of the imported libraries and
of the tokenizer, which takes seconds to read as well.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import runpy
import select
import shlex
import shutil
import signal
import socket
import sys
import tempfile
import traceback
from collections.abc import Iterator
from pathlib import Path

import numpy

from xlt_ray.cluster import fork_client

MODULES = (
    "ray._private.workers.default_worker",
    "torch",
    "transformers",
    "pandas",
    "pyarrow.fs",
    "ray.train.torch",
    "ray.tune",
    "xlt_ray.training.build",
    "xlt_ray.training.trainer",
)
"""Modules that the server imports. None may start a thread that Python code runs in: a fork has
only the thread that forked."""

MODEL = "XLT_RAY_FORK_MODEL"
"""Environment variable with the model whose tokenizer the server reads."""
_SECONDS_BETWEEN_CHECKS = 1.0
"""How often the server looks whether Ray still runs."""


def command(model: str) -> str:
    """Return the command that Ray is to run instead of the Python interpreter on this machine.

    Args:
        model: The model of the trials, as `model` of a search file.
    """
    folder = tempfile.mkdtemp(prefix="xlt-ray-fork-")
    os.environ |= {fork_client.ADDRESS: f"{folder}/server", MODEL: model}
    return shlex.join([sys.executable, "-I", "-S", fork_client.__file__])


def serve(address: Path, raylet: int, model: str) -> None:
    """Fork for every connection, until Ray ends.

    Args:
        address: Path of the socket to listen at; clients wait until it exists.
        raylet: Id of the process that starts Ray's processes on this machine.
        model: The model of the trials, as `model` of a search file.
    """
    with _ids_from_the_system():
        for module in MODULES:
            importlib.import_module(module)
    _keep_tokenizer(model)
    gc.collect()
    gc.freeze()
    waiting = address.with_suffix(".tmp")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(waiting))
    listener.listen(64)
    waiting.rename(address)
    clients: dict[int, socket.socket] = {}
    ended, wakes = os.pipe()
    os.set_blocking(wakes, False)
    signal.set_wakeup_fd(wakes)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    while _is_alive(raylet):
        sources = [listener.fileno(), ended]
        ready, _, _ = select.select(sources, [], [], _SECONDS_BETWEEN_CHECKS)
        if ended in ready:
            os.read(ended, 4096)
            _report_ended(clients)
        if listener.fileno() in ready:
            connection, _ = listener.accept()
            with contextlib.suppress(OSError, ValueError):
                _fork(connection, listener, clients)
    shutil.rmtree(address.parent, ignore_errors=True)


@contextlib.contextmanager
def _ids_from_the_system() -> Iterator[None]:
    """Keep Ray's own random numbers unused.

    Importing ray.train and ray.tune draws an id for each actor class. Ray's generator, once used,
    draws the same numbers in all forks, among them the ids of objects, by which it finds these:
    two processes with the same one wait forever. An actor class may have the same id in all forks.
    """
    import ray.actor

    class Ids:
        @staticmethod
        def from_random() -> ray.ActorClassID:
            return ray.ActorClassID(os.urandom(ray.ActorClassID.size()))

    own = ray.actor.ActorClassID
    ray.actor.ActorClassID = Ids  # type: ignore[misc,assignment]
    try:
        yield
    finally:
        ray.actor.ActorClassID = own  # type: ignore[misc]


def _keep_tokenizer(model: str) -> None:
    """Load a model's tokenizer, which trials then have: :func:`load_tokenizer` keeps it."""
    from xlt_ray.encoders.loading import load_tokenizer, resolve

    with contextlib.suppress(Exception):  # a trial tries again, and can tell what is wrong
        load_tokenizer(resolve(model))


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def _fork(
    connection: socket.socket, listener: socket.socket, clients: dict[int, socket.socket]
) -> None:
    length, streams, _, _ = socket.recv_fds(connection, 8, 3)
    request = json.loads(connection.makefile("rb").read(int.from_bytes(length, "big")))
    pid = os.fork()
    if pid:
        for stream in streams:
            os.close(stream)
        clients[pid] = connection
        connection.sendall(f"{pid}\n".encode())
        return
    # Ray ends a process with its whole process group.
    os.setsid()
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    listener.close()
    for other in clients.values():
        other.close()
    connection.close()
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        if stream > 2:
            os.close(stream)
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    os.nice(request["niceness"] - os.nice(0))
    numpy.random.seed()
    sys.argv = request["arguments"]
    sys.path.insert(0, os.path.dirname(sys.argv[0]))
    code = 1
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _report_ended(clients: dict[int, socket.socket]) -> None:
    """Tell clients the exit codes of their processes that ended."""
    while clients:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            return
        connection = clients.pop(pid, None)
        if connection is not None:
            with contextlib.suppress(OSError):
                connection.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
            connection.close()


if __name__ == "__main__":
    serve(
        Path(os.environ[fork_client.ADDRESS]),
        int(os.environ["RAY_RAYLET_PID"]),
        os.environ[MODEL],
    )
