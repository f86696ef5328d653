"""Score an exported model on a task, language by language; `xlt-ray evaluate` calls it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from xlt_ray.config.spec import AssessmentSpec
from xlt_ray.config.task import TaskSpec, load_task, with_data_dir, with_targets
from xlt_ray.errors import UserError
from xlt_ray.evaluation.calibration import calibration_error
from xlt_ray.evaluation.intervals import wilson_interval
from xlt_ray.evaluation.macro_f1 import macro_f1
from xlt_ray.files import json_text, write_whole
from xlt_ray.inference.text_files import check_place

if TYPE_CHECKING:
    from xlt_ray.data.evaluation_set import EvaluationSet
    from xlt_ray.inference.classifier import Classifier, Text


def task_to_score(name: str, data_dir: Path | None, languages: Sequence[str] | None) -> TaskSpec:
    """Load a task and add the languages to score that it does not list.

    Args:
        name: Name of a packaged task, or path of a task file.
        data_dir: Folder with the data; None: the task's own source.
        languages: Codes of the languages to score; None: the task's.

    Raises:
        UserError: If there is no such task or folder, or a language code is invalid.
    """
    task = load_task(name)
    if data_dir is not None:
        task = with_data_dir(task, data_dir)
    if languages is None:
        return task
    targets = [*task.target_languages, *languages]
    others = [code for code in dict.fromkeys(targets) if code != task.source_language]
    return with_targets(task, others, "--languages")


@dataclass(frozen=True)
class Score:
    """How good a model is in one language."""

    accuracy: float
    """Accuracy in [0, 1]."""
    low: float
    """Lower end of the 95 % Wilson interval."""
    high: float
    """Upper end of the interval."""
    correct: int
    """Number of correctly classified texts."""
    examples: int
    """Number of texts."""
    macro_f1: float
    """Macro-F1 in [0, 1], see :func:`xlt_ray.evaluation.macro_f1.macro_f1`."""
    calibration_error: float
    """Expected calibration error in [0, 1], see
    :func:`xlt_ray.evaluation.calibration.calibration_error`."""

    @classmethod
    def of(cls, probabilities: np.ndarray, labels: np.ndarray) -> Score:
        """Score the classes' probabilities of some texts.

        Args:
            probabilities: Of every class, in [0, 1] (texts, classes); at least one text.
            labels: Gold class ids (texts,).
        """
        predicted = probabilities.argmax(1)
        correct, examples = int((predicted == labels).sum()), len(labels)
        low, high = wilson_interval(correct, examples)
        return cls(
            accuracy=correct / examples,
            low=low,
            high=high,
            correct=correct,
            examples=examples,
            macro_f1=macro_f1(predicted, labels),
            calibration_error=calibration_error(probabilities, labels),
        )


@dataclass(frozen=True)
class Scores:
    """Scores of one model on one split of a task."""

    model: str
    """The model's folder, as given by the user."""
    task: str
    """Name of the task."""
    split: str
    """`test` or `dev`."""
    source: str
    """Code of the source language, which the zero-shot mean excludes."""
    languages: dict[str, Score]
    """Scores by language, in the requested order."""
    zero_shot_mean: float | None
    """Mean accuracy over the target languages; None if there is none."""
    zero_shot_macro_f1: float | None
    """Mean macro-F1 over the target languages; None if there is none."""
    alignment: dict[str, float] | None
    """`retrieval/XX`, `margin/XX` and their means for the last layer, and the same under
    `embedding/` for the embeddings; None if not requested."""
    matrix: np.ndarray | None
    """Accuracies (L, L): the row is the premise language, the column the hypothesis language; None
    if not requested."""

    def write(self, path: Path) -> None:
        """Write all scores as JSON, accuracies in [0, 1]."""
        record = asdict(self)
        del record["matrix"]
        record["generalized"] = None
        if self.matrix is not None:
            from xlt_ray.evaluation.language_pairs import generalized_metrics

            codes = list(self.languages)
            record["generalized"] = generalized_metrics(self.matrix, codes, self.source) | {
                "accuracy": {
                    code: dict(zip(codes, row, strict=True))
                    for code, row in zip(codes, self.matrix.tolist(), strict=True)
                }
            }
        write_whole(path, json_text(record))


