"""Average the weights of a search's trials, and let the results compete with the trials.

The stage `soup` of a search calls it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from xlt_ray.names import CHECKPOINTS, OBJECTIVE, STATE, ZERO_SHOT_ACCURACY
from xlt_ray.pipeline.stage import SearchRun
from xlt_ray.search.leaderboard import Entry
from xlt_ray.search.plan import parameters_of
from xlt_ray.search.soup_recipes import (
    SoupRecipe,
    read_soups,
    soup_entry,
    soup_recipes,
    soup_refusal,
    write_soups,
)
from xlt_ray.search.trials import trial_spec
from xlt_ray.storage import filesystem, path_in
from xlt_ray.tracking.results_view import HEADLINE


def make_soups(run: SearchRun) -> list[Entry]:
    """Make the soups of a search's finished trials that were not made before.

    Args:
        run: The search, after its trials; its folder gets `soups.json`.

    Returns:
        The soups as entries of the leaderboard.
    """
    spec = run.plan.spec
    recipes = soup_recipes(run.entries, spec) if spec.search.soups else []
    members = {name for recipe in recipes for name in recipe.members}
    if refusal := soup_refusal([e for e in run.entries if e.label in members], spec):
        if spec.search.parameters:
            run.tell(refusal)
        return []
    return make_soup_entries(recipes, run.entries, run, "search")


def make_soup_entries(
    recipes: Sequence[SoupRecipe], trials: Sequence[Entry], run: SearchRun, stage: str
) -> list[Entry]:
    """Make soups that were not made before; record all.

    Args:
        recipes: The soups.
        trials: The finished trials that they average.
        run: The search; its folder gets `soups.json`.
        stage: Name of the stage, for MLflow.

    Returns:
        The soups as entries, without those that failed.
    """
    known = read_soups(run.folder)
    missing = [
        recipe
        for recipe in recipes
        if set(known.get(recipe.label, {}).get("candidates", ())) != set(recipe.members)
    ]
    new = _make(missing, trials, run) if missing else {}
    # A soup that cannot be made again, of more trials, stays what it was. A search that is killed
    # before a soup is recorded records it when it is resumed.
    known |= {label: {**one, "recorded": False} for label, one in new.items()}
    if new:
        write_soups(known, run.folder)
    made = [soup_entry(one.label, known[one.label]) for one in recipes if one.label in known]
    # A greedy soup that added nothing is its first trial.
    entries = [entry for entry in made if len(entry.members) > 1]
    for entry in entries:
        _record(entry, run, stage, again=not known[entry.label].get("recorded", True))
    if any(not known[entry.label].get("recorded", True) for entry in entries):
        known |= {entry.label: {**known[entry.label], "recorded": True} for entry in entries}
        write_soups(known, run.folder)
    return entries


def _make(
    recipes: Sequence[SoupRecipe], trials: Sequence[Entry], run: SearchRun
) -> dict[str, dict[str, Any]]:
    from xlt_ray.cluster.soup_task import soups_on_cluster

    members = {name for recipe in recipes for name in recipe.members}
    averaged = {entry.label: entry for entry in trials if entry.label in members}
    lost = without_weights(averaged.values(), run)
    possible = [recipe for recipe in recipes if not set(lost).intersection(recipe.members)]
    if lost:
        rest = [recipe for recipe in recipes if recipe not in possible]
        run.tell(
            f"Not averaged: {_names(rest)}; the weights of {', '.join(lost)} were deleted when "
            "the search ended; search.keep_weights=true keeps them"
        )
    if not possible:
        return {}
    run.tell(f"Averaging weights: {_names(possible)}")
    return soups_on_cluster(
        possible,
        averaged,
        run.plan.spec,
        run.storage,
        path_in(run.storage, f"{run.folder.name}/{STATE}/{CHECKPOINTS}"),
        failed=lambda label, reason: run.tell(f"{label} could not be made: {reason}"),
    )


def _names(recipes: Sequence[SoupRecipe]) -> str:
    return ", ".join(f"{recipe.label} of {len(recipe.members)} trials" for recipe in recipes)


def without_weights(trials: Collection[Entry], run: SearchRun) -> list[str]:
    """Return the labels of the trials whose weights are no longer in the storage."""
    from pyarrow.fs import FileType

    paths = [f"{entry.checkpoint}/model.safetensors" for entry in trials]
    found = filesystem(run.storage).get_file_info(paths)
    return [
        entry.label for entry, info in zip(trials, found, strict=True) if info.type != FileType.File
    ]


def _record(entry: Entry, run: SearchRun, stage: str, again: bool) -> None:
    """Record a soup in MLflow as a run beside the trials', and keep its predictions.

    Args:
        entry: The soup.
        run: The search.
        stage: Name of the stage.
        again: Whether to record it though it was recorded before: it has other members now.
    """
    recorder, steps = run.recorder, run.plan.training.steps
    known = recorder.trials().get(entry.label)
    if known is None or known.open or again:
        name = f"{entry.label} of {len(entry.members)}"
        recorder.start_trial(
            entry.label,
            name,
            parameters_of(trial_spec(run.plan.spec, {})),
            {
                **run.tags,
                # A run that is recorded again has the name of its old members.
                "mlflow.runName": name,
                "stage": stage,
                "trial": entry.label,
                "members": " ".join(entry.members),
                "status": entry.status,
            },
        )
        metrics = {f"test/{name}": value for name, value in entry.test.items()}
        metrics |= {f"selected/{name}": value for name, value in entry.selected.items()}
        metrics |= {
            OBJECTIVE: entry.objective or 0.0,
            HEADLINE: entry.test[ZERO_SHOT_ACCURACY],
        }
        recorder.log_metrics(entry.label, metrics, step=steps)
        recorder.end_trial(entry.label, "FINISHED")
    if entry.checkpoint:
        run.keep_predictions(entry, entry.checkpoint)
