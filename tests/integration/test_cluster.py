"""The cluster files, through Ray's own code, against stand-ins of AWS on the loopback."""

from __future__ import annotations

import contextlib
import copy
import json
import os
import re
import shlex
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import jsonschema
import pytest
import requests
import typer
import yaml
from pyarrow.fs import FileSelector, FileSystem

from tests.support.searching import ROOT, environment, write_search
from tests.support.waiting import until
from xlt_ray.cli.app import app

boto3 = pytest.importorskip("boto3", reason="boto3 talks to AWS")
pytest.importorskip("moto.server", reason="moto stands in for AWS")

BUCKET = "searches"
OWN_ADDRESS = "203.0.113.7/32"
PAGE = (ROOT / "docs" / "cluster.md").read_text(encoding="utf-8")


# The files themselves.


def local_cluster() -> dict[str, Any]:
    """cluster.local.yaml, filled in."""
    text = (ROOT / "cluster.local.yaml").read_text(encoding="utf-8")
    tree: dict[str, Any] = yaml.safe_load(text.replace("FILL-IN", "filled-in"))
    return tree


def test_ray_accepts_the_file_for_machines_of_ones_own() -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    cluster = local_cluster()
    prepared = prepare_config(copy.deepcopy(cluster))
    validate_config(prepared)
    # All workers of the list, from the start.
    (node_type,) = prepared["available_node_types"].values()
    assert node_type["min_workers"] == node_type["max_workers"] == 2
    with pytest.raises(jsonschema.ValidationError):
        validate_config(prepare_config(cluster | {"setup_comands": []}))
    steps = [value for key, value in cluster.items() if key.endswith("_commands")]
    for command in (command for step in steps for command in step):
        subprocess.run(["bash", "-n", "-c", f"({command})"], check=True)


def test_both_files_set_a_machine_up_alike() -> None:
    aws = yaml.safe_load((ROOT / "cluster.yaml").read_text(encoding="utf-8"))
    own = local_cluster()
    # The system's packages are the owner's business there.
    assert own["setup_commands"] == [
        command for command in aws["setup_commands"] if "apt-get" not in command
    ]
    assert own["file_mounts"].items() <= aws["file_mounts"].items()
    assert set(own["head_setup_commands"]) <= set(aws["head_setup_commands"])
    assert own["worker_start_ray_commands"] == aws["worker_start_ray_commands"][:2]


def page_commands(program: str) -> list[list[str]]:
    """The commands of docs/cluster.md that call a program."""
    blocks = re.findall(r"^```sh\n(.*?)^```", PAGE, flags=re.DOTALL | re.MULTILINE)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))[:1] == [program]]


def test_the_pages_commands_are_understood() -> None:
    from ray.scripts.scripts import cli

    launches = []
    for _, *words in page_commands("ray"):
        command: Any = cli
        while hasattr(command, "commands"):
            command = command.commands[words.pop(0)]
        context = command.make_context(command.name, list(words))
        config = context.params.get("cluster_config_file")
        assert config is None or (ROOT / config).is_file()
        for program in ("launch.py", "xlt-ray"):
            if program in words:
                launches.append(words[words.index(program) + 1 :])
    assert len(launches) >= 3
    for arguments in launches:
        command = typer.main.get_command(app).commands["search"]  # type: ignore[attr-defined]
        command.make_context("launch.py", arguments)


# AWS, up to the launched instances. Nothing may try to reach those: their addresses look public.


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment of a process whose AWS is a server on the loopback."""
    folder = tmp_path_factory.mktemp("aws")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    endpoint = f"http://127.0.0.1:{port}"
    settings = {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "stand-in",
        "AWS_SECRET_ACCESS_KEY": "stand-in",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    with (folder / "server.log").open("wb") as log:
        server = subprocess.Popen(
            [*(sys.executable, "-m", "moto.server"), "-H", "127.0.0.1", "-p", str(port)],
            stdout=log,
            stderr=log,
            env={**os.environ, "MOTO_IAM_LOAD_MANAGED_POLICIES": "true"},
        )

    def answers() -> bool:
        assert server.poll() is None, (folder / "server.log").read_text()
        with contextlib.suppress(requests.ConnectionError):
            return requests.get(f"{endpoint}/moto-api/", timeout=5).ok
        return False

    try:
        until(answers)
        yield settings
    finally:
        server.terminate()
        server.wait()


@pytest.fixture
def account(
    aws: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[dict[str, str]]:
    """A fresh AWS account, also for this process and for Ray's AWS provider in it."""
    from ray.autoscaler._private.aws import config, utils

    requests.post(f"{aws['AWS_ENDPOINT_URL']}/moto-api/reset", timeout=30).raise_for_status()
    caches = (utils.resource_cache, utils.client_cache, config._get_subnets_or_die)
    for cache in caches:
        cache.cache_clear()
    # Ray keeps the key of the instances in the home folder.
    for name, value in {**aws, "HOME": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)
    yield aws
    for cache in caches:
        cache.cache_clear()


