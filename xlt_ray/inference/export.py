"""The best model of a search as a folder that transformers loads by itself."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import tempfile
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from xlt_ray.cluster.trial import trial_spec
from xlt_ray.config.spec import SearchSpec
from xlt_ray.config.task import TaskSpec
from xlt_ray.pipeline.settings import BEST_MODEL, MODEL_DESCRIPTION
from xlt_ray.search.leaderboard import Entry
from xlt_ray.search.plan import Plan
from xlt_ray.storage import fetch


def export_best(winner: Entry, plan: Plan, folder: Path, storage: str) -> Path:
    """Write a trial's selected model as `best-model/`, unless that is there already.

    Another process writes it: it holds the model twice, and the driver is to stay small.

    Args:
        winner: A finished trial.
        plan: The search.
        folder: The search's folder.
        storage: Folder or URI that the trial's checkpoint is in.

    Returns:
        The model's folder. It appears whole or not at all.

    Raises:
        Exception: Whatever hinders it: a lost checkpoint, a full disk, too little memory.
    """
    target = folder / BEST_MODEL
    if _trial(target) == winner.label:
        return target
    assert winner.checkpoint is not None
    spec = trial_spec(plan.spec, winner.values)
    task = plan.task
    described = {
        "task": task.name,
        "text_columns": task.text_columns,
        "source_language": task.source_language,
        "target_languages": task.target_languages,
        "search": folder.name,
        "trial": winner.label,
    }
    with tempfile.TemporaryDirectory(prefix=f".{BEST_MODEL}-", dir=folder) as work:
        staging = Path(work) / BEST_MODEL
        weights = fetch(storage, f"{winner.checkpoint}/model.safetensors", Path(work))
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, mp_context=context) as executor:
            executor.submit(write_model, spec, weights, staging).result()
        (staging / MODEL_DESCRIPTION).write_text(
            json.dumps(described, ensure_ascii=False, indent=2) + "\n", encoding="utf-8"
        )
        card = model_card(spec, task, winner.label, winner.test, folder.name)
        (staging / "README.md").write_text(card, encoding="utf-8")
        if target.exists():
            shutil.rmtree(target)
        os.replace(staging, target)
    return target


def write_model(spec: SearchSpec, weights: Path, folder: Path) -> None:
    """Write weights, configuration and tokenizer; of a trimmed model with the whole vocabulary.

    Args:
        spec: The spec of the trial.
        weights: Its trained weights (safetensors).
        folder: Where to; created if absent. The tokenizer cuts texts off where training did.
    """
    from safetensors.torch import load_model
    from torch import Tensor
    from transformers import AutoTokenizer

    from xlt_ray.data.preparation import prepare
    from xlt_ray.encoders.loading import load_classifier

    # What the trials had; data that has changed since is not looked at.
    prepared = prepare(spec, since=0)
    classifier = load_classifier(prepared.encoder, prepared.labels, spec.training.seed)
    load_model(classifier, str(weights))
    vocabulary = prepared.vocabulary()
    if vocabulary is not None:
        whole = load_classifier(prepared.tokenizer, prepared.labels, spec.training.seed)
        table = whole.get_input_embeddings().weight
        assert isinstance(table, Tensor)
        vocabulary.restore(classifier, table)
    tokenizer = AutoTokenizer.from_pretrained(prepared.tokenizer, trust_remote_code=False)
    tokenizer.model_max_length = spec.training.max_length
    classifier.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def model_card(
    spec: SearchSpec, task: TaskSpec, label: str, test: Mapping[str, float], search: str
) -> str:
    """Describe a model, as Markdown.

    Args:
        spec: The spec of its trial.
        task: Its task.
        label: The trial's name.
        test: Test metrics of the model, without the prefix `test/`.
        search: Name of the search's folder.
    """
    source = task.source_language
    accuracies = "\n".join(
        f"| {code}{' (trained on)' if code == source else ''} "
        f"| {100 * test[f'accuracy/{code}']:.1f} |"
        for code in task.languages
    )
    # Where a folder lies on a machine is nobody else's business.
    base = Path(spec.model).name if Path(spec.model).is_absolute() else spec.model
    given = '{"text": first, "text_pair": second}' if task.is_pair else "text"
    about = f": {task.description}" if task.description else ""
    return f"""\
# {spec.name}

A text classifier, fine-tuned with xlt-ray by the method `{spec.method.name}`. It is trial
`{label}` of the search `{search}`, chosen by `{spec.search.objective}`.

- Task: {task.name}{about}
- Input: {" and ".join(task.text_columns)}, at most {spec.training.max_length} tokens
- Classes: {", ".join(task.labels)}
- Base model: {base}
- Language of the training labels: {source} only
- Languages it was tested in: {", ".join(task.languages)}

## Test accuracy

| language | accuracy, in % |
|---|---|
{accuracies}
| mean without {source} | {100 * test["accuracy/zero_shot_mean"]:.1f} |

One run with one seed. Test data selected nothing.

## Use

```python
from transformers import pipeline

classify = pipeline("text-classification", model="{BEST_MODEL}", truncation=True)
classify({given})
```

## Limits

No label of another language than {source} was trained on: in the others the model is as good as
the base model's languages lie near each other, and in a language that is not in the table nothing
is known. Longer texts are cut off. Its probabilities were not calibrated, and what the base model
and the training data are biased by, it is biased by too.

## Licence

The licences of the base model and of the training data apply to these weights.
"""


def _trial(folder: Path) -> str | None:
    """The trial that a model's folder is of; None if there is no such folder."""
    try:
        return str(json.loads((folder / MODEL_DESCRIPTION).read_text(encoding="utf-8"))["trial"])
    except (OSError, ValueError, KeyError):
        return None
