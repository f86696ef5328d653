"""Prove cluster.local.yaml: a real `ray up` over SSH to two machines, a search on them, `ray down`.

    .venv/bin/python -m scripts.local_cluster

The machines are Linux namespaces of this one, on a network of their own that leads nowhere. Each
has its own processes, home folder, temporary files and SSH server, and of this folder it sees
nothing but a copy of `.venv`, in place of an installation that would take an hour here. Needs root,
sshd, rsync and tmux; writes what was seen to standard output. Ends with an error if a step fails.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

from scripts.tiny_search import write_search

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
LAPTOP = "10.77.0.1"
HOSTS = {"head": "10.77.0.11", "worker": "10.77.0.12"}
NAMESPACES = ("--mount", "--pid", "--uts", "--ipc", "--fork", "--mount-proc", "--kill-child")
SSHD = "/usr/sbin/sshd"


def run(*command: str | Path, quiet: bool = False) -> str:
    """Run a command; return its output, and show both."""
    if not quiet:
        print(f"$ {' '.join(map(str, command))}", flush=True)
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if not quiet or result.returncode:
        print(re.sub(r"\x1b\[[0-9;]*m", "", result.stdout), flush=True)
    if result.returncode:
        raise SystemExit(f"exit code {result.returncode}")
    return result.stdout


def until(what: str, done: Callable[[], Any], limit_s: float) -> Any:
    """What a condition returns once it holds."""
    start = time.monotonic()
    while not (value := done()):
        if time.monotonic() > start + limit_s:
            raise SystemExit(f"not within {limit_s:g} s: {what}")
        time.sleep(0.5)
    print(f"{what}: after {time.monotonic() - start:.0f} s", flush=True)
    return value


def overlay(lower: Path, changes: Path, at: Path) -> None:
    """Mount a folder so that it can be changed without changing it."""
    for folder in (changes / "upper", changes / "work", at):
        folder.mkdir(parents=True, exist_ok=True)
    layers = f"lowerdir={lower},upperdir={changes / 'upper'},workdir={changes / 'work'}"
    run("mount", "-t", "overlay", "overlay", "-o", layers, at, quiet=True)


def bind(source: Path, at: Path) -> None:
    """Show a folder or file in another place."""
    run("mount", "--bind", source, at, quiet=True)


# A machine, from its first process on.


def be_host(name: str, work: Path) -> None:
    """Become a machine and serve SSH until killed."""
    own = work / name
    for folder in ("home", "tmp"):
        (own / folder).mkdir(parents=True)
    # Under the same path everywhere, as with a user of the same name.
    home = work / "home"
    bind(own / "home", home)
    socket.sethostname(name)
    users = f"root:x:0:0:root:{home}:/bin/bash\nsshd:x:105:65534::/run/sshd:/bin/false\n"
    names = "127.0.0.1 localhost\n" + "".join(f"{ip} {host}\n" for host, ip in HOSTS.items())
    for file, text in (("passwd", users), ("hosts", names)):
        (own / file).write_text(text, encoding="utf-8")
        bind(own / file, Path("/etc") / file)
    overlay(VENV, own / "changes", own / "venv")
    run("mount", "-t", "tmpfs", "tmpfs", ROOT, quiet=True)
    VENV.mkdir()
    bind(own / "venv", VENV)
    for folder in ("/dev/shm", "/run"):
        run("mount", "-t", "tmpfs", "tmpfs", folder, quiet=True)
    bind(own / "tmp", Path("/tmp"))
    Path("/run/sshd").mkdir()
    # No index is reached from here, so what installs the package comes from the environment too.
    (home / ".config" / "pip").mkdir(parents=True)
    settings = "[global]\nno-index = true\nno-build-isolation = false\n"
    (home / ".config" / "pip" / "pip.conf").write_text(settings, encoding="utf-8")
    (home / "venv").symlink_to(VENV)
    config = {
        "HostKey": work / "key",
        "AuthorizedKeysFile": work / "key.pub",
        "StrictModes": "no",
        "UsePAM": "no",
        "PasswordAuthentication": "no",
        "MaxStartups": 100,
    }
    lines = "".join(f"{key} {value}\n" for key, value in config.items())
    (own / "sshd_config").write_text(lines, encoding="utf-8")
    log = (own / "sshd.log").open("wb")
    subprocess.Popen([SSHD, "-D", "-e", "-f", str(own / "sshd_config")], stderr=log)
    while True:  # as init does for processes whose parent has ended
        os.wait()


@contextlib.contextmanager
def hosts(work: Path) -> Iterator[None]:
    """The machines, on a network with this one."""
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", work / "key", quiet=True)
    run("ip", "link", "set", "lo", "up", quiet=True)
    run("ip", "link", "add", "lan", "type", "bridge", quiet=True)
    run("ip", "addr", "add", f"{LAPTOP}/24", "dev", "lan", quiet=True)
    run("ip", "link", "set", "lan", "up", quiet=True)
    started = []
    try:
        for name, address in HOSTS.items():
            inside = ("ip", "-n", name)
            run("ip", "netns", "add", name, quiet=True)
            run(
                "ip", "link", "add", name, "type", "veth", "peer", "eth0", "netns", name, quiet=True
            )
            run("ip", "link", "set", name, "master", "lan", "up", quiet=True)
            run(*inside, "addr", "add", f"{address}/24", "dev", "eth0", quiet=True)
            for device in ("lo", "eth0"):
                run(*inside, "link", "set", device, "up", quiet=True)
            # Ray finds its own address by the route to others. This one ends at the bridge.
            run(*inside, "route", "add", "default", "via", LAPTOP, quiet=True)
            command = ["ip", "netns", "exec", name, "unshare", *NAMESPACES, sys.executable, "-m"]
            started.append(
                subprocess.Popen([*command, "scripts.local_cluster", "host", name, str(work)])
            )
        until("both answer", lambda: not any(ssh(work, name, "true")[0] for name in HOSTS), 30)
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()


def ssh(work: Path, name: str, command: str, stdin: str = "") -> tuple[int, str]:
    """Run a command on a machine in a login shell; return its exit code and output."""
    options = ("BatchMode=yes", "StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null")
    given = [word for option in options for word in ("-o", option)]
    result = subprocess.run(
        ["ssh", "-q", *given, "-i", str(work / "key"), f"root@{HOSTS[name]}", command],
        input=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    return result.returncode, result.stdout


# What is proved.


def prove(work: Path) -> None:
    """Bring the cluster up, search on it, and take it down."""
    home, shared = Path.home(), work / "shared"
    (home / ".ssh").mkdir(parents=True)
    cluster = home / "cluster.local.yaml"
    text = (ROOT / "cluster.local.yaml").read_text(encoding="utf-8")
    for before, after in (
        ("head_ip: FILL-IN", f"head_ip: {HOSTS['head']}"),
        ("[FILL-IN, FILL-IN]", f"[{HOSTS['worker']}]"),
        ("ssh_user: FILL-IN", "ssh_user: root"),
        ("~/.ssh/FILL-IN", str(work / "key")),
    ):
        assert before in text, before
        text = text.replace(before, after)
    cluster.write_text(text, encoding="utf-8")
    search = write_search(
        shared, training={"epochs": 3}, search={"num_trials": 4, "max_concurrent": 4}
    )
    environment = "source ~/xlt-ray/environment; "

    def on_head(command: str) -> str:
        code, output = ssh(work, "head", environment + command)
        assert code == 0, output
        return output

    start = time.monotonic()
    run(VENV / "bin" / "ray", "up", "-y", cluster)
    print(f"up: after {time.monotonic() - start:.0f} s")

    def nodes() -> list[dict[str, Any]]:
        listed = json.loads(on_head("ray list nodes --format json"))
        alive = [node for node in listed if node["state"] == "ALIVE"]
        return alive if len(alive) == len(HOSTS) else []

    try:
        by_id = {node["node_id"]: node["node_ip"] for node in until("both nodes", nodes, 300)}
    except SystemExit:
        print(on_head("tail -n 50 /tmp/ray/session_latest/logs/monitor*"))
        raise
    assert set(by_id.values()) == set(HOSTS.values())
    code, output = ssh(work, "head", "RAY_AUTH_MODE=disabled ~/venv/bin/ray list nodes 2>&1")
    print("Without the token:", output.strip().splitlines()[-1])
    assert code != 0, output
    print("Listening on the head, as `ss` says:")
    print(on_head("ss -Htlnp | awk '{print $4, $6}' | sed 's/,pid.*//' | sort -u"))

    submitted = ("submit", "--tmux", cluster, ROOT / "launch.py", "--search", search)
    run(VENV / "bin" / "ray", *submitted, "--storage", shared / "runs")
    # As if the laptop's lid were closed: the search goes on with no connection to it.
    connections = ("ss", "-Htn", "state", "established")
    until("the last connection closed", lambda: not run(*connections, quiet=True), 60)

    def finished() -> list[Path]:
        return list((shared / "runs").glob("tiny-*/leaderboard.json"))

    (board,) = until("the search", finished, 900)
    rows = json.loads(board.read_text(encoding="utf-8"))
    assert [row["status"] for row in rows] == ["finished"] * 5, rows
    print({row["trial"]: row["objective"] for row in rows})
    actors = json.loads(on_head("ray list actors --limit 1000 --format json"))
    ran = Counter(
        by_id[actor["node_id"]] for actor in actors if actor["class_name"].endswith("TrainWorker")
    )
    print("Training workers by node:", dict(ran))
    assert set(ran) == set(HOSTS.values())
    database = work / "head" / "home" / "mlflow" / "mlflow.db"
    with contextlib.closing(sqlite3.connect(database)) as records:
        query = "select count(*) from runs where status = 'FINISHED'"
        # Of the search, its trials, and the encoder before fine-tuning.
        until(
            "the records are in MLflow",
            lambda: records.execute(query).fetchone() == (len(rows) + 2,),
            60,
        )
    submit_job(cluster, home, search)
    drain_worker(work, by_id)

    run(VENV / "bin" / "ray", "down", "-y", cluster)
    for name in HOSTS:
        code, output = ssh(work, name, "pgrep -lx raylet; pgrep -lx gcs_server")
        print(f"Ray's processes on {name}: {output.strip() or 'none'}")
        assert code == 1 and not output
    print("Proved.")


def submit_job(cluster: Path, home: Path, search: Path) -> None:
    """Submit a job through a forwarded port, with the token."""
    token = home / "token"
    run(VENV / "bin" / "ray", "rsync-down", cluster, "~/.ray/auth_token", token)
    forward = subprocess.Popen(
        [str(VENV / "bin" / "ray"), "dashboard", str(cluster)], start_new_session=True
    )

    def open_() -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", 8265), 1):
            return True
        return False

    try:
        until("the forwarded port", open_, 60)
        os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
        address = ("--address", "http://127.0.0.1:8265")
        job = ("xlt-ray", "--search", search, "--dry-run")
        output = run(VENV / "bin" / "ray", "job", "submit", *address, "--", *job)
        assert "Nothing was trained" in output and "succeeded" in output
    finally:
        os.killpg(forward.pid, signal.SIGTERM)
        forward.wait()


def drain_worker(work: Path, by_id: dict[str, str]) -> None:
    """Tell the worker of an interruption as AWS would; Ray must drain it, and it alone."""

    class Metadata(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            self.answer()

        def do_GET(self) -> None:
            self.answer()

        def log_message(self, *arguments: Any) -> None:
            pass

        def answer(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

    server = ThreadingHTTPServer((LAPTOP, 0), Metadata)
    Thread(target=server.serve_forever, daemon=True).start()
    script = (ROOT / "scripts" / "spot_notice.sh").read_text(encoding="utf-8")
    command = f"source ~/xlt-ray/environment; bash -s http://{LAPTOP}:{server.server_port}"
    code, output = ssh(work, "worker", command, stdin=script)
    print(output)
    assert code == 0

    def gone() -> list[dict[str, Any]]:
        code, output = ssh(
            work, "head", "source ~/xlt-ray/environment; ray list nodes --detail --format json"
        )
        return [node for node in json.loads(output) if node["state"] == "DEAD"] if not code else []

    (node,) = until("the idle worker left", gone, 60)
    print(by_id[node["node_id"]], node["state_message"])
    assert by_id[node["node_id"]] == HOSTS["worker"]
    server.shutdown()


def main(arguments: Sequence[str]) -> None:
    """Go through the stages, each in namespaces of its own."""
    stage, *rest = arguments or ["start"]
    again = [sys.executable, "-m", "scripts.local_cluster"]
    if stage == "start":
        missing = [tool for tool in (SSHD, "rsync", "tmux", "ip") if not shutil.which(tool)]
        if os.geteuid() != 0 or missing:
            raise SystemExit(f"needs root and {', '.join(missing) or 'nothing else'}")
        work = Path(tempfile.mkdtemp(prefix="xlt-ray-", dir="/var/tmp"))
        try:
            made = subprocess.run(["unshare", "--mount", *again, "install", str(work)], cwd=ROOT)
        finally:
            shutil.rmtree(work)
        raise SystemExit(made.returncode)
    if stage == "install":
        # What the machines install and this environment may lack, in a layer over it.
        (work,) = map(Path, rest)
        overlay(VENV, work / "layer", VENV)
        project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        needed = project["optional-dependencies"]["wordnet"]
        run(VENV / "bin/pip", "install", "-q", "-c", ROOT / "constraints.txt", *needed, quiet=True)
        os.execvp("unshare", ["unshare", "--net", *NAMESPACES, *again, "prove", str(work)])
    if stage == "prove":
        (work,) = map(Path, rest)
        for folder in ("shared", "home", "laptop", "laptop-tmp"):
            (work / folder).mkdir()
        bind(work / "laptop-tmp", Path("/tmp"))
        Path("/run/netns").mkdir(exist_ok=True)
        run("mount", "-t", "tmpfs", "tmpfs", "/run/netns", quiet=True)
        os.environ["HOME"] = str(work / "laptop")
        for name in [name for name in os.environ if name.startswith("RAY_")]:
            del os.environ[name]
        with hosts(work):
            prove(work)
    if stage == "host":
        be_host(rest[0], Path(rest[1]))


if __name__ == "__main__":
    main(sys.argv[1:])