def set_up(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run scripts/aws_setup.py."""
    return subprocess.run(
        [sys.executable, "-m", "scripts.aws_setup", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )


def filled_in() -> dict[str, Any]:
    """cluster.yaml with the values that aws_setup.py prints, and some image."""
    made = set_up("--bucket", BUCKET, "--ssh-from", OWN_ADDRESS)
    assert made.returncode == 0, made.stderr
    text = (ROOT / "cluster.yaml").read_text(encoding="utf-8")
    region = yaml.safe_load(text)["provider"]["region"]
    image = boto3.client("ec2", region).describe_images()["Images"][0]["ImageId"]
    text = text.replace("ami-FILL-IN", image)
    for line in made.stdout.splitlines()[1:]:
        name = line.split(":")[0]
        text, count = re.subn(rf"(?m)^{name}:.*$", lambda _, line=line: line, text)
        assert count == 1, name
    assert "FILL-IN" not in text
    tree: dict[str, Any] = yaml.safe_load(text)
    return tree


def launch_nodes(cluster: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Launch one node of each type as `ray up` and Ray's autoscaler do; what AWS knows of them."""
    from ray.autoscaler._private.aws.config import bootstrap_aws
    from ray.autoscaler._private.aws.node_provider import AWSNodeProvider
    from ray.autoscaler._private.util import prepare_config, validate_config
    from ray.autoscaler.tags import TAG_RAY_NODE_KIND, TAG_RAY_USER_NODE_TYPE

    prepared = AWSNodeProvider.fillout_available_node_types_resources(prepare_config(cluster))
    validate_config(prepared)
    config = bootstrap_aws(prepared)
    provider = AWSNodeProvider(config["provider"], config["cluster_name"])
    nodes = {}
    for name, node_type in config["available_node_types"].items():
        head = name == config["head_node_type"]
        tags = {
            TAG_RAY_NODE_KIND: "head" if head else "worker",
            TAG_RAY_USER_NODE_TYPE: name,
        }
        node_config = copy.deepcopy(node_type["node_config"])
        if head:
            node_config.update(config["head_node"])
        (node_id,) = provider.create_node(node_config, tags, 1)
        client = boto3.client("ec2", config["provider"]["region"])
        (reservation,) = client.describe_instances(InstanceIds=[node_id])["Reservations"]
        (nodes[name],) = reservation["Instances"]
        nodes[name]["resources"] = node_type["resources"]
    return nodes


def open_to(nodes: dict[str, dict[str, Any]]) -> set[tuple[str, int | None, str]]:
    """What the nodes' security groups let in: protocol, port, and from which addresses or group."""
    groups = {group["GroupId"] for node in nodes.values() for group in node["SecurityGroups"]}
    region = yaml.safe_load((ROOT / "cluster.yaml").read_text())["provider"]["region"]
    found = boto3.client("ec2", region).describe_security_groups(GroupIds=sorted(groups))
    rules = set()
    for group in found["SecurityGroups"]:
        for rule in group["IpPermissions"]:
            port = rule.get("FromPort")
            assert rule.get("ToPort") == port
            sources = [entry["CidrIp"] for entry in rule.get("IpRanges", [])]
            sources += [entry["CidrIpv6"] for entry in rule.get("Ipv6Ranges", [])]
            sources += [entry["PrefixListId"] for entry in rule.get("PrefixListIds", [])]
            sources += [
                "itself" if entry["GroupId"] == group["GroupId"] else entry["GroupId"]
                for entry in rule.get("UserIdGroupPairs", [])
            ]
            rules |= {(rule["IpProtocol"], port, source) for source in sources}
    return rules


def test_aws_launches_what_the_file_says(account: dict[str, str]) -> None:
    nodes = launch_nodes(filled_in())
    head, worker = nodes["head"], nodes["gpu_worker"]
    assert (head["InstanceType"], worker["InstanceType"]) == ("m6i.xlarge", "g5.xlarge")
    assert "InstanceLifecycle" not in head
    assert worker["InstanceLifecycle"] == "spot"
    assert head["resources"]["CPU"] == 4 and "GPU" not in head["resources"]
    assert worker["resources"]["CPU"] == 4 and worker["resources"]["GPU"] == 1
    for name, node in nodes.items():
        role = node["IamInstanceProfile"]["Arn"].rpartition("/")[2]
        assert role == {"head": "xlt-ray-head", "gpu_worker": "xlt-ray-worker"}[name]
        assert node["MetadataOptions"]["HttpTokens"] == "required"
        (disk,) = (
            disk for disk in node["BlockDeviceMappings"] if disk["DeviceName"] == "/dev/sda1"
        )
        volumes = boto3.client("ec2", "us-west-2").describe_volumes(
            VolumeIds=[disk["Ebs"]["VolumeId"]]
        )["Volumes"]
        assert [(volume["Size"], volume["VolumeType"]) for volume in volumes] == [(150, "gp3")]


def test_nodes_let_in_ssh_from_one_address_and_each_other(account: dict[str, str]) -> None:
    cluster = filled_in()
    assert open_to(launch_nodes(cluster)) == {
        ("tcp", 22, OWN_ADDRESS),
        ("-1", None, "itself"),
    }
    # From elsewhere: the address takes the place of the one before.
    assert set_up("--bucket", BUCKET, "--ssh-from", "198.51.100.9/32").returncode == 0
    assert open_to(launch_nodes(cluster)) == {
        ("tcp", 22, "198.51.100.9/32"),
        ("-1", None, "itself"),
    }


def test_without_the_group_ray_would_open_ssh_to_the_world(account: dict[str, str]) -> None:
    """Why the file must name a group; and that the check above would see it."""
    cluster = filled_in()
    for node_type in cluster["available_node_types"].values():
        del node_type["node_config"]["SecurityGroupIds"]
    assert ("tcp", 22, "0.0.0.0/0") in open_to(launch_nodes(cluster))


@pytest.mark.parametrize("addresses", ["0.0.0.0/0", "203.0.113.7/8", "my-laptop"])
def test_ssh_is_not_opened_to_many(addresses: str) -> None:
    made = set_up("--bucket", BUCKET, "--ssh-from", addresses)
    assert made.returncode == 2
    assert made.stderr.startswith("error: --ssh-from") and made.stderr.count("\n") == 1


def test_the_bucket_is_closed_to_the_public(account: dict[str, str]) -> None:
    filled_in()
    found = boto3.client("s3").get_public_access_block(Bucket=BUCKET)
    assert all(found["PublicAccessBlockConfiguration"].values())


def test_the_roles_allow_what_is_done_with_them_and_no_more(account: dict[str, str]) -> None:
    from botocore.exceptions import ClientError
    from ray.autoscaler._private.aws.config import bootstrap_aws
    from ray.autoscaler._private.aws.node_provider import AWSNodeProvider
    from ray.autoscaler._private.util import prepare_config

    config = bootstrap_aws(prepare_config(filled_in()))
    region = config["provider"]["region"]
    boto3.client("s3", region).create_bucket(
        Bucket="another", CreateBucketConfiguration={"LocationConstraint": region}
    )
    sessions = {}
    for role in ("xlt-ray-head", "xlt-ray-worker"):
        arn = boto3.client("iam", region).get_role(RoleName=role)["Role"]["Arn"]
        given = boto3.client("sts", region).assume_role(RoleArn=arn, RoleSessionName="node")
        sessions[role] = {
            "aws_access_key_id": given["Credentials"]["AccessKeyId"],
            "aws_secret_access_key": given["Credentials"]["SecretAccessKey"],
            "aws_session_token": given["Credentials"]["SessionToken"],
        }
    # From here on every call needs a permission.
    api = f"{account['AWS_ENDPOINT_URL']}/moto-api/reset-auth"
    requests.post(api, data="0", timeout=30).raise_for_status()
    try:
        node_config = config["available_node_types"]["gpu_worker"]["node_config"]
        tags = {"ray-node-type": "worker"}
        head = AWSNodeProvider(
            {**config["provider"], "aws_credentials": sessions["xlt-ray-head"]}, "xlt-ray"
        )
        (node_id,) = head.create_node(node_config, tags, 1)
        assert head.non_terminated_nodes({}) == [node_id]
        head.set_node_tags(node_id, {"ray-node-status": "up-to-date"})
        head.terminate_node(node_id)
        assert head.non_terminated_nodes({}) == []
        for session in sessions.values():
            bucket = boto3.client("s3", region, **session)
            bucket.put_object(Bucket=BUCKET, Key="runs/x", Body=b"x")
            bucket.get_object(Bucket=BUCKET, Key="runs/x")
            bucket.list_objects_v2(Bucket=BUCKET)
            bucket.delete_object(Bucket=BUCKET, Key="runs/x")
            with pytest.raises(ClientError, match="AccessDenied"):
                bucket.list_objects_v2(Bucket="another")
            with pytest.raises(ClientError, match="AccessDenied"):
                boto3.client("iam", region, **session).list_roles()
        with pytest.raises(ClientError, match="AccessDenied"):
            boto3.client("ec2", region, **sessions["xlt-ray-worker"]).describe_instances()
    finally:
        requests.post(api, data="inf", timeout=30).raise_for_status()


# A spot notice.


class Metadata:
    """Instance metadata (IMDSv2) that has no notice at first."""

    def __init__(self) -> None:
        self.asked = Counter[str]()
        metadata = self

        class Handler(BaseHTTPRequestHandler):
            def do_PUT(self) -> None:
                known = self.path == "/latest/api/token"
                self.answer(200 if known else 404, "a-token")

            def do_GET(self) -> None:
                if self.headers["X-aws-ec2-metadata-token"] != "a-token":
                    self.answer(401, "")
                    return
                metadata.asked[self.path] += 1
                due = self.path == "/latest/meta-data/spot/instance-action" and (
                    metadata.asked[self.path] > 1
                )
                notice = {"action": "terminate", "time": "2026-01-01T00:02:00Z"}
                self.answer(200 if due else 404, json.dumps(notice) if due else "")

            def answer(self, status: int, body: str) -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body.encode())

            def log_message(self, *arguments: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    @contextlib.contextmanager
    def serving(self) -> Iterator[Metadata]:
        thread = Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()
            thread.join()


def test_a_spot_notice_drains_the_node() -> None:
    import ray
    from ray._raylet import GcsClient

    @ray.remote(num_cpus=1)
    class Trial:
        def ready(self) -> bool:
            return True

    ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False)
    try:
        trial = Trial.remote()  # an idle node would leave at once
        assert ray.get(trial.ready.remote())
        address = ray.get_runtime_context().gcs_address
        node_id = ray.get_runtime_context().get_node_id()
        assert GcsClient(address=address).get_draining_nodes() == {}
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        with Metadata().serving() as metadata:
            before = time.time()
            told = subprocess.run(
                ["bash", str(ROOT / "scripts" / "spot_notice.sh"), metadata.url],
                env={**os.environ, "PATH": path, "RAY_ADDRESS": address},
                capture_output=True,
                text=True,
                timeout=120,
            )
            after = time.time()
        assert told.returncode == 0, told.stdout + told.stderr
        assert '"action": "terminate"' in told.stdout
        assert metadata.asked == {"/latest/meta-data/spot/instance-action": 2}
        drained = GcsClient(address=address).get_draining_nodes()
        assert list(drained) == [node_id]
        assert before + 110 <= drained[node_id] / 1000 <= after + 110
    finally:
        ray.shutdown()


