"""Measure on XNLI what the methods buy, and write docs/results.md with its pictures.

    python -m scripts.results --data-dir XNLI --synonyms counterfitted_neighbors.json

fine-tunes plainly for some steps (`scripts/warm_start.py`), runs the search `xnli_small` from
there, compares its best configuration with the other methods over seeds in shorter runs (two hours
on two CPU cores; `--set` changes any key of both, so that a larger machine can do more) and writes
the page. `--run` and `--comparison` write the page from what has been run. The section of
conclusions is written by hand and kept.
"""

from __future__ import annotations

import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from scripts.warm_start import RECIPE as WARM_START
from xlt_ray.cli.command_line import run_command_line
from xlt_ray.config.keys import flatten
from xlt_ray.config.loading import load_spec
from xlt_ray.config.spec import SearchSpec
from xlt_ray.config.task import load_task
from xlt_ray.evaluation.intervals import rank_correlation
from xlt_ray.names import VIRTUAL
from xlt_ray.report.comparison_tables import grid
from xlt_ray.search.trials import BASELINES

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "results.md"
PICTURES = ROOT / "docs" / "images"
CONCLUSIONS = "## What helped and what did not"

WARM_UP = {
    "training.max_steps": 250,
    "training.batch_size": 32,
    "training.learning_rate": 7e-5,
    "training.evaluations_per_epoch": 3,
    "training.seed": 1,
}
"""Of the classifier that all runs go on from."""
SEARCH = {
    "training.max_steps": 60,
    "assessment.generalized_rows": 40,
    "search.baselines": "[plain]",
}
"""Of the search."""
COMPARISON = {
    "training.max_steps": 24,
    "training.evaluations_per_epoch": 1,
    "data.test_limit": 150,
    "assessment.alignment_rows": 0,
    "search.baselines": "[plain, rs-da, rs-rp, adv, ear]",
}
"""Of the comparison, whose runs are many."""

RECIPE = (
    "training.max_steps",
    "training.batch_size",
    "training.learning_rate",
    "data.dev_limit",
    "data.test_limit",
    "method.pull_layer",
    "method.push_weight",
    "method.push_distance",
    "method.view.noise_radius",
    "method.view.ascent_steps",
    "search.objective",
    "search.num_trials",
)
"""Keys of the spec that the page tells."""


def main(
    data_dir: Annotated[
        Path | None, typer.Option(help="XNLI in XTREME's TSV layout; default: from the hub.")
    ] = None,
    synonyms: Annotated[
        str | None, typer.Option(help="Synonyms as of method.view.synonyms; default: the search's.")
    ] = None,
    seeds: Annotated[int, typer.Option(help="Seeds of the comparison.")] = 3,
    run: Annotated[
        Path | None, typer.Option(help="Folder of a search to write the page from.")
    ] = None,
    comparison: Annotated[
        Path | None, typer.Option(help="Folder of its comparison, to go with --run.")
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="As of launch.py.")
    ] = None,
) -> None:
    """Run the search and the comparison, unless --run names them, and write docs/results.md."""
    if (run is None) != (comparison is None):
        raise typer.BadParameter("--run and --comparison go together")
    if run is None or comparison is None:
        run, comparison = measure(data_dir, synonyms, seeds, overrides or [])
    write_page(run, comparison)
    print(f"{PAGE} is written from {run} and {comparison}.")


def measure(
    data_dir: Path | None, synonyms: str | None, seeds: int, overrides: list[str]
) -> tuple[Path, Path]:
    """Fine-tune plainly, search from there, compare; return the folders of the latter two."""
    given = [] if data_dir is None else ["--data-dir", str(data_dir)]
    changes = overrides
    if synonyms is not None:
        changes = [f"method.view.synonyms={synonyms}", *overrides]

    def flags(own: dict[str, Any], further: list[str]) -> list[str]:
        values = [f"{key}={value}" for key, value in own.items()] + further
        return [flag for value in values for flag in ("--set", value)]

    start = Path("runs/xnli_small-start")
    if not start.exists():
        run_module("scripts.warm_start", "xnli_small", str(start), *given, *flags(WARM_UP, changes))
    search = ["--search", "xnli_small", "--model", str(start), "--generalized"]
    run_module("launch", *search, *given, *flags(SEARCH, changes))
    run = newest("xnli_small-2*")
    # What the search file, the data and the changes say stands in best.yaml.
    compared = ["--search", str(run / "best.yaml"), "--seeds", str(seeds)]
    run_module("launch", *compared, *flags(COMPARISON, []))
    return run, newest("xnli_small-best-*")


