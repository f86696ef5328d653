"""The Ray cluster: join or start it, and count the trials that fit; the CLI connects."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from typing import Any

from xlt_ray.config.spec import SearchSpec
from xlt_ray.errors import UserError

LOCAL_ENVIRONMENT = {
    # Keep freed memory (glibc): each training step frees and allocates the same large blocks, and
    # allocating them from the kernel costs 5 to 25 % of a step on CPUs.
    "MALLOC_MMAP_THRESHOLD_": str(32 * 2**20),
    "MALLOC_TRIM_THRESHOLD_": str(512 * 2**20),
    "MALLOC_TOP_PAD_": str(64 * 2**20),
    # oneDNN keeps a compiled kernel for each of up to 1,024 shapes: more than a gigabyte a worker.
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "32",
    # A trial has nine processes, of which one trains; Ray would warn about too many.
    "RAY_worker_maximum_startup_concurrency": "16",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
}
"""Default environment variables of a Ray cluster on this machine."""


def connect(address: str | None, model: str) -> Cluster:
    """Join a Ray cluster, or start one on this machine.

    Args:
        address: Address of the cluster; None: `RAY_ADDRESS`, or start one.
        model: The model of the trials, whose tokenizer a cluster of this machine reads once.

    Raises:
        UserError: If there is no cluster at the address.
    """

    import ray

    from xlt_ray.cluster import fork_server

    arguments: dict[str, Any] = {
        "log_to_driver": False,
        "logging_level": logging.ERROR,
        "configure_logging": True,
    }
    if address is None and "RAY_ADDRESS" not in os.environ:
        for name, value in LOCAL_ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        # Trials pass nothing large through the object store.
        arguments |= {
            # Do not join a cluster that somebody started on this machine.
            "address": "local",
            "object_store_memory": 256 * 2**20,
            "include_dashboard": True,
            "dashboard_host": "127.0.0.1",
            "runtime_env": {"py_executable": fork_server.command(model)},
        }
    else:
        arguments["address"] = address or os.environ["RAY_ADDRESS"]
    try:
        ray.init(**arguments)
    except ConnectionError:
        raise UserError(
            f"--address {arguments['address']}: no Ray cluster answers there; leave the flag out "
            "to run on this machine"
        ) from None
    except Exception as error:
        # Ray has no error class for it.
        if "timed out during startup" not in str(error):
            raise
        raise UserError(
            "Ray did not start on this machine in time: it is too busy, or short of memory; end "
            "what else runs on it and try again"
        ) from None
    return offered()


def warm_up() -> None:
    """Let the cluster's processes import their libraries while the search gets ready.

    On a cluster of this machine, the first process starts the fork server; nobody waits for it.
    """
    import ray

    ray.remote(num_cpus=0)(_nothing).remote()


def _nothing() -> None:
    """Do nothing, in a process of Ray's."""


def offered() -> Cluster:
    """Return the resources of the connected cluster."""
    import ray

    from xlt_ray.cluster.ray_patches import autoscaler_limits, autoscaler_nodes

    resources = ray.cluster_resources()
    # Count nodes that the autoscaler may add: GPU nodes start only when trials request them.
    for name, most in autoscaler_limits().items():
        resources[name] = max(resources.get(name, 0), most)
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]] + autoscaler_nodes()
    return Cluster(
        cpus=resources.get("CPU", 0),
        gpus=resources.get("GPU", 0),
        nodes=tuple((node.get("CPU", 0), node.get("GPU", 0)) for node in nodes),
    )


@dataclass(frozen=True)
class Cluster:
    """Resources of the Ray cluster, including nodes that its autoscaler may add."""

    cpus: float
    """CPU cores."""
    gpus: float
    """GPUs."""
    nodes: tuple[tuple[float, float], ...] = ()
    """CPU cores and GPUs of each node, or of each kind of node; empty: not known."""

    def concurrent_trials(self, spec: SearchSpec) -> int:
        """Return how many trials run at the same time.

        Raises:
            UserError: If the cluster is too small for one trial, or no node has room for a worker.
        """
        resources = spec.resources
        workers = resources.workers_per_trial
        fits = [_whole(self.cpus / (workers * resources.cpus_per_worker))]
        if share := resources.gpus_per_worker:
            if share < 1:
                # A worker is on one GPU: of two GPUs with shares of 0.4, four workers.
                rest = self.gpus - _whole(self.gpus)
                places = _whole(self.gpus) * _whole(1 / share) + _whole(rest / share)
            else:
                places = _whole(self.gpus / share)
            fits.append(places // workers)
        trials = min(fits)
        if trials < 1:
            raise UserError(
                f"resources: one trial takes {workers * resources.cpus_per_worker:g} CPU and "
                f"{workers * resources.gpus_per_worker:g} GPU, the cluster has {self.cpus:g} CPU "
                f"and {self.gpus:g} GPU; lower resources.workers_per_trial, cpus_per_worker or "
                "gpus_per_worker, or join a larger cluster with --address"
            )
        needed = resources.cpus_per_worker, resources.gpus_per_worker
        if self.nodes and not any(
            cpus >= needed[0] and gpus >= needed[1] for cpus, gpus in self.nodes
        ):
            shown = " or ".join(
                f"{cpus:g} CPU and {gpus:g} GPU" for cpus, gpus in sorted(set(self.nodes))
            )
            raise UserError(
                f"resources: a worker takes {needed[0]:g} CPU and {needed[1]:g} GPU of one node, "
                f"and the cluster's nodes have {shown}; lower resources.cpus_per_worker or "
                "gpus_per_worker"
            )
        limit = spec.search.max_concurrent
        return trials if limit is None else min(trials, limit)


def _whole(number: float) -> int:
    """Round down, but tolerate binary fractions: 0.3 / 0.1 is 3."""
    return int(number + 1e-6)
