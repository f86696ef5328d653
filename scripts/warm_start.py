"""Fine-tune an encoder plainly for some steps and write it as a Hugging Face folder.

    python -m scripts.warm_start xnli_small runs/start --data-dir XNLI --set training.max_steps=250

A search with `--model runs/start` goes on from there, head included. Every method then starts from
the same classifier, one that has learnt the task's beginnings, so that a short comparison is not
decided by which run gets off the ground.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import torch
import typer
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from xlt_ray.cli.command_line import run_command_line
from xlt_ray.config.loading import dump_spec, load_spec, parse_overrides
from xlt_ray.data.preparation import prepare
from xlt_ray.distributed import Workers, computes_in_bf16
from xlt_ray.encoders.loading import resolve
from xlt_ray.training.build import build
from xlt_ray.training.trainer import Trainer

RECIPE = "warm_start.yaml"
"""File of the written folder that tells how the classifier was made: a search file."""


def main(
    search: Annotated[str, typer.Argument(help="Search whose task, model and recipe to use.")],
    folder: Annotated[Path, typer.Argument(help="Folder to write; it must not exist.")],
    data_dir: Annotated[Path | None, typer.Option(help="As of launch.py.")] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="As of launch.py.")
    ] = None,
) -> None:
    """Fine-tune plainly and write the checkpoint that the objective of the search selects."""
    if folder.exists():
        raise typer.BadParameter(f"{folder} exists already", param_hint="folder")
    changes = parse_overrides(overrides or [])
    changes |= {"method.name": "plain", "search.parameters": {}, "data.test_limit": 1}
    if data_dir is not None:
        changes["data_dir"] = str(data_dir)
    spec = load_spec(search, changes)

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    workers = Workers(device=device, bf16=computes_in_bf16(device, spec.training.precision))
    parts = build(spec, device)

    def report(metrics: Mapping[str, float], checkpoint: Path | None) -> None:
        shown = ("train/loss/classification", "dev/accuracy/en", "dev/accuracy/zero_shot_mean")
        values = "  ".join(f"{name} {metrics[name]:.3f}" for name in shown if name in metrics)
        print(f"step {metrics['step']:.0f} of {metrics['steps']:.0f}  {values}", flush=True)

    with tempfile.TemporaryDirectory() as scratch:
        Trainer(
            parts,
            spec.training,
            selection=spec.search.objective,
            workers=workers,
            folder=Path(scratch),
            report=report,
        ).train()
    source = resolve(spec.model)
    classifier = parts.objective.classifier.cpu()
    vocabulary = prepare(spec).vocabulary()
    if vocabulary is not None:
        whole = AutoModelForSequenceClassification.from_pretrained(source)
        vocabulary.restore(classifier, whole.get_input_embeddings().weight)
    classifier.save_pretrained(folder)
    AutoTokenizer.from_pretrained(source).save_pretrained(folder)
    (folder / RECIPE).write_text(dump_spec(spec), encoding="utf-8")
    print(f"{folder} is written.")


if __name__ == "__main__":
    run_command_line(main)
