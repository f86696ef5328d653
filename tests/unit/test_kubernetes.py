"""The files for Kubernetes: they fit each other, the pinned versions and the command line."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from xlt_ray import __version__
from xlt_ray.config.loading import load_spec

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "kuberay"


def documents(name: str) -> dict[str, dict[str, Any]]:
    """The objects of a file by kind."""
    text = (FOLDER / name).read_text(encoding="utf-8")
    return {document["kind"]: document for document in yaml.safe_load_all(text)}


@pytest.fixture(scope="module")
def cluster() -> dict[str, Any]:
    found: dict[str, Any] = documents("cluster.yaml")["RayCluster"]
    return found


@pytest.fixture(scope="module")
def mlflow() -> dict[str, dict[str, Any]]:
    return documents("mlflow.yaml")


def containers(cluster: dict[str, Any]) -> list[dict[str, Any]]:
    groups = [cluster["spec"]["headGroupSpec"], *cluster["spec"]["workerGroupSpecs"]]
    return [container for group in groups for container in group["template"]["spec"]["containers"]]


def test_ray_is_the_pinned_one_and_all_pods_have_this_package_s_image(
    cluster: dict[str, Any], mlflow: dict[str, dict[str, Any]]
) -> None:
    pinned = re.search(r"^ray==(.*)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert pinned and cluster["spec"]["rayVersion"] == pinned[1]
    [server] = mlflow["Deployment"]["spec"]["template"]["spec"]["containers"]
    images = {container["image"] for container in [*containers(cluster), server]}
    assert images == {f"FILL-IN/xlt-ray:{'.'.join(__version__.split('.')[:2])}"}


def test_the_image_has_every_file_that_the_package_is_built_from() -> None:
    lines = (ROOT / "Dockerfile").read_text().replace("\\\n", " ").splitlines()
    copied = [name for line in lines if line.startswith("COPY") for name in line.split()[1:-1]]
    sent = (ROOT / ".dockerignore").read_text().splitlines()
    assert sorted(copied) == sorted(line[1:] for line in sent if line.startswith("!"))
    for name in copied:
        assert (ROOT / name).exists(), name
    # The package's folders of searches is a link to the one at the top.
    assert (ROOT / "xlt_ray" / "search_spaces").resolve() == ROOT / "search_spaces"
    assert {"xlt_ray", "search_spaces"} <= set(copied)


def test_a_gpu_worker_runs_one_trial_and_none_waits_without_work(cluster: dict[str, Any]) -> None:
    [workers] = cluster["spec"]["workerGroupSpecs"]
    assert workers["replicas"] == workers["minReplicas"] == 0 < workers["maxReplicas"]
    assert cluster["spec"]["enableInTreeAutoscaling"] is True
    [container] = workers["template"]["spec"]["containers"]
    needed = load_spec("xnli_xlmr").resources
    limits = container["resources"]["limits"]
    assert limits["nvidia.com/gpu"] == needed.workers_per_trial * needed.gpus_per_worker
    assert int(limits["cpu"]) >= needed.workers_per_trial * needed.cpus_per_worker
    # The autoscaler plans with requests: with less than the limits, two trials would share a GPU.
    assert container["resources"]["requests"] == limits


def test_searches_find_their_cluster_their_mlflow_and_the_bucket(
    cluster: dict[str, Any], mlflow: dict[str, dict[str, Any]]
) -> None:
    service = mlflow["Service"]
    place = f"{service['metadata']['name']}:{service['spec']['ports'][0]['port']}"
    for container in containers(cluster):
        settings = {entry["name"]: entry["value"] for entry in container["env"]}
        assert settings["MLFLOW_TRACKING_URI"] == f"http://{place}"
        assert settings["XLT_RAY_ADDRESS"] == "auto"
        assert settings["XLT_RAY_STORAGE"] == "$(XLT_RAY_BUCKET)/runs"
    pods = mlflow["Deployment"]["spec"]["template"]
    assert service["spec"]["selector"].items() <= pods["metadata"]["labels"].items()
    [server] = pods["spec"]["containers"]
    # MLflow refuses requests for a host that it was not told of.
    [allowed] = [a.partition("=")[2] for a in server["args"] if a.startswith("--allowed-hosts")]
    assert place in allowed.split(",")


def test_secrets_come_from_the_secret_only(
    cluster: dict[str, Any], mlflow: dict[str, dict[str, Any]]
) -> None:
    [server] = mlflow["Deployment"]["spec"]["template"]["spec"]["containers"]
    for container in [*containers(cluster), server]:
        assert container["envFrom"] == [{"secretRef": {"name": "xlt-ray-secrets"}}]
        for entry in container.get("env", []):
            assert not re.search("TOKEN|SECRET|PASSWORD|ACCESS_KEY", entry["name"])
    # KubeRay keeps the cluster's token in a secret of its own, which has the cluster's name.
    assert cluster["spec"]["authOptions"] == {"mode": "token"}
    assert cluster["metadata"]["name"] == "xlt-ray"
    page = (ROOT / "docs" / "cluster.md").read_text(encoding="utf-8")
    assert "kubectl create secret generic xlt-ray-secrets" in page and "XLT_RAY_BUCKET" in page


def test_the_job_is_a_search_on_that_cluster_in_the_folder_that_stays(
    cluster: dict[str, Any],
) -> None:
    job = documents("job.yaml")["RayJob"]["spec"]
    assert job["clusterSelector"] == {"ray.io/cluster": cluster["metadata"]["name"]}
    change, _, command = job["entrypoint"].partition(" && ")
    program, flag, search = shlex.split(command)
    assert (program, flag) == ("xlt-ray", "--search") and load_spec(search).name == "xnli_xlmr"
    [head] = cluster["spec"]["headGroupSpec"]["template"]["spec"]["containers"]
    assert change == "cd ~/work"
    assert head["volumeMounts"] == [{"name": "work", "mountPath": "/home/ray/work"}]
    assert job["backoffLimit"] == job["submitterConfig"]["backoffLimit"] == 0
