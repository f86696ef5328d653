"""A toy task that a tiny encoder learns in seconds, and the training of it."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from tests.support.tiny_encoder import DEFAULT_TEXTS, Family, tiny_encoder
from xlt_ray.config.keys import set_key
from xlt_ray.config.spec import SearchSpec
from xlt_ray.distributed import Workers
from xlt_ray.training.build import TrialParts, build
from xlt_ray.training.trainer import Trainer

LABELS = ("red", "blue")
MAX_LENGTH = 24
EXAMPLES = {"train": 96, "dev": 30, "test": 42}

SYNONYMS = {
    "house": ["home", "building"],
    "small": ["little", "tiny", "wee"],
    "walks": ["strolls"],
    "garden": ["park", "orchard"],
}
_FILLERS = (*SYNONYMS, "the", "near", "under", "slowly", "again", "bird", "window")


def sentence(draw: random.Random, words: tuple[str, ...], keyword: str | None) -> str:
    """A few words in random order, after the keyword."""
    chosen = draw.choices(words, k=draw.randint(2, 5))
    if keyword is not None:
        chosen.insert(0, keyword)
    return " ".join(chosen) + draw.choice([".", "!", ""])


@dataclass(frozen=True)
class Toy:
    """Files of a toy task: which colour the first of two texts names."""

    folder: Path
    """Holds `task.yaml`, `synonyms.json` and the task's TSV files."""

    def encoder(self, family: Family = "bert", dropout: float = 0.0) -> Path:
        """A tiny encoder for the task, made once."""
        folder = self.folder / f"{family}-{dropout}"
        if folder.exists():
            return folder
        texts = [" ".join(_FILLERS), *LABELS, *(" ".join(v) for v in SYNONYMS.values())]
        tiny_encoder(folder, family, texts=[*texts, *DEFAULT_TEXTS])
        config = json.loads((folder / "config.json").read_text())
        for key in ("hidden_dropout_prob", "attention_probs_dropout_prob"):
            assert key in config
            config[key] = dropout
        (folder / "config.json").write_text(json.dumps(config))
        return folder

    def spec(
        self, changes: Mapping[str, Any], family: Family = "bert", dropout: float = 0.0
    ) -> SearchSpec:
        """A spec of the task, some of whose dotted keys are changed."""
        tree: dict[str, Any] = {
            "name": "toy",
            "task": str(self.folder / "task.yaml"),
            "model": str(self.encoder(family, dropout)),
            "method": {
                "push_margin": 0.02,
                "push_weight": 1.0,
                "pull_layer": 1,
                "view": {"radius": 0.5, "synonyms": str(self.folder / "synonyms.json")},
            },
            # Gradients that are 0 in theory are rounding error; a small epsilon would scale them
            # up to whole steps, and runs that should be equal would differ by them.
            "training": {
                "max_length": MAX_LENGTH,
                "batch_size": 16,
                "learning_rate": 3e-3,
                "adam_epsilon": 1e-4,
                "evaluations_per_epoch": 1,
                "trim_vocabulary": False,
            },
            "search": {"parameters": {}},
        }
        for key, value in changes.items():
            set_key(tree, key, value)
        return SearchSpec.model_validate(tree)


def make_toy(folder: Path) -> Toy:
    """Write the toy task's files."""
    draw = random.Random(0)
    for split, count in EXAMPLES.items():
        for language, words in {"en": _FILLERS, "de": ("der", "Garten", "liest", "alte")}.items():
            if (split, language) == ("train", "de"):
                continue
            rows = []
            for number in range(count):
                label = LABELS[number % 2]
                texts = sentence(draw, words, label), sentence(draw, words, None)
                rows.append("\t".join([*texts, label]))
            draw.shuffle(rows)
            path = folder / f"{split}-{language}.tsv"
            path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    task = {
        "name": "toy",
        "target_languages": ["de"],
        "text_columns": ["first", "second"],
        "labels": list(LABELS),
        "data": {
            "files": {
                **{split: split + "-{language}.tsv" for split in EXAMPLES},
                "header": False,
                "columns": ["first", "second", "label"],
            }
        },
    }
    (folder / "task.yaml").write_text(yaml.safe_dump(task))
    (folder / "synonyms.json").write_text(json.dumps(SYNONYMS))
    return Toy(folder)


@dataclass
class Run:
    """What a training reported and left behind."""

    reports: list[dict[str, float]] = field(default_factory=list)
    """Metrics of each report, without those that are times."""
    checkpoints: list[Path] = field(default_factory=list)
    """Copies of the reported checkpoints."""
    weights: dict[str, Tensor] = field(default_factory=dict)
    """The classifier's weights afterwards."""

    def curve(self, metric: str) -> list[float]:
        """A metric over the dev evaluations."""
        return [report[metric] for report in self.reports[:-1]]


def train(
    spec: SearchSpec,
    folder: Path,
    *,
    parts: tuple[Any, Any, Any, Any] | None = None,
    workers: Workers | None = None,
    resume: Path | None = None,
    run: Run | None = None,
    memory_shortages: int = 0,
    **others: Any,
) -> Run:
    """Train a spec.

    Args:
        spec: The spec.
        folder: Where checkpoints are written and copied.
        parts: Objective, training, dev and test set; None: built from the spec.
        workers: This worker and its peers; None: alone.
        resume: The checkpoint to go on from.
        run: What to write the reports into; None: a new one.
        memory_shortages: Earlier attempts that ended for lack of memory.
        others: Further arguments of `Trainer`.
    """
    workers = workers or Workers()
    folder.mkdir(parents=True, exist_ok=True)
    run = run or Run()

    def report(metrics: Mapping[str, float], checkpoint: Path | None) -> None:
        times = ("time/", "train/examples_per_second")
        run.reports.append({k: v for k, v in metrics.items() if not k.startswith(times)})
        if checkpoint is not None:
            copy = folder / f"checkpoint-{len(run.reports)}"
            run.checkpoints.append(Path(shutil.copytree(checkpoint, copy)))

    own = folder / f"rank-{workers.rank}"
    own.mkdir()
    parts = TrialParts(*(parts or build(spec, torch.device("cpu"))))
    trainer = Trainer(
        parts,
        spec.training,
        selection=spec.search.objective,
        workers=workers,
        folder=own,
        report=report,
        **others,
    )
    if resume is not None:
        trainer.resume(resume)
    trainer.train(memory_shortages)
    state = parts.objective.classifier.state_dict()
    run.weights = {name: value.clone() for name, value in state.items()}
    return run


def assert_close(one: Mapping[str, Any], other: Mapping[str, Any], tolerance: float) -> None:
    """Compare weights or metrics by name."""
    assert set(one) == set(other)
    for name, value in one.items():
        torch.testing.assert_close(
            torch.as_tensor(value),
            torch.as_tensor(other[name]),
            rtol=tolerance,
            atol=tolerance,
            msg=lambda message, name=name: f"{name}: {message}",
        )
