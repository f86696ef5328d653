"""A tiny search to run for real: its task, its encoder and the command line as a process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from scripts.tiny_encoder import tiny_encoder

ROOT = Path(__file__).resolve().parents[1]
LANGUAGES = ("en", "de", "ru")

_SUBJECTS = {
    "en": ("The man", "The woman", "A child", "My friend", "The old doctor"),
    "de": ("Der Mann", "Die Frau", "Ein Kind", "Mein Freund", "Der alte Arzt"),
    "ru": ("Мужчина", "Женщина", "Ребёнок", "Мой друг", "Старый врач"),
}
_VERBS = {
    "en": (("sleeps", "rests"), ("eats", "dines"), ("runs", "moves"), ("sings", "performs")),
    "de": (("schläft", "ruht"), ("isst", "speist"), ("rennt", "eilt"), ("singt", "trällert")),
    "ru": (("спит", "дремлет"), ("ест", "обедает"), ("бежит", "мчится"), ("поёт", "напевает")),
}


def write_task(folder: Path, train: int = 96, evaluation: int = 18) -> Path:
    """Write a tiny inference task in three languages and its YAML; return the YAML's path."""
    folder.mkdir(parents=True, exist_ok=True)

    def rows(language: str, count: int, offset: int) -> str:
        lines = []
        for number in range(offset, offset + count):
            subject = _SUBJECTS[language][number % 5]
            verb = (number // 5) % 4
            same, other = _VERBS[language][verb], _VERBS[language][(verb + 1) % 4]
            premise = f"{subject} {same[0]}."
            entails = number % 3 == 0
            hypothesis = f"{subject} {same[1] if entails else other[1]}."
            lines.append(f"{premise}\t{hypothesis}\t{'yes' if entails else 'no'}")
        return "\n".join(lines) + "\n"

    (folder / "train-en.tsv").write_text(rows("en", train, 0), encoding="utf-8")
    for language in LANGUAGES:
        for split, offset in (("dev", 1000), ("test", 2000)):
            text = rows(language, evaluation, offset)
            (folder / f"{split}-{language}.tsv").write_text(text, encoding="utf-8")
    task = {
        "name": "tiny",
        "source_language": "en",
        "target_languages": list(LANGUAGES[1:]),
        "text_columns": ["premise", "hypothesis"],
        "label_column": "label",
        "labels": ["yes", "no"],
        "data": {
            "files": {
                "train": "train-{language}.tsv",
                "dev": "dev-{language}.tsv",
                "test": "test-{language}.tsv",
                "columns": ["premise", "hypothesis", "label"],
                "header": False,
            }
        },
    }
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(task), encoding="utf-8")
    return path


def write_search(folder: Path, **changes: Any) -> Path:
    """Write a search over the tiny task with a tiny encoder; return its path.

    Args:
        folder: Where the task, the encoder, the synonyms and the search go.
        changes: Sections of the search, merged into the defaults below.
    """
    task = write_task(folder / "data")
    texts = [
        f"{subject} {verb}."
        for code in LANGUAGES
        for subject in _SUBJECTS[code]
        for pair in _VERBS[code]
        for verb in pair
    ]
    model = tiny_encoder(folder / "encoder", "xlm-roberta", texts=texts, num_labels=2)
    synonyms = folder / "synonyms.json"
    synonyms.write_text(json.dumps({"man": ["gentleman"], "child": ["kid"], "old": ["elderly"]}))
    search: dict[str, Any] = {
        "name": "tiny",
        "task": str(task),
        "model": str(model),
        "method": {
            "push_distance": "relative",
            "pull_layer": 1,
            "view": {"synonyms": str(synonyms), "radius": 0.5},
        },
        "training": {
            "epochs": 2,
            "batch_size": 16,
            "learning_rate": 1e-3,
            "max_length": 32,
            "evaluations_per_epoch": 2,
            "precision": "fp32",
        },
        "search": {
            "num_trials": 2,
            "max_concurrent": 2,
            "soups": False,
            "early_stopping": {"enabled": False},
            "parameters": {
                "method.push_margin": {"distribution": "uniform", "low": 0.0, "high": 0.5},
                "method.pull_weight": {"distribution": "log_uniform", "low": 0.1, "high": 10.0},
                "method.view.radius": {"distribution": "uniform", "low": 0.1, "high": 1.0},
            },
        },
        "resources": {"cpus_per_worker": 1},
    }
    for section, values in changes.items():
        if isinstance(values, dict):
            search[section] = {**search.get(section, {}), **values}
        else:
            search[section] = values
    path = folder / "tiny-search.yaml"
    path.write_text(yaml.safe_dump(search), encoding="utf-8")
    return path


@dataclass(frozen=True)
class Run:
    """A finished `python launch.py` process."""

    code: int
    output: str
    errors: str


def environment(folder: Path) -> dict[str, str]:
    """The environment of a launch that keeps its caches in a folder and reaches no hub."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    kept.pop("RAY_ADDRESS", None)
    return kept | {
        "XLT_RAY_CACHE": str(folder / "cache"),
        "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": str(ROOT),
        "COLUMNS": "120",
    }


def launch(
    *arguments: str,
    folder: Path,
    timeout_s: float = 500,
    variables: Mapping[str, str] | None = None,
) -> Run:
    """Run `python launch.py` with a folder as the working folder.

    Args:
        arguments: Those of `launch.py`.
        folder: The working folder, which also has the caches.
        timeout_s: Seconds after which the process is ended.
        variables: Further environment variables.
    """
    result = subprocess.run(
        [sys.executable, str(ROOT / "launch.py"), *arguments],
        cwd=folder,
        env=environment(folder) | dict(variables or {}),
        capture_output=True,
        text=True,
        timeout=timeout_s,
    )
    return Run(result.returncode, result.stdout, result.stderr)
