"""How many trials fit into a cluster."""

from __future__ import annotations

from typing import Any

import pytest

from xlt_ray.cluster.connection import Cluster
from xlt_ray.config.loading import load_spec
from xlt_ray.errors import UserError


@pytest.mark.parametrize(
    ("cluster", "changes", "expected"),
    [
        (Cluster(8, 0), {"resources.cpus_per_worker": 2}, 4),
        (Cluster(8, 0), {"resources.cpus_per_worker": 3}, 2),
        (Cluster(8, 0), {"resources.cpus_per_worker": 2, "search.max_concurrent": 3}, 3),
        (Cluster(8, 0), {"resources.cpus_per_worker": 1, "resources.workers_per_trial": 3}, 2),
        (Cluster(64, 2), {"resources.cpus_per_worker": 1, "resources.gpus_per_worker": 1}, 2),
        # 0.3 / 0.1 is a little less than 3 in binary.
        (Cluster(64, 0.3), {"resources.cpus_per_worker": 1, "resources.gpus_per_worker": 0.1}, 3),
        (Cluster(64, 2), {"resources.cpus_per_worker": 1, "resources.gpus_per_worker": 0.4}, 4),
        (Cluster(64, 2), {"resources.cpus_per_worker": 1, "resources.gpus_per_worker": 0.1}, 20),
    ],
)
def test_trials_at_the_same_time(cluster: Cluster, changes: dict[str, Any], expected: int) -> None:
    spec = load_spec("demo", {"search.max_concurrent": None} | changes)
    assert cluster.concurrent_trials(spec) == expected


def test_a_worker_that_no_node_has_room_for_is_an_error() -> None:
    spec = load_spec("demo", {"resources.cpus_per_worker": 8})
    # As much in all, and enough for one worker on one node only.
    assert Cluster(32, 8, nodes=((8, 0), *[(4, 1)] * 6)).concurrent_trials(spec)
    with pytest.raises(
        UserError, match=r"takes 8 CPU and 0 GPU of one node.* have 4 CPU and 1 GPU"
    ):
        Cluster(32, 8, nodes=((4, 1),) * 8).concurrent_trials(spec)
    spec = load_spec("demo", {"resources.gpus_per_worker": 2})
    with pytest.raises(UserError, match=r"nodes have 4 CPU and 1 GPU or 8 CPU and 0 GPU"):
        Cluster(40, 8, nodes=((8, 0), *[(4, 1)] * 8)).concurrent_trials(spec)


def test_a_cluster_that_is_too_small_is_an_error_that_says_what_to_do() -> None:
    spec = load_spec("demo", {"resources.cpus_per_worker": 4})
    with pytest.raises(UserError, match=r"one trial takes 4 CPU .* has 2 CPU .* --address"):
        Cluster(2, 0, nodes=((2, 0),)).concurrent_trials(spec)
