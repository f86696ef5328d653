"""Ray tasks on models, with the resources of a trial's worker: assessments and soups."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import ray

from xlt_ray.config.spec import ResourceSpec

T = TypeVar("T")


def results_of_tasks(
    function: Callable[..., T],
    calls: Mapping[str, tuple[Any, ...]],
    resources: ResourceSpec,
    failed: Callable[[str, str], None],
) -> dict[str, T]:
    """Call a function in parallel, one Ray task a call.

    Args:
        function: The function.
        calls: Its arguments, by the name of the call.
        resources: Those of a trial; a task gets one worker's.
        failed: Called with the name of a call and the reason if it fails.

    Returns:
        What the calls returned by name, without those that failed.
    """
    # The process of a task ends with it: kept for further tasks, it would keep a model's memory.
    task = ray.remote(max_calls=1)(function).options(
        num_cpus=resources.cpus_per_worker, num_gpus=resources.gpus_per_worker
    )
    pending = {name: task.remote(*arguments) for name, arguments in calls.items()}
    found: dict[str, T] = {}
    for name, reference in pending.items():
        try:
            found[name] = ray.get(reference)
        except ray.exceptions.RayError as error:
            # A failed task must not cost the search its results.
            failed(name, str(error).strip().splitlines()[-1])
    return found
