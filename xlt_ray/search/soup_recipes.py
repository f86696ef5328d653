"""Soups of a search: which trials to average, and the file of those that were made.

The pipeline makes them after the trials (:mod:`xlt_ray.cluster.soup_task`), and they compete with
the trials.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from xlt_ray.config.spec import SearchSpec
from xlt_ray.files import json_text, with_nan, write_whole
from xlt_ray.names import SOUP, STATE
from xlt_ray.search.leaderboard import Entry, distinct, entry_of
from xlt_ray.search.ledger import Record
from xlt_ray.search.trials import LABELS, Trial, TrialKind, TrialStatus

GREEDY = f"{SOUP}-greedy"
"""Label of the soup whose members are added while the dev objective does not fall."""
FILE = f"{STATE}/soups.json"
"""File in a search's folder with the soups that were made."""
_AVERAGED = (TrialKind.PROPOSED, TrialKind.PAPER, TrialKind.CONFIG, TrialKind.COMPARISON)
"""Kinds of trials that a soup averages."""


@dataclass(frozen=True)
class SoupRecipe:
    """A soup to make."""

    label: str
    """Its name: `soup`, `soup-greedy`, `soup-ear`."""
    members: tuple[str, ...]
    """Labels of the trials to average, the best first; of a greedy soup the candidates."""

    @property
    def greedy(self) -> bool:
        """Whether a member is added only if the dev objective does not fall."""
        return self.label == GREEDY


def soup_recipes(entries: Sequence[Entry], spec: SearchSpec) -> list[SoupRecipe]:
    """Return the soups of a search's finished trials; none of fewer than two trials.

    They are the mean of all trials, the greedy soup, and if the trials have several methods, the
    mean of each method's trials. Baselines are for comparison and in no soup. Of trials with the
    same values, seed included, the best counts.

    Args:
        entries: The trials.
        spec: The search.
    """
    finished = [
        entry
        for entry in sorted(entries, key=lambda entry: -(entry.objective or 0.0))
        if entry.status == TrialStatus.FINISHED
        and entry.trial.kind in _AVERAGED
        and entry.checkpoint is not None
    ]
    # A sampler may propose the same values twice.
    finished = distinct(finished, lambda entry: frozenset(entry.values.items()))
    if len(finished) < 2:
        return []
    labels = tuple(entry.label for entry in finished)
    recipes = [SoupRecipe(SOUP, labels), SoupRecipe(GREEDY, labels)]
    methods: dict[str, list[str]] = {}
    for entry in finished:
        methods.setdefault(LABELS[entry.trial.spec(spec).method.name], []).append(entry.label)
    if len(methods) > 1:
        recipes += [
            SoupRecipe(f"{SOUP}-{method}", tuple(members))
            for method, members in methods.items()
            if len(members) > 1
        ]
    return recipes


def soup_refusal(entries: Sequence[Entry], spec: SearchSpec) -> str | None:
    """Return why trials cannot be averaged, in a sentence; None if they can.

    Args:
        entries: The trials.
        spec: The search.
    """
    recipes = [entry.trial.spec(spec).training for entry in entries]
    if len({recipe.initial_seed for recipe in recipes}) > 1:
        return (
            "No soup: the trials' heads start from different seeds, so their weights cannot be "
            "averaged; set training.head_seed"
        )
    if len({recipe.trim_vocabulary and not recipe.weight_decay for recipe in recipes}) > 1:
        return (
            "No soup: some trials train a trimmed vocabulary and some the whole one, because "
            "training.weight_decay is searched; set training.trim_vocabulary=false"
        )
    return None


def soup_entry(label: str, record: Mapping[str, Any]) -> Entry:
    """Return the leaderboard's entry of a soup, from its record in the file."""
    metrics = {**record["metrics"], "checkpoint_path": record["checkpoint"]}
    made = Record(
        Trial(label, TrialKind.SOUP),
        TrialStatus.FINISHED,
        metrics | {"time_total_s": record["seconds"]},
    )
    return replace(entry_of(made), members=tuple(record["members"]))


def is_of_search(label: str, record: Mapping[str, Any]) -> bool:
    """Return whether a recorded soup competes in the search: it averages several trials of it,
    and is not one of the confirmation's."""
    return len(record["members"]) > 1 and Trial.labelled(label).soup


def read_soups(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the records of the soups in a search's folder, by label.

    A record has `candidates`, `members`, `metrics`, `seconds`, `checkpoint` and, but for those of
    older versions, `recorded`: whether MLflow's journal has it.
    """
    file = folder / FILE
    if not file.exists():
        return {}
    found: dict[str, dict[str, Any]] = json.loads(file.read_text(encoding="utf-8"))
    for record in found.values():
        record["metrics"] = with_nan(record["metrics"])
    return found


def write_soups(records: Mapping[str, Mapping[str, Any]], folder: Path) -> None:
    """Write the records of soups into a search's folder."""
    write_whole(folder / FILE, json_text(records))
