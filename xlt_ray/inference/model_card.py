"""The model card of an exported model; the export and the registry call it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from xlt_ray.config.spec import SearchSpec
from xlt_ray.config.task import TaskSpec
from xlt_ray.names import BEST_MODEL, ZERO_SHOT_MEAN

_TEXT = """\
# {name}

{origin}

- Task: {task}
- Input: {input}, at most {max_length} tokens
- Classes: {classes}
- Base model: {base}
- Language of the training labels: {source} only
- Languages it was tested in: {languages}

## Test scores

In %. Macro-F1 counts rare classes as much as frequent ones. The calibration error is how far the
model's confidence is from its accuracy.

| language | accuracy | macro-F1 | calibration error |
|---|---|---|---|
{scores}
| mean without {source} | {means} |

{verdict}

Test data was not used for selection.

## Use

```python
from transformers import pipeline

classify = pipeline("text-classification", model="{folder}", truncation=True)
classify({example})
```

## Limits

The model was trained on labels in {source} only. In other languages, quality depends on how well
the base model aligns them with {source}; for languages that are not in the table, it is unknown.
Longer texts are cut off. The probabilities are not calibrated. Biases of the base model and of the
training data remain.

## Licence

The licences of the base model and of the training data apply to these weights.
"""

_MEASURES = ("accuracy", "macro_f1", "calibration_error")
"""Test metrics on the card, as of :func:`xlt_ray.evaluation.scores.final_scores`."""


def model_card(
    spec: SearchSpec,
    task: TaskSpec,
    label: str,
    test: Mapping[str, float],
    search: str,
    verdict: str,
    members: Sequence[str] = (),
) -> str:
    """Return the model card: hub metadata in YAML, then Markdown.

    Args:
        spec: The spec of the trial.
        task: The task.
        label: The trial's name.
        test: Test metrics of the model in [0, 1], without the prefix `test/`.
        search: Name of the search's folder.
        verdict: The sentence that compares the trial with plain fine-tuning.
        members: The trials that a soup averages; empty for a single trial.
    """
    source = task.source_language

    def cells(place: str) -> str:
        """The scores of a language or a mean; empty for one of an older search."""
        found = [test.get(f"{measure}/{place}") for measure in _MEASURES]
        return " | ".join("" if score is None else f"{100 * score:.1f}" for score in found)

    rows = [
        f"| {code}{' (trained on)' if code == source else ''} | {cells(code)} |"
        for code in task.languages
    ]
    text = _TEXT.format(
        name=spec.name,
        origin=_origin(spec, label, search, members),
        verdict=verdict,
        task=task.name + (f": {task.description}" if task.description else ""),
        input=" and ".join(task.text_columns),
        max_length=spec.training.max_length,
        classes=", ".join(task.labels),
        # The path of a local model would reveal folders of this machine.
        base=Path(spec.model).name if Path(spec.model).is_absolute() else spec.model,
        source=source,
        languages=", ".join(task.languages),
        scores="\n".join(rows),
        means=cells(ZERO_SHOT_MEAN),
        folder=BEST_MODEL,
        example='{"text": first, "text_pair": second}' if task.is_pair else "text",
    )
    metadata = _metadata(spec, task, test).to_yaml()
    return str(ModelCard(f"---\n{metadata}\n---\n\n{text}"))


def _origin(spec: SearchSpec, label: str, search: str, members: Sequence[str]) -> str:
    """Return the sentences on where the model comes from."""
    chosen = f"of the search `{search}`, selected by `{spec.search.objective}`."
    if not members:
        return (
            f"A text classifier, fine-tuned with xlt-ray by the method `{spec.method.name}`. It is "
            f"trial `{label}` {chosen}"
        )
    trials = ", ".join(f"`{name}`" for name in members)
    return (
        f"A text classifier, fine-tuned with xlt-ray. It is the soup `{label}`, the average of the "
        f"weights of the trials {trials} {chosen}"
    )


def card_text(card: str) -> str:
    """Return the Markdown of a model card without its metadata."""
    return re.sub(r"\A---\n.*?\n---\n+", "", card, count=1, flags=re.DOTALL)


def _metadata(spec: SearchSpec, task: TaskSpec, test: Mapping[str, float]) -> ModelCardData:
    """Return the metadata that the Hugging Face hub reads.

    The licence is left out, since those of the base model and of the data are unknown here.
    """
    hub = task.data.hub
    return ModelCardData(
        model_name=spec.name,
        language=list(task.languages),
        base_model=spec.model if _is_on_hub(spec.model) else None,
        datasets=None if hub is None else [hub.path],
        pipeline_tag="text-classification",
        library_name="transformers",
        metrics=["accuracy"],
        eval_results=[
            EvalResult(
                task_type="text-classification",
                dataset_type=task.name if hub is None else hub.path,
                dataset_name=task.name,
                dataset_config=code,
                dataset_split="test",
                metric_type="accuracy",
                metric_value=test[f"accuracy/{code}"],
            )
            for code in task.languages
        ],
    )


def _is_on_hub(model: str) -> bool:
    """Tell whether a base model is named by a repository of the hub."""
    is_name = re.fullmatch(r"[\w.-]+(/[\w.-]+)?", model) is not None
    return is_name and not model.startswith("packaged/") and not Path(model).exists()
