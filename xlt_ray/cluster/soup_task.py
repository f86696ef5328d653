"""Make soups as Ray tasks, with the resources of a trial's worker. The pipeline calls it."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from xlt_ray.cluster.ray_tasks import results_of_tasks
from xlt_ray.config.spec import SearchSpec
from xlt_ray.search.leaderboard import Entry
from xlt_ray.search.soup_recipes import SoupRecipe
from xlt_ray.storage import fetch, filesystem


def soups_on_cluster(
    recipes: Sequence[SoupRecipe],
    members: Mapping[str, Entry],
    spec: SearchSpec,
    storage: str,
    target: str,
    failed: Callable[[str, str], None],
) -> dict[str, dict[str, Any]]:
    """Make soups in parallel, one Ray task each.

    Args:
        recipes: The soups.
        members: The trials that the soups average, by label.
        spec: The search.
        storage: Folder or URI that has the checkpoints.
        target: Path in the storage of the folder that gets a folder for each soup.
        failed: Called with the label of a soup and the reason if it fails.

    Returns:
        The records of the soups by label, as :func:`xlt_ray.search.soup_recipes.read_soups` returns
        them, without those that failed.
    """
    calls = {
        recipe.label: (
            # As its first member was trained, which decides what the weights are, such as a
            # trimmed table. The search's own values may be none that a trial can have.
            members[recipe.members[0]].trial.spec(spec),
            {name: members[name].checkpoint for name in recipe.members},
            recipe.greedy,
            storage,
            f"{target}/trial-{recipe.label}/checkpoint",
        )
        for recipe in recipes
    }
    return results_of_tasks(make_soup_checkpoint, calls, spec.resources, failed)


def make_soup_checkpoint(
    spec: SearchSpec,
    checkpoints: Mapping[str, str],
    greedy: bool,
    storage: str,
    target: str,
) -> dict[str, Any]:
    """Make a soup from trials' checkpoints and store it; runs as a Ray task.

    Args:
        spec: The spec of a trial.
        checkpoints: Path of each member's last checkpoint, the best member first.
        greedy: Whether a member is added only if the dev objective does not fall.
        storage: Folder or URI of the checkpoints.
        target: Path of the folder to create with the soup.
    """
    from xlt_ray.distributed import Workers, computes_in_bf16, use_resources
    from xlt_ray.training.build import build
    from xlt_ray.training.soup import PREDICTIONS, WEIGHTS, make_soup

    started = time.monotonic()
    device = use_resources(spec.resources.cpus_per_worker, spec.resources.gpus_per_worker)
    parts = build(spec, device)
    with tempfile.TemporaryDirectory(prefix="xlt-ray-") as folder:
        weights = {}
        for name, checkpoint in checkpoints.items():
            own = Path(folder) / name
            own.mkdir()
            weights[name] = fetch(storage, f"{checkpoint}/{WEIGHTS}", own)
        made = Path(folder) / "made"
        made.mkdir()
        soup = make_soup(
            parts,
            weights,
            made,
            objective=spec.search.objective,
            greedy=greedy,
            workers=Workers(device=device, bf16=computes_in_bf16(device, spec.training.precision)),
        )
        files = filesystem(storage)
        files.create_dir(target, recursive=True)
        for name in (WEIGHTS, PREDICTIONS):
            # In blocks: a large model should not be in memory a second time.
            path = f"{target}/{name}"
            with (made / name).open("rb") as file, files.open_output_stream(path) as stream:
                shutil.copyfileobj(file, stream, 2**24)
    return {
        "candidates": list(checkpoints),
        "members": list(soup.members),
        "metrics": dict(soup.metrics),
        "seconds": time.monotonic() - started,
        "checkpoint": target,
    }
