"""Joining or starting a Ray cluster, and what it offers."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from typing import Any

from xlt_ray.config.spec import SearchSpec
from xlt_ray.errors import UserError

_LOCAL_ENVIRONMENT = {
    # Keep freed memory (glibc): a training step frees and takes the same large blocks again, and
    # getting them from the kernel anew costs 5 to 25 % of a step on CPUs.
    "MALLOC_MMAP_THRESHOLD_": str(32 * 2**20),
    "MALLOC_TRIM_THRESHOLD_": str(512 * 2**20),
    "MALLOC_TOP_PAD_": str(64 * 2**20),
    # oneDNN keeps a compiled kernel for each of up to 1,024 shapes: more than a gigabyte a worker.
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "32",
    # A trial is three processes, of which one computes; Ray would warn of too many.
    "RAY_worker_maximum_startup_concurrency": "16",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
}
"""Environment of a Ray cluster that is started here, where the user set nothing else."""


def connect(address: str | None) -> Cluster:
    """Join a Ray cluster, or start one on this machine.

    Raises:
        UserError: If there is no cluster at the address.
    """

    import ray

    arguments: dict[str, Any] = {
        "log_to_driver": False,
        "logging_level": logging.ERROR,
        "configure_logging": True,
    }
    if address is None and "RAY_ADDRESS" not in os.environ:
        for name, value in _LOCAL_ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        # Trials pass nothing large through the object store.
        arguments |= {
            # Not the cluster that somebody may have started on this machine.
            "address": "local",
            "object_store_memory": 256 * 2**20,
            "include_dashboard": True,
            "dashboard_host": "127.0.0.1",
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
        # Ray has no class of its own for it.
        if "timed out during startup" not in str(error):
            raise
        raise UserError(
            "Ray did not start on this machine in time: it is too busy, or short of memory; end "
            "what else runs on it and try again"
        ) from None
    return offered()


def offered() -> Cluster:
    """What the connected cluster offers."""
    import ray
    from ray._private.state import state as global_state

    resources = ray.cluster_resources()
    # What the autoscaler may add counts too: a cluster's GPU nodes come only once trials ask.
    for name, most in (global_state.get_max_resources_from_cluster_config() or {}).items():
        resources[name] = max(resources.get(name, 0), most)
    return Cluster(cpus=resources.get("CPU", 0), gpus=resources.get("GPU", 0))


@dataclass(frozen=True)
class Cluster:
    """What the Ray cluster offers, the nodes that its autoscaler may add included."""

    cpus: float
    """CPU cores."""
    gpus: float
    """GPUs."""

    def concurrent_trials(self, spec: SearchSpec) -> int:
        """How many trials fit side by side.

        Raises:
            UserError: If not even one does.
        """
        resources = spec.resources
        workers = resources.workers_per_trial
        fits = [self.cpus / (workers * resources.cpus_per_worker)]
        if resources.gpus_per_worker:
            fits.append(self.gpus / (workers * resources.gpus_per_worker))
        # Tolerate binary fractions: 0.3 / 0.1 is three trials.
        trials = int(min(fits) + 1e-6)
        if trials < 1:
            raise UserError(
                f"resources: one trial takes {workers * resources.cpus_per_worker:g} CPU and "
                f"{workers * resources.gpus_per_worker:g} GPU, the cluster has {self.cpus:g} CPU "
                f"and {self.gpus:g} GPU; lower resources.workers_per_trial, cpus_per_worker or "
                "gpus_per_worker, or join a larger cluster with --address"
            )
        limit = spec.search.max_concurrent
        return trials if limit is None else min(trials, limit)
