"""Stands in for Python when Ray starts a process: asks the fork server for one that is warm.

Ray runs this file instead of the interpreter (``py_executable``), without site-packages, so it
imports the standard library only. While there is no server, it starts one and becomes an ordinary
Python process. The server has the environment of such a process, because Ray's C++ part reads its
job from the environment when it is imported.
"""

import json
import os
import signal
import socket
import subprocess
import sys

ADDRESS = "XLT_RAY_FORK_SERVER"
"""Environment variable with the path of the server's socket."""


def main() -> int:
    """Have the server run a script in a fork of itself; return the script's exit code."""
    arguments = sys.argv[1:]
    name_cluster(arguments)
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(os.environ[ADDRESS])
    except OSError:
        start_server()
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


def start_server() -> None:
    """Start the server, unless another client has done so."""
    try:
        os.close(os.open(os.environ[ADDRESS] + ".started", os.O_CREAT | os.O_EXCL))
    except OSError:
        return
    between = os.fork()
    if between:
        # The server is nobody's child: Ray ends the children of a process that it ends.
        os.waitpid(between, 0)
        return
    subprocess.Popen(
        [sys.executable, "-m", "xlt_ray.cluster.fork_server"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main())
