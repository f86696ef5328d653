"""Stands in for Python when Ray starts a process: asks the fork server for one that is warm.

Ray runs this file instead of the interpreter (``py_executable``), without site-packages, so it
imports the standard library only. If there is no server yet, it starts one and waits for it: that
takes no longer than the imports of an ordinary process, and a fork shares them. If the server
cannot be had, it becomes an ordinary Python process. The server has the environment of such a
process, because Ray's C++ part reads its job from the environment when it is imported.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time

ADDRESS = "XLT_RAY_FORK_SERVER"
"""Environment variable with the path of the server's socket."""

_PATIENCE_S = 45.0
"""How long a process waits for the server; Ray gives up on one after 60 seconds."""


def main() -> int:
    """Have the server run a script in a fork of itself; return the script's exit code."""
    arguments = sys.argv[1:]
    name_cluster(arguments)
    connection = connect()
    if connection is None:
        os.execv(sys.executable, [sys.executable, *arguments])
    request = {
        "arguments": arguments,
        "environment": dict(os.environ),
        "folder": os.getcwd(),
        "niceness": os.nice(0),
    }
    # The standard streams come first, then the request's length and the request.
    content = json.dumps(request).encode()
    socket.send_fds(connection, [len(content).to_bytes(8, "big")], [0, 1, 2])
    connection.sendall(content)
    answers = connection.makefile("r")
    pid = int(answers.readline())
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda got, _: os.kill(pid, got))
    return int(answers.readline() or 1)


def name_cluster(arguments: list[str]) -> None:
    """Tell the process which cluster it belongs to.

    Ray Train asks the cluster "of this machine" whether a stopped trial's controller still runs. If
    there is another cluster on the machine, it finds two, gives up, and keeps the trial's CPUs
    reserved for good. It looks at this variable first.
    """
    flag = "--gcs-address="
    for argument in arguments:
        if argument.startswith(flag):
            os.environ.setdefault("RAY_ADDRESS", argument.removeprefix(flag))


def connect() -> socket.socket | None:
    """Connect to the server, which may have to start first; None: it does not start."""
    address = os.environ[ADDRESS]
    end = time.monotonic() + _PATIENCE_S
    while time.monotonic() < end:
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.connect(address)
            return connection
        except OSError:
            connection.close()
        start_server(address + ".started")
        if has_ended(address + ".started"):
            return None
        time.sleep(0.05)
    return None


def start_server(note: str) -> None:
    """Start the server and note its process id, unless another client has done so."""
    try:
        file = os.open(note, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    except OSError:
        return
    between = os.fork()
    if between:
        # The server is nobody's child: Ray ends the children of a process that it ends.
        os.waitpid(between, 0)
        os.close(file)
        return
    # Not from the working folder, where a file of the user's may have the name of a library.
    packages = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    paths = filter(None, [packages, os.environ.get("PYTHONPATH")])
    server = subprocess.Popen(
        [sys.executable, "-P", "-m", "xlt_ray.cluster.fork_server"],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    os.write(file, str(server.pid).encode())
    os._exit(0)


def has_ended(note: str) -> bool:
    """Whether the noted server runs no more; false while it is being started."""
    try:
        with open(note) as file:
            pid = file.read()
        if not pid:
            return False
        os.kill(int(pid), 0)
        with open(f"/proc/{pid}/stat") as file:
            # In a container, nobody may ask how it ended: then it stays, as a zombie.
            return file.read().rpartition(")")[2].split()[0] == "Z"
    except ProcessLookupError:
        return True
    except FileNotFoundError:
        # No note any more, or a system without /proc.
        return not os.path.exists(note)


if __name__ == "__main__":
    sys.exit(main())