def newest(pattern: str) -> Path:
    """The latest folder of that name under runs/."""
    return max(Path("runs").glob(pattern), key=os.path.getmtime)


def run_module(*command: str) -> None:
    """Run a module of this project, and show how."""
    print("python -m", shlex.join(command), flush=True)
    subprocess.run([sys.executable, "-m", *command], check=True)


def write_page(run: Path, compared: Path) -> None:
    """Write the page and its pictures from the folders of a search and of its comparison."""
    spec = load_spec(str(run / "search.yaml"))
    trials, runs = read(run / "leaderboard.json"), read(compared / "comparison-runs.json")
    assessed = read(run / "assessment" / "assessment.json")
    languages = load_task("xnli").target_languages
    parts = [
        introduction(spec, compared, trials, runs),
        CONCLUSIONS + "\n\n" + conclusions(),
        (compared / "comparison.md").read_text(encoding="utf-8").strip(),
        "![Accuracy by language](images/results-accuracy.png)\n\n"
        "Intervals: 95 % bootstrap over test items and seeds.",
        "## The search\n\n" + search_table(spec, trials),
        "## Which dev objective orders runs like the test set\n\n" + correlations(runs),
        "## Alignment\n\n" + alignment(assessed, languages),
        "![Alignment by language](images/results-alignment.png)",
        "![Sentence embeddings](images/results-projection.png)",
        "## Premise and hypothesis in two languages\n\n" + generalized(run),
        "![Pairs of languages](images/results-generalized-best.png)",
    ]
    PAGE.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    PICTURES.mkdir(exist_ok=True)
    shutil.copyfile(compared / "accuracy.png", PICTURES / "results-accuracy.png")
    for picture in (run / "assessment").glob("*.png"):
        shutil.copyfile(picture, PICTURES / f"results-{picture.name}")


def introduction(spec: SearchSpec, compared: Path, trials: list[Any], runs: list[Any]) -> str:
    """What was run, on what, and how long it took."""
    values, other = (
        flatten(each.model_dump(mode="json"))
        for each in (spec, load_spec(str(compared / "search.yaml")))
    )
    recipe = [
        [f"`{key}`", f"`{json.dumps(values[key])}`", f"`{json.dumps(other[key])}`"]
        for key in RECIPE
        if key not in spec.search.parameters
    ]
    finished = {row["trial"] for row in runs if row["status"] == "finished"}
    seeds = read(compared / "comparison.json")["seeds"]
    hours = sum(row["seconds/total"] for row in [*trials, *runs]) / 3600
    start = load_spec(str(Path(spec.model) / WARM_START))
    before = start.training
    return (
        "# Results on XNLI\n\n"
        "Made by `python -m scripts.results --data-dir XNLI --synonyms "
        "counterfitted_neighbors.json`. Training text: English SNLI (its dev and test pairs). Dev "
        "and test: the two halves of XNLI's dev set, in 15 languages, line by line parallel; the "
        "first rows of each, as many as the limits below tell. Synonyms: the counter-fitted "
        "neighbours that the paper uses.\n\n"
        f"Every run goes on from one classifier: `{start.model}` after {before.max_steps} steps of "
        f"plain fine-tuning, {before.batch_size} pairs each, at a peak learning rate of "
        f"{before.learning_rate:g}. So no run depends on whether its new head starts "
        "to learn, which at this size would be most of the difference between seeds. Statements "
        "about seeds therefore cover the steps after that. From there:\n\n"
        f"{grid(['key', 'search', 'comparison'], recipe)}\n\n"
        f"{len(trials)} trials of the search, then the comparison: {len(finished)} finished runs, "
        f"{len(seeds)} fresh seeds that every method finished; {hours:.1f} hours of trials, each "
        f"on one CPU core ({platform.machine()}, no GPU). At this size the scores are far below "
        "what the encoder reaches when trained to the end; differences between methods are what "
        "to look at, with their intervals."
    )


