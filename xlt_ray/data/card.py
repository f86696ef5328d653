"""The class names in the card of a hub's data set; `labelled` and `tokenized` ask for them."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

from xlt_ray.config.task import TaskSpec
from xlt_ray.errors import UserError


def card_classes(path: Path, task: TaskSpec) -> tuple[str, ...] | None:
    """Return the names that a data set's card gives the numbers of the label column.

    Files other than those that `datasets` wrote do not have the names in them.

    Args:
        path: A data file in the hub's cache.
        task: Its task, whose data is on the hub.

    Returns:
        The names in the order of their numbers; None if the card has none.

    Raises:
        UserError: If the configurations of the task's languages differ in them.
    """
    hub = task.data.hub
    assert hub is not None
    card = next((up / "README.md" for up in path.parents if (up / "README.md").is_file()), None)
    if card is None:
        return None
    described = _described(str(card), task.label_column)
    configs = {hub.config_of(language) for language in task.languages}
    found = {names for config, names in described if config is None or config in configs}
    if len(found) > 1:
        raise UserError(
            f"data set '{hub.path}': its card names the classes of '{task.label_column}' "
            "differently in different configurations; use files on disk (data.files)"
        )
    return next(iter(found), None)


@lru_cache(maxsize=16)
def _described(card: str, column: str) -> tuple[tuple[str | None, tuple[str, ...]], ...]:
    """Return each configuration of a card with the class names of a column."""
    from huggingface_hub import DatasetCard

    info = DatasetCard.load(card).data.to_dict().get("dataset_info") or []
    infos = info if isinstance(info, list) else [info]
    return tuple(
        (one.get("config_name"), names)
        for one in infos
        if isinstance(one, dict)
        for feature in one.get("features") or []
        if isinstance(feature, dict) and feature.get("name") == column
        if (names := _names(feature.get("dtype"))) is not None
    )


def _names(dtype: Any) -> tuple[str, ...] | None:
    """Return the names of a `class_label`, which a card numbers by text or number, or lists."""
    names = dtype.get("class_label", {}).get("names") if isinstance(dtype, dict) else None
    if isinstance(names, dict):
        names = [names[key] for key in sorted(names, key=int)]
    return tuple(map(str, names)) if isinstance(names, list) and names else None