@dataclass(frozen=True)
class ScoringRequest:
    """A model, a task and what to measure."""

    model: Path
    """Folder of a fine-tuned classifier."""
    task: TaskSpec
    """The task."""
    chosen_languages: Sequence[str] | None
    """Codes of the languages to score; None: the task's."""
    split: Literal["test", "dev"]
    """Split to score."""
    alignment: bool
    """Whether to measure alignment."""
    generalized: bool
    """Whether to score every pair of languages."""

    @property
    def languages(self) -> list[str]:
        """Codes of the languages to score, without duplicates."""
        return list(dict.fromkeys(self.chosen_languages or self.task.languages))

    def check(self) -> None:
        """Check everything that needs neither the data nor the model's weights.

        Raises:
            UserError: If the folder has no model, the model's classes differ from the task's, or
                language pairs or alignment are impossible for the task or the languages.
        """
        named = _named_classes(self.model)
        if named is not None:
            self._check_classes(named)
        task = self.task
        if self.generalized and not task.is_pair:
            raise UserError(
                f"--generalized: {task.name} has one text per example; cross-language pairs need "
                "a task with two text columns"
            )
        for flag, wanted in (("--alignment", self.alignment), ("--generalized", self.generalized)):
            if wanted and (task.source_language not in self.languages or len(self.languages) < 2):
                raise UserError(
                    f"{flag}: it takes the source language, {task.source_language}, and at least "
                    f"one other; --languages has {', '.join(self.languages)}"
                )

    def _check_classes(self, named: Sequence[str]) -> None:
        # Compare names, since another model may order the same classes differently.
        if set(named) != set(self.task.labels) or len(named) != len(self.task.labels):
            raise UserError(
                f"--model {self.model}: its classes are {', '.join(named)}; those of the task "
                f"{self.task.name} are {', '.join(self.task.labels)}"
            )

    def score(self, device: str | None) -> Scores:
        """Score the model.

        Args:
            device: Device, such as `cpu` or `cuda:0`; None: a GPU if there is one.

        Raises:
            UserError: If the model or the data is missing or invalid, or alignment or language
                pairs are requested for data that is not parallel.
        """
        from xlt_ray.data.sources import load_split

        texts: dict[str, list[Text]] = {}
        gold: dict[str, list[str]] = {}
        for code in self.languages:
            examples = load_split(self.task, self.split, code)
            texts[code] = list(zip(*examples.texts, strict=True))
            gold[code] = [self.task.labels[number] for number in examples.labels]

        # Importing torch takes seconds, so the data is read before.
        from xlt_ray.inference.classifier import Classifier

        classifier = Classifier.load(self.model, device)
        self._check_classes(classifier.labels)
        takes = classifier.text_columns
        if takes is not None and len(takes) != len(self.task.text_columns):
            raise UserError(
                f"--model {self.model}: it takes {' and '.join(takes)}; the task "
                f"{self.task.name} has {' and '.join(self.task.text_columns)}"
            )
        parallel = None
        if self.alignment or self.generalized:
            parallel = self._parallel(classifier, texts, gold)
        every = [text for code in texts for text in texts[code]]
        probabilities = classifier.predict(every).probabilities
        found: dict[str, Score] = {}
        for code, names in gold.items():
            own, probabilities = probabilities[: len(names)], probabilities[len(names) :]
            labels = np.array([classifier.labels.index(name) for name in names])
            found[code] = Score.of(own, labels)
        targets = [score for code, score in found.items() if code != self.task.source_language]
        return Scores(
            str(self.model),
            self.task.name,
            self.split,
            self.task.source_language,
            found,
            float(np.mean([score.accuracy for score in targets])) if targets else None,
            float(np.mean([score.macro_f1 for score in targets])) if targets else None,
            _alignment(classifier, parallel) if parallel and self.alignment else None,
            _matrix(classifier, parallel) if parallel and self.generalized else None,
        )

    def _parallel(
        self,
        classifier: Classifier,
        texts: dict[str, list[Text]],
        gold: dict[str, list[str]],
    ) -> EvaluationSet:
        """Return all texts as one evaluation set, with the model's class ids.

        Raises:
            UserError: If the languages differ in their rows or labels.
        """
        from xlt_ray.data.evaluation_set import EvaluationSet
        from xlt_ray.evaluation.parallel import is_parallel

        codes = list(texts)
        counts = [len(gold[code]) for code in codes]
        data = EvaluationSet(
            classifier.inputs([text for code in codes for text in texts[code]]),
            labels=np.array([classifier.labels.index(name) for c in codes for name in gold[c]]),
            language=np.repeat(np.arange(len(codes)), counts),
            row=np.concatenate([np.arange(count) for count in counts]),
            languages=codes,
            source=self.task.source_language,
            pad_id=classifier.tokenizer.pad_token_id,
        )
        if not is_parallel(data.language, data.row, data.labels, codes):
            flag = "--alignment" if self.alignment else "--generalized"
            raise UserError(
                f"{flag}: the {self.split} set of {self.task.name} is not parallel; every language "
                "needs the same rows with the same labels"
            )
        return data


def check_output(output: Path) -> None:
    """Check that a JSON file can be written.

    Raises:
        UserError: If it does not end in .json, or its folder is missing or not writable.
    """
    if output.suffix.lower() != ".json":
        raise UserError(f"--output {output}: it must end in .json")
    check_place(output)


def _named_classes(model: Path) -> list[str] | None:
    """Return the class names in a model's configuration; None if there are none.

    Raises:
        UserError: If the folder has no model.
    """
    try:
        named = json.loads((model / "config.json").read_text(encoding="utf-8"))["id2label"]
        return [named[str(number)] for number in range(len(named))]
    except OSError:
        raise UserError(
            f"--model {model}: there is no model in that folder; expected one such as "
            "runs/NAME-DATE/best-model"
        ) from None
    except (ValueError, KeyError, TypeError):
        return None


def _alignment(classifier: Classifier, data: EvaluationSet) -> dict[str, float]:
    """Measure the alignment of last layer and embeddings, on as many rows as a search does."""
    from xlt_ray.evaluation.alignment import alignment_metrics, sentence_embeddings

    some = data.first_rows(AssessmentSpec().alignment_rows)
    vectors = sentence_embeddings(
        classifier.model,
        some.inputs,
        layer=0,
        pad_id=some.pad_id,
        workers=classifier.workers,
    )
    metrics: dict[str, float] = {}
    # A model's folder does not name the layer that the method pulled.
    for place, prefix in (("last", ""), ("embedding", "embedding/")):
        found = alignment_metrics(
            vectors[place], some.language, some.row, some.languages, some.source
        )
        metrics |= {prefix + name: value for name, value in found.items()}
    return metrics


def _matrix(classifier: Classifier, data: EvaluationSet) -> np.ndarray:
    """Return the accuracies (L, L) of every pair of languages."""
    from xlt_ray.evaluation.language_pairs import accuracy_matrix, separator_ids

    return accuracy_matrix(
        classifier.model,
        data,
        separator_ids=separator_ids(classifier.tokenizer),
        workers=classifier.workers,
        max_length=classifier.max_length,
    )
