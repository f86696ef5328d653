"""The model card of an exported model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from xlt_ray.config.spec import SearchSpec
from xlt_ray.config.task import TaskSpec
from xlt_ray.names import BEST_MODEL


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
