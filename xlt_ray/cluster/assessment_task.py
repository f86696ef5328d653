"""Assess models as Ray tasks, with the resources of a trial's worker. The pipeline calls it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from xlt_ray.cluster.ray_tasks import results_of_tasks
from xlt_ray.config.spec import SearchSpec
from xlt_ray.evaluation.assessment import Assessment, assess_checkpoint
from xlt_ray.search.leaderboard import Entry

_ALL_ROWS = 10**9


def assess_on_cluster(
    models: Mapping[str, Entry | None],
    specs: Mapping[str, SearchSpec],
    storage: str,
    failed: Callable[[str, str], None],
) -> dict[str, Assessment]:
    """Assess models in parallel, one Ray task each.

    Args:
        models: The trial of each model by the model's name; None for the encoder as pretrained.
        specs: The spec that each model was built with.
        storage: Folder or URI that has the checkpoints.
        failed: Called with the name of a model and the reason if its assessment fails.

    Returns:
        The assessments by model name, without those that failed.
    """
    calls = {}
    for name, entry in models.items():
        wanted = specs[name].assessment
        calls[name] = (
            specs[name],
            entry.checkpoint if entry else None,
            storage,
            wanted.alignment_rows,
            wanted.generalized_rows or _ALL_ROWS if wanted.generalized and entry else None,
        )
    resources = next(iter(specs.values())).resources
    return results_of_tasks(assess_checkpoint, calls, resources, failed)