# Files that outlive the head.


def keeping(*arguments: str, folder: Path, aws: dict[str, str]) -> subprocess.Popen[bytes]:
    """Start scripts/keep_in_bucket.py in a folder."""
    return subprocess.Popen(
        [sys.executable, str(ROOT / "scripts" / "keep_in_bucket.py"), *arguments],
        cwd=folder,
        env={**os.environ, **aws},
    )


def test_a_new_head_goes_on_with_the_files_of_the_last_one(
    account: dict[str, str], tmp_path: Path
) -> None:
    boto3.client("s3", "us-east-1").create_bucket(Bucket=BUCKET)
    uri, folders = f"s3://{BUCKET}/head", ("mlflow", "runs")
    first, second = tmp_path / "first", tmp_path / "second"
    (first / "mlflow").mkdir(parents=True)
    (first / "runs" / "demo-1").mkdir(parents=True)
    second.mkdir()
    (first / "runs" / "demo-1" / "search.yaml").write_text("name: demo\n")
    (first / "runs" / "demo-1" / "study.lock").touch()
    database = sqlite3.connect(first / "mlflow" / "mlflow.db")
    # As MLflow has it: what was written last is in a log beside the database.
    database.execute("pragma journal_mode = wal")
    database.execute("create table runs (name text)")
    database.execute("insert into runs values ('committed')")
    database.commit()
    database.execute("insert into runs values ('half way')")

    assert keeping("restore", uri, *folders, folder=first, aws=account).wait(60) == 0
    keeper = keeping("keep", uri, *folders, "--seconds", "0.2", folder=first, aws=account)
    bucket = boto3.client("s3")

    def keys() -> set[str]:
        return {entry["Key"] for entry in bucket.list_objects_v2(Bucket=BUCKET).get("Contents", [])}

    whole = {"head/mlflow/mlflow.db", "head/runs/demo-1/search.yaml"}
    until(lambda: whole <= keys())
    # What is written just before the end is copied too.
    (first / "runs" / "demo-1" / "best.yaml").write_text("name: best\n")
    keeper.terminate()
    assert keeper.wait(60) == 0
    assert {key for key in keys() if not key.endswith("/")} == {
        *whole,
        "head/runs/demo-1/best.yaml",
    }

    (second / "runs" / "demo-1").mkdir(parents=True)
    (second / "runs" / "demo-1" / "best.yaml").write_text("name: newer\n")
    assert keeping("restore", uri, *folders, folder=second, aws=account).wait(60) == 0
    with contextlib.closing(sqlite3.connect(second / "mlflow" / "mlflow.db")) as copied:
        assert copied.execute("select name from runs").fetchall() == [("committed",)]
        assert copied.execute("pragma integrity_check").fetchall() == [("ok",)]
    assert (second / "runs" / "demo-1" / "search.yaml").read_text() == "name: demo\n"
    assert (second / "runs" / "demo-1" / "best.yaml").read_text() == "name: newer\n"
    database.close()


