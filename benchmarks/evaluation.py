"""Zero-shot evaluation against language-by-language evaluation, and over pairs of languages.

python -m benchmarks.evaluation packaged
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer

from benchmarks import baseline
from benchmarks.measuring import alternate, device, machine, matmul_rate, show
from benchmarks.workload import (
    END,
    PAD,
    ModelName,
    Workload,
    forward_flops,
    load_model,
    load_workload,
)
from xlt_ray.config.spec import Precision
from xlt_ray.data.evaluation_set import EvaluationSet
from xlt_ray.data.vocabulary import Vocabulary
from xlt_ray.distributed import Workers, computes_in_bf16
from xlt_ray.evaluation.language_pairs import accuracy_matrix
from xlt_ray.evaluation.predict import predict

PAIRS = "xlt-ray, pairs of languages"
"""The row of the matrix over all language pairs."""


def main(
    model: Annotated[ModelName, typer.Argument(help="Shape of the encoder.")],
    data_dir: Annotated[Path | None, typer.Option(help="XNLI in XTREME's layout.")] = None,
    synonyms: Annotated[str | None, typer.Option(help="As of method.view.synonyms.")] = None,
    rows: Annotated[int, typer.Option(help="Texts a language.")] = baseline.EVALUATION_BATCH,
    some: Annotated[
        int, typer.Option("--languages", help="So many of them, spread evenly; pairs of all.")
    ] = 15,
    pair_rows: Annotated[int, typer.Option(help="Texts of each pair of languages.")] = 2,
    turns: Annotated[int, typer.Option(help="Measured evaluations.")] = 2,
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 2,
    precision: Annotated[Precision, typer.Option(help="As of training.precision.")] = "auto",
    json_file: Annotated[Path | None, typer.Option("--json", help="Keep the figures.")] = None,
) -> None:
    """Measure texts per second."""
    workload = load_workload(data_dir, synonyms)
    bf16 = computes_in_bf16(device(), precision)
    common = (model, workload, bf16)
    count = len(workload.languages)
    chosen = list(workload.languages.values())[:: -(-count // some)]
    sides = [side[:rows] for side in chosen]
    names = {
        "language by language": functools.partial(obvious, *common, sides),
        "xlt-ray": functools.partial(ours, *common, sides),
        PAIRS: functools.partial(pairs, *common, pair_rows),
    }
    # An evaluation takes minutes on a CPU: what its first batch takes longer does not count.
    warm_up = 0 if device().type == "cpu" else 1
    measured = alternate(names, turns, threads, warm_up)
    lengths = np.array([len(row) for side in sides for row in side])
    texts = {
        "language by language": len(lengths),
        "xlt-ray": len(lengths),
        PAIRS: pair_rows * count**2,
    }
    config = load_model(model).config
    rate = matmul_rate(4096, config.hidden_size, config.intermediate_size, bf16, threads)
    # A pair of languages has the first text of one and the second of the other: as long as a pair
    # of one language on average.
    paired = np.array(
        [len(row) for side in workload.languages.values() for row in side[:pair_rows]]
    )
    read = {name: paired if name == PAIRS else lengths for name in names}
    floor = {
        name: forward_flops(config, of_texts) / rate / len(of_texts)
        for name, of_texts in read.items()
    }
    slow = measured["language by language"].median / texts["language by language"]
    table = [
        {
            "evaluation": name,
            "texts": f"{texts[name]:,}",
            "seconds": f"{measured[name].median:.2f}",
            "texts/s": f"{texts[name] / measured[name].median:.1f}",
            "× baseline": f"{slow * texts[name] / measured[name].median:.2f}",
            "share of the floor": f"{floor[name] * texts[name] / measured[name].median:.0%}",
        }
        for name in names
    ]
    facts: dict[str, Any] = {
        "machine": machine(threads, bf16),
        "text": f"{workload.origin}, {len(sides)} of {count} languages, {lengths.mean():.1f} "
        f"tokens on average; pairs of all {count}, {paired.mean():.1f} tokens",
        "floor": f"the real tokens' matrix products at {rate / 1e9:,.0f} GFLOP/s",
    }
    show(f"Evaluation, {model}", table, json_file, facts)


def obvious(
    model: ModelName, workload: Workload, bf16: bool, texts: list[list[np.ndarray]]
) -> Callable[[int], None]:
    """The baseline's evaluation."""
    classifier = load_model(model).to(device())
    classifier.set_attn_implementation("eager")
    autocast = torch.autocast(device().type, dtype=torch.bfloat16, enabled=bf16)

    def evaluate(turn: int) -> None:
        baseline.evaluate(classifier, texts, PAD, device(), autocast)

    return evaluate


def ours(
    model: ModelName, workload: Workload, bf16: bool, texts: list[list[np.ndarray]]
) -> Callable[[int], None]:
    """A trial's evaluation."""
    classifier, vocabulary = trimmed(model, workload)
    ids = [vocabulary.rows(row) for side in texts for row in side]
    workers = Workers(device=device(), bf16=bf16)

    def evaluate(turn: int) -> None:
        predict(classifier, {"input_ids": ids}, pad_id=PAD, workers=workers)

    return evaluate


def pairs(model: ModelName, workload: Workload, bf16: bool, rows: int) -> Callable[[int], None]:
    """Every first text with every language's second one."""
    classifier, vocabulary = trimmed(model, workload)
    sides = [side[:rows] for side in workload.languages.values()]
    ids = [vocabulary.rows(row) for side in sides for row in side]
    languages = tuple(workload.languages)
    workers = Workers(device=device(), bf16=bf16)
    data = EvaluationSet(
        inputs={"input_ids": ids},
        labels=np.zeros(len(ids), dtype=np.int64),
        language=np.repeat(np.arange(len(languages)), rows),
        row=np.tile(np.arange(rows), len(languages)),
        languages=languages,
        source=languages[0],
        pad_id=PAD,
    )

    def evaluate(turn: int) -> None:
        accuracy_matrix(
            classifier,
            data,
            separator_ids={END},
            workers=workers,
            max_length=baseline.MAX_LENGTH,
        )

    return evaluate


def trimmed(model: ModelName, workload: Workload) -> tuple[Any, Vocabulary]:
    """A classifier with the kept rows, and those. Special tokens keep their ids."""
    classifier = load_model(model)
    workload.vocabulary.trim(classifier)
    return classifier.to(device()), workload.vocabulary


if __name__ == "__main__":
    typer.run(main)
