"""Train the best candidates anew with fresh seeds, and choose the winner by their mean.

The stage `confirm` of a search calls it.
"""

from __future__ import annotations

from collections.abc import Sequence

from xlt_ray.names import BASELINE
from xlt_ray.pipeline.average import make_soup_entries, without_weights
from xlt_ray.pipeline.stage import SearchRun
from xlt_ray.report import confirmation
from xlt_ray.report.tables import print_whole
from xlt_ray.search import leaderboard
from xlt_ray.search.confirmation import (
    choose,
    confirmation_seeds,
    confirmation_trials,
    confirmed,
    confirmed_candidates,
)
from xlt_ray.search.leaderboard import Entry
from xlt_ray.search.soup_recipes import SoupRecipe
from xlt_ray.search.trials import TrialStatus, seed_label

STAGE = "confirmation"
"""Name of the stage's folder and files."""


def confirm_winner(run: SearchRun) -> None:
    """Run the confirmation, if the search asks for one.

    Args:
        run: The search, after its trials are ranked; gets the choice, unless the confirmation was
            interrupted or no seed has finished runs of all candidates. Its folder gets
            `confirmation.json` and `confirmation-runs.csv`.
    """
    spec = run.plan.spec
    # A resumed search may have other candidates now, or ask for no confirmation.
    for file in run.folder.glob(f"{STAGE}*.*"):
        file.unlink()
    seeds = confirmation_seeds(spec)
    candidates = _candidates(run) if seeds else []
    if not candidates:
        return
    run.tell(
        f"Confirming {', '.join(entry.label for entry in candidates)} with "
        f"{len(seeds)} fresh seed(s)"
    )
    trials = confirmation_trials(candidates, run.entries, seeds)
    runs = run.run_fixed_trials(trials, STAGE)
    if run.interrupted:
        return
    runs += average_runs(candidates, runs, seeds, run)
    for path in leaderboard.write(runs, run.folder, f"{STAGE}-runs"):
        run.recorder.log_artifact(None, path)
    run.confirmation = runs
    found, whole = confirmed(candidates, runs, seeds)
    if not found:
        run.tell("No confirmation: there is no seed with which every candidate finished.")
        return
    if lost := [e.label for e in candidates if e.label not in {one.label for one in found}]:
        run.tell(f"Without {', '.join(lost)}: failed with every fresh seed.")
    run.confirmed_seeds = tuple(whole)
    run.choice = choose(found)
    path = confirmation.write(found, whole, run.choice, run.folder, run.plan.task.target_languages)
    run.recorder.log_artifact(None, path)
    for one in found:
        run.recorder.log_metrics(
            None,
            {
                f"{STAGE}/{one.label}/objective": one.mean,
                f"{STAGE}/{one.label}/zero_shot_mean": float(one.zero_shot.mean()),
            },
            step=0,
        )
    for view in confirmation.tables(run.folder):
        print_whole(view, run.console)


def _candidates(run: SearchRun) -> list[Entry]:
    """Return the candidates whose model can be handed over if they win."""
    found = confirmed_candidates(run.entries, run.plan.spec)
    lost = without_weights(found, run)
    if lost:
        run.tell(
            f"Not confirmed: {', '.join(lost)}; the weights were deleted when the search ended; "
            "search.keep_weights=true keeps them"
        )
    left = [entry for entry in found if entry.label not in lost]
    return left if any(entry.label != BASELINE for entry in left) else []


def average_runs(
    candidates: Sequence[Entry], runs: Sequence[Entry], seeds: Sequence[int], run: SearchRun
) -> list[Entry]:
    """Average the runs of each soup's members, once a seed.

    Args:
        candidates: Those of the confirmation; the soups among them are averaged anew.
        runs: The confirmation's trials.
        seeds: The fresh seeds.
        run: The search.

    Returns:
        The soups that could be made, labelled `<candidate>-seed<seed>`.
    """
    finished = {one.label for one in runs if one.status == TrialStatus.FINISHED}
    recipes = []
    for soup in (entry for entry in candidates if entry.trial.soup):
        for seed in seeds:
            members = tuple(seed_label(name, seed) for name in soup.members)
            if finished.issuperset(members):
                recipes.append(SoupRecipe(seed_label(soup.label, seed), members))
    if not recipes:
        return []
    made = make_soup_entries(recipes, runs, run, STAGE)
    # One that could not be made anew has the members of another candidate.
    wanted = {recipe.label: set(recipe.members) for recipe in recipes}
    return [entry for entry in made if set(entry.members) == wanted[entry.label]]