def conclusions() -> str:
    """The page's own section of conclusions, written by hand."""
    if PAGE.exists():
        _, _, after = PAGE.read_text(encoding="utf-8").partition(CONCLUSIONS)
        return after.partition("\n## ")[0].strip()
    return ""


def search_table(spec: SearchSpec, trials: list[Any]) -> str:
    """The trials of the search: their values, dev objective and test scores."""
    searched = list(spec.search.parameters)
    rows = []
    for row in trials:
        shown = row["rank"] or row["status"]
        rows.append(
            [
                str(shown),
                row["trial"],
                *(value(row.get(key), row["trial"]) for key in searched),
                percent(row["objective"]),
                percent(row.get("test/accuracy/zero_shot_mean")),
                percent(row.get("test/accuracy/en")),
            ]
        )
    names = [key.removeprefix("method.") for key in searched]
    return grid(["rank", "trial", *names, "dev objective", "test zero-shot", "test en"], rows)


def correlations(rows: list[Any]) -> str:
    """Rank correlation of each dev objective with the test zero-shot mean, over finished runs."""
    finished = [row for row in rows if row["status"] == "finished"]
    test = [row["test/accuracy/zero_shot_mean"] for row in finished]
    lines = []
    for name in ("en", "en" + VIRTUAL, "zero_shot_mean"):
        found, chance = rank_correlation(
            [row[f"selected/accuracy/{name}"] for row in finished], test
        )
        lines.append([f"`dev/accuracy/{name}`", f"{found:+.2f}", f"{chance:.3f}"])
    return (
        f"Spearman's rank correlation with the test zero-shot mean over the {len(finished)} "
        "runs of the comparison, and the permutation p-value.\n\n"
        + grid(["objective", "correlation", "p"], lines)
    )


def alignment(assessed: dict[str, dict[str, float]], languages: Sequence[str]) -> str:
    """Translation retrieval and cosine margins, by model and language."""
    means = [
        [
            name,
            *(
                f"{percent(found[f'alignment/{place}retrieval/mean'])} / "
                f"{found[f'alignment/{place}margin/mean']:.3f}"
                for place in ("embedding/", "pulled/", "")
            ),
        ]
        for name, found in assessed.items()
    ]
    each = [
        [code, *(percent(found[f"alignment/retrieval/{code}"]) for found in assessed.values())]
        for code in languages
    ]
    return (
        "Mean over the target languages of translation retrieval accuracy@1 (%) and of the cosine "
        "margin between translations and other pairs; the models of the search.\n\n"
        + grid(["model", "embedding layer", "pulled layer", "last layer"], means)
        + "\n\nRetrieval in every language, last layer, in %:\n\n"
        + grid(["language", *assessed], each)
    )


def generalized(run: Path) -> str:
    """Mean accuracies over pairs of languages."""
    import numpy as np

    rows = []
    for name in ("plain", "best"):
        table = np.genfromtxt(
            run / "assessment" / f"generalized-{name}.csv", delimiter=",", skip_header=1
        )[:, 1:]
        diagonal = np.eye(len(table), dtype=bool)
        rows.append(
            [name, *(percent(part.mean()) for part in (table, table[diagonal], table[~diagonal]))]
        )
    return grid(["model", "all pairs", "same language", "two languages"], rows)


def read(path: Path) -> Any:
    """Read a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def percent(number: float | None) -> str:
    """A share in percent; empty where there is none."""
    return "" if number is None else f"{100 * number:.1f}"


def value(number: Any, trial: str) -> str:
    """A searched value in a few characters."""
    if trial in BASELINES:
        return "-"
    if number is None:
        return "none"
    return f"{number:.3g}" if isinstance(number, float) else str(number)


if __name__ == "__main__":
    run_command_line(main)
