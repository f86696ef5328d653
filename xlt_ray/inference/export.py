"""Export the best model of a search as a folder that transformers loads; the pipeline calls it."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from concurrent.futures import Executor
from pathlib import Path

from xlt_ray.config.spec import SearchSpec
from xlt_ray.files import write_whole
from xlt_ray.inference.model_card import model_card
from xlt_ray.names import BEST_MODEL, MODEL_DESCRIPTION
from xlt_ray.search.leaderboard import Entry
from xlt_ray.search.plan import Plan
from xlt_ray.search.trials import trial_spec
from xlt_ray.storage import fetch


def export_best(
    winner: Entry,
    built_with: SearchSpec,
    plan: Plan,
    folder: Path,
    storage: str,
    verdict: str,
    helper: Executor,
) -> Path:
    """Write a trial's selected model to `best-model/`, unless it is there already.

    Args:
        winner: A finished trial, or a soup.
        built_with: The spec that its model was built with; of a soup, its first member's.
        plan: The search.
        folder: The search's folder.
        storage: Folder or URI with the trial's checkpoint.
        verdict: The sentence that compares the winner with plain fine-tuning, for the model card.
        helper: Another process, which holds the model in memory.

    Returns:
        The model's folder. It appears complete or not at all.

    Raises:
        Exception: If the export fails, e.g. for a lost checkpoint, a full disk or lack of memory.
    """
    target = folder / BEST_MODEL
    spec = trial_spec(plan.spec, winner.values)
    task, members = plan.task, winner.members
    card = model_card(spec, task, winner.label, winner.test, folder.name, verdict, members)
    if _origin(target) == (winner.label, list(members)):
        # More trials may have finished since then, such as plain fine-tuning.
        write_whole(target / "README.md", card)
        return target
    assert winner.checkpoint is not None
    described = {
        "task": task.name,
        "text_columns": task.text_columns,
        "source_language": task.source_language,
        "target_languages": task.target_languages,
        "search": folder.name,
        "trial": winner.label,
    } | ({"members": members} if members else {})
    with tempfile.TemporaryDirectory(prefix=f".{BEST_MODEL}-", dir=folder) as work:
        staging = Path(work) / BEST_MODEL
        weights = fetch(storage, f"{winner.checkpoint}/model.safetensors", Path(work))
        helper.submit(write_model, built_with, weights, staging).result()
        (staging / MODEL_DESCRIPTION).write_text(
            json.dumps(described, ensure_ascii=False, indent=2) + "\n", encoding="utf-8"
        )
        (staging / "README.md").write_text(card, encoding="utf-8")
        if target.exists():
            shutil.rmtree(target)
        os.replace(staging, target)
    return target


def write_model(spec: SearchSpec, weights: Path, folder: Path) -> None:
    """Write weights, configuration and tokenizer, with the full vocabulary of the base model.

    The tokenizer truncates texts to the same length as in training.

    Args:
        spec: The spec of the trial.
        weights: File with the trained weights (safetensors).
        folder: Folder to write; created if absent.
    """
    from safetensors.torch import load_model
    from transformers import AutoTokenizer

    from xlt_ray.data.preparation import prepare
    from xlt_ray.encoders.loading import load_classifier

    # The trials' preparation; changes of the data since then are ignored.
    prepared = prepare(spec, since=0)
    classifier = load_classifier(prepared.tokenizer, prepared.labels, spec.training.initial_seed)
    vocabulary, table = prepared.vocabulary(), classifier.get_input_embeddings()
    if vocabulary is not None:
        vocabulary.trim(classifier)
    load_model(classifier, str(weights))
    if vocabulary is not None:
        vocabulary.restore(classifier, table)
    tokenizer = AutoTokenizer.from_pretrained(prepared.tokenizer, trust_remote_code=False)
    tokenizer.model_max_length = spec.training.max_length
    classifier.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _origin(folder: Path) -> tuple[str, list[str]] | None:
    """Return the trial whose model is in a folder and, for a soup, its members; None if there is
    no such folder."""
    try:
        described = json.loads((folder / MODEL_DESCRIPTION).read_text(encoding="utf-8"))
        return str(described["trial"]), described.get("members", [])
    except (OSError, ValueError, KeyError):
        return None
