"""What the benchmarks compute on: models by shape, and pairs of texts with views by length.

Real text where there is any: `--data-dir` and `--synonyms`. Elsewhere random tokens of the lengths
in lengths.json, which are those of such text; this command writes them anew:

    python -m benchmarks.workload XNLI_FOLDER SYNONYMS_FILE
"""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import typer

from xlt_ray.data.vocabulary import Vocabulary, reachable_ids

ModelName = Literal["packaged", "xlm-roberta-base", "xlm-roberta-large", "tiny"]
PACKAGED = "packaged/multilingual-e5-small"
SIZE = 250_002
"""Rows of XLM-R's embedding table, which all these models have."""
BEGIN, PAD, END = 0, 1, 2
"""Ids of <s>, <pad> and </s>."""
LABELS = ("contradiction", "entailment", "neutral")
_LENGTHS = Path(__file__).with_name("lengths.json")
_TRAINING_PAIRS, _EVALUATION_ROWS = 2_000, 400


@dataclass(frozen=True)
class Workload:
    """Token ids, special tokens included."""

    texts: list[np.ndarray]
    """English pairs to train on."""
    views: list[np.ndarray]
    """A synonym view of each."""
    languages: dict[str, list[np.ndarray]]
    """Pairs to evaluate on, by language."""
    vocabulary: Vocabulary
    """Ids that training and evaluation can reach."""
    origin: str
    """Where the texts are from."""


def load_workload(data_dir: Path | None, synonyms: str | None) -> Workload:
    """Read and tokenise real text, or make up tokens of real lengths."""
    if data_dir is not None and synonyms is not None:
        return _real(data_dir, synonyms)
    lengths = json.loads(_LENGTHS.read_text(encoding="utf-8"))
    random = np.random.default_rng(0)
    kept = random.choice(np.arange(4, SIZE), lengths["kept"] - 4, replace=False)
    kept = np.concatenate([np.arange(4), kept])
    trained = kept[: lengths["trained"]]

    def pair(size: int, ids: np.ndarray) -> np.ndarray:
        """<s> A </s> </s> B </s>, A the longer text."""
        words = random.choice(ids[4:], size - 4)
        cut = -(-2 * len(words) // 3)
        return np.array([BEGIN, *words[:cut], END, END, *words[cut:], END])

    def rows(sizes: list[int], ids: np.ndarray = kept) -> list[np.ndarray]:
        return [pair(size, ids) for size in sizes]

    return Workload(
        texts=rows(lengths["text"], trained),
        views=rows(lengths["view"], trained),
        languages={code: rows(sizes) for code, sizes in lengths["languages"].items()},
        vocabulary=Vocabulary.of(np.sort(trained), kept, SIZE),
        origin="random tokens in the lengths of XNLI and SNLI",
    )


def _real(data_dir: Path, synonyms: str) -> Workload:
    from transformers import AutoTokenizer

    from xlt_ray.encoders.loading import resolve
    from xlt_ray.method.synonym_view import SynonymView
    from xlt_ray.method.synonyms import load_synonyms

    tokenizer = AutoTokenizer.from_pretrained(resolve(PACKAGED))
    dictionary = load_synonyms(synonyms)

    def read(file: Path, rows: int | None = None) -> list[tuple[str, str]]:
        with file.open(encoding="utf-8", newline="") as lines:
            pairs = [
                (row[0], row[1])
                for row in csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
            ]
        return pairs[:rows]

    def encode(pairs: list[tuple[str, str]]) -> list[np.ndarray]:
        first, second = ([pair[side] for pair in pairs] for side in (0, 1))
        found = tokenizer(first, second, truncation="longest_first", max_length=128)
        return [np.array(row) for row in found["input_ids"]]

    train = read(data_dir / "train-en.tsv")
    splits = {
        file.stem: encode(read(file))
        for split in ("dev", "test")
        for file in sorted(data_dir.glob(f"{split}-*.tsv"))
    }
    everything = SynonymView(dictionary, 1.0, seed=0)
    view = SynonymView(dictionary, "paper", seed=0)
    viewed = [
        tuple(
            view.perturb(text, epoch=0, row=row, column=column) for column, text in enumerate(pair)
        )
        for row, pair in enumerate(train[:_TRAINING_PAIRS])
    ]

    def reached(rows: list[list[np.ndarray]], viewed: list[tuple[str, str]]) -> np.ndarray:
        texts = [text for pair in viewed for text in pair]
        return reachable_ids(tokenizer, map(np.concatenate, rows), texts, everything)

    trained = reached([encode(train)], train)
    evaluated = reached(list(splits.values()), read(data_dir / "dev-en.tsv"))
    return Workload(
        texts=encode(train[:_TRAINING_PAIRS]),
        views=encode(viewed),  # type: ignore[arg-type]
        languages={
            name.removeprefix("test-"): rows[:_EVALUATION_ROWS]
            for name, rows in splits.items()
            if name.startswith("test-")
        },
        vocabulary=Vocabulary.of(trained, evaluated, SIZE),
        origin=f"the texts in {data_dir.name}/ and their synonyms",
    )


def keep_lengths(data_dir: Path, synonyms: str) -> None:
    """Write lengths.json from XNLI in XTREME's layout and a file of synonyms."""
    workload = _real(data_dir, synonyms)
    lengths = {
        "text": [len(row) for row in workload.texts],
        "view": [len(row) for row in workload.views],
        "languages": {c: [len(row) for row in rows] for c, rows in workload.languages.items()},
        "kept": len(workload.vocabulary.kept),
        "trained": workload.vocabulary.trained,
    }
    _LENGTHS.write_text(json.dumps(lengths) + "\n", encoding="utf-8")


def load_model(name: ModelName) -> Any:
    """A classifier of three classes with the whole vocabulary, in float32 on the CPU."""
    from transformers import XLMRobertaConfig, XLMRobertaForSequenceClassification

    from xlt_ray.encoders.loading import load_classifier, resolve

    if name == "packaged":
        return load_classifier(resolve(PACKAGED), LABELS, seed=0)
    settings: dict[str, Any] = {
        "vocab_size": SIZE,
        "max_position_embeddings": 514,
        "type_vocab_size": 1,
        "num_labels": len(LABELS),
    }
    if name == "tiny":
        settings |= {"hidden_size": 32, "num_hidden_layers": 6, "num_attention_heads": 4}
        settings |= {"intermediate_size": 64}
    if name == "xlm-roberta-large":
        settings |= {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16}
        settings |= {"intermediate_size": 4096}
    torch.manual_seed(0)
    config = XLMRobertaConfig(**settings)
    return XLMRobertaForSequenceClassification(config)


def forward_flops(config: Any, lengths: np.ndarray) -> float:
    """Operations of an encoder's forward pass over texts, the matrix products alone.

    Two for each weight of the layers and each token, and those of attention. A forward pass with
    its backward pass takes three times as many.

    Args:
        config: The model's configuration.
        lengths: Tokens of each text (texts,).
    """
    hidden, layers = config.hidden_size, config.num_hidden_layers
    weights = layers * (4 * hidden**2 + 2 * hidden * config.intermediate_size)
    return float(
        2 * weights * lengths.sum() + 4 * layers * hidden * (lengths.astype(float) ** 2).sum()
    )


if __name__ == "__main__":
    typer.run(keep_lengths)