# A search whose checkpoints and state are in a bucket.


@pytest.mark.slow
def test_a_search_in_a_bucket_is_stopped_and_goes_on(
    account: dict[str, str], tmp_path: Path
) -> None:
    client = boto3.client("s3", "us-east-1")
    client.create_bucket(Bucket=BUCKET)
    search = write_search(
        tmp_path,
        training={"epochs": 20, "evaluations_per_epoch": 1},
        search={"num_trials": 1, "baselines": []},
    )
    launched = [sys.executable, str(ROOT / "launch.py")]
    running: dict[str, Any] = {
        "cwd": tmp_path,
        "env": environment(tmp_path),
        "stdout": subprocess.PIPE,
        "stderr": subprocess.STDOUT,
        "text": True,
    }
    where = ["--storage", f"s3://{BUCKET}/runs"]
    process = subprocess.Popen([*launched, "--search", str(search), *where], **running)
    assert process.stdout is not None
    seen = []
    for line in process.stdout:
        seen.append(line)
        if sum("dev/accuracy/en" in line and "step" in line for line in seen) == 3:
            process.send_signal(signal.SIGINT)
            break
    output = "".join([*seen, *process.stdout])
    assert process.wait(120) == 130, output
    (name,) = (path.name for path in (tmp_path / "runs").iterdir())
    bucket, _ = FileSystem.from_uri(f"s3://{BUCKET}/runs")
    folder = f"{BUCKET}/runs/{name}"
    files = {
        found.path.removeprefix(f"{folder}/")
        for found in bucket.get_file_info(FileSelector(folder, recursive=True))
    }
    kept = {path for path in files if path.startswith("checkpoints/") and "optimizer.pt" in path}
    assert kept, files
    # Nothing of it is on the disk of the machine that may be gone.
    local = {path.name for path in (tmp_path / "runs" / name).rglob("*") if path.is_file()}
    assert "optimizer.pt" not in local

    # As on a new machine, which has the bucket and the search's own small folder.
    (tmp_path / "cache").rename(tmp_path / "old-cache")
    command = re.search(r"To go on: xlt-ray search (.*)", output)
    assert command is not None, output
    arguments = shlex.split(command[1])
    assert arguments[arguments.index("--storage") + 1] == f"s3://{BUCKET}/runs"
    resumed = subprocess.run([*launched, *arguments], **running, timeout=400)
    assert resumed.returncode == 0, resumed.stdout
    first, second = (
        [int(step) for step in re.findall(r"step (\d+)\b.*dev/accuracy/en", text)]
        for text in (output, resumed.stdout)
    )
    # 96 pairs in batches of 16: an evaluation every 6 steps, up to step 120, and none done twice
    # but for the one that the driver may have missed when it stopped.
    assert second[-1] == 120 and min(second) > first[0], resumed.stdout
    assert len(set(first) & set(second)) <= 1
    (row,) = json.loads((tmp_path / "runs" / name / "leaderboard.json").read_text())
    assert row["status"] == "finished"
    (predictions,) = (tmp_path / "runs" / name / "predictions").iterdir()
    stored = [
        found.path
        for found in bucket.get_file_info(FileSelector(folder, recursive=True))
        if found.path.endswith("/predictions.npz")
    ]
    assert [bucket.open_input_file(path).read() for path in stored] == [predictions.read_bytes()]
