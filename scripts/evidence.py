"""Train the methods of an experiment with several seeds, paired, and keep every result in a table.

    python -m scripts.evidence sib200 --search-run RUN --data-dir FOLDER --synonyms FILE

An experiment starts from a finished search: its best configuration is the winner, and its best
configurations are the members of the soup. Its leaderboard is kept as EXPERIMENT-search.json. Each
is trained anew with seeds that the search did not use, as are the methods of the paper and plain
fine-tuning. The runs of one seed share the head they start from, and apart from the members of the
plain soup the order of the data. Every run takes the mean weights of its last evaluations,
but for `usual`, `single`, `last` and `ema`, and is scored on test data once.

The command can be stopped at any time; the same command goes on with what the table lacks, then
without `--search-run` too. It appends a line for each run to docs/results/EXPERIMENT.jsonl; the
keys that all of them share are in EXPERIMENT-spec.json, with digests of the data, so that all runs
of a table read the same. `python -m scripts.results` writes the page.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from xlt_ray.cli.command_line import run_command_line
from xlt_ray.cli.flags import DataDir, Overrides, given, spec_changes
from xlt_ray.cluster.connection import LOCAL_ENVIRONMENT
from xlt_ray.config.keys import flatten
from xlt_ray.config.loading import load_spec
from xlt_ray.config.method import PAPER_METHOD
from xlt_ray.config.spec import SearchSpec
from xlt_ray.config.task import task_of
from xlt_ray.encoders.loading import check_encoder
from xlt_ray.errors import UserError
from xlt_ray.journal import Journal
from xlt_ray.method.synonyms import load_synonyms
from xlt_ray.names import OBJECTIVE
from xlt_ray.search.inputs import PLACES, TASK, fingerprints
from xlt_ray.search.ledger import changed_inputs
from xlt_ray.search.trials import trial_spec

TABLES = Path(__file__).resolve().parent.parent / "docs" / "results"
"""Folder of the tables, one for each experiment."""

Values = Mapping[str, Any]
"""Values of spec keys."""

METHODS: dict[str, Values] = {
    "plain": {"method.name": "plain"},
    "rs-da": {"method.name": "rs-da", "method.view.radius": "paper"},
    "paper": {f"method.{key}": value for key, value in PAPER_METHOD.items()},
    # As fine-tuning is usually done: every layer, and the weights of the best dev evaluation.
    "usual": {"method.name": "plain", "training.average_last": None, "training.frozen_layers": 0},
    # Only one of the two; and the last weights, which are neither chosen nor averaged.
    "single": {"method.name": "plain", "training.average_last": None},
    "last": {"method.name": "plain", "training.average_last": 1},
    "unfrozen": {"method.name": "plain", "training.frozen_layers": 0},
    "half": {"method.name": "plain", "training.frozen_layers": 6},
    "plain-long": {"method.name": "plain-long"},
    "rs-rp": {"method.name": "rs-rp"},
    "adv": {"method.name": "adv"},
    # What each term does: views as rs-da has them, and one more term at a weight that shows in the
    # loss.
    "push": {
        "method.name": "ear-no-pull",
        "method.push_weight": 10.0,
        "method.push_distance": "relative",
        "method.push_margin": 0.5,
        "method.view.radius": "paper",
    },
    "pull": {
        "method.name": "ear-no-push",
        "method.pull_weight": 10.0,
        "method.view.radius": "paper",
    },
    "consistency": {
        "method.name": "rs-da",
        "method.consistency_weight": 1.0,
        "method.view.radius": "paper",
    },
    # Choices of the recipe, with plain fine-tuning.
    "frozen-embeddings": {"method.name": "plain", "training.frozen_embeddings": True},
    "frozen-more": {"method.name": "plain", "training.frozen_layers": 8},
    "layer-decay": {"method.name": "plain", "training.layer_decay": 0.9},
    "label-smoothing": {"method.name": "plain", "training.label_smoothing": 0.1},
    "warm-up": {"method.name": "plain", "training.warmup_share": 0.1},
    "ema": {"method.name": "plain", "training.ema_decay": 0.98, "training.average_last": 1},
    # As adapters are usually trained: in every layer, at ten times the learning rate.
    "lora": {
        "method.name": "plain",
        "training.lora_rank": 8,
        "training.learning_rate": 1e-3,
        "training.frozen_layers": 0,
    },
}
"""The methods beside the winner, and where they differ from the experiment's search file."""

RECIPE = (
    "single",
    "frozen-embeddings",
    "frozen-more",
    "layer-decay",
    "label-smoothing",
    "warm-up",
    "ema",
    "lora",
)
"""The methods that show what a choice of the recipe does."""

TERMS = ("consistency", "push", "pull")
"""The methods that show what a term does."""

TUNED = "plain-tuned"
"""Plain fine-tuning with the winner's values of `training`: what the recipe does without views."""

TUNED_LONG = "plain-long-tuned"
"""The same with twice the steps, so at the cost of a method with views."""

_SHARED = ("method.", "training.", "data.", "target_languages", "search.objective")
"""Keys, or prefixes of keys, that all runs of a table share unless a run has its own value."""

SOUPS = "soups"
"""Stands among an experiment's methods for the runs that only its soups need."""


@dataclass(frozen=True)
class Experiment:
    """What is trained with which seeds."""

    search: str
    """The search file that the experiment starts from."""
    texts: str
    """What its data are, in a sentence."""
    seeds: tuple[int, ...]
    """Seeds of the methods."""
    methods: tuple[tuple[str, ...], ...]
    """The methods in groups: a group's runs of all seeds, then the next group's."""
    soup_seeds: tuple[int, ...] = ()
    """Seeds of :data:`SOUPS`, which cost most."""
    changes: Values = field(default_factory=dict)
    """Where it differs from the search file."""
    members: int = 4
    """Runs that a soup averages."""
    plain_rates: tuple[float, ...] = (0.5, 1.0, 1.7, 3.0)
    """Learning rates of the plain soup's members, as factors of the search file's."""


_SIB200 = (
    "The whole of SIB-200 in 31 languages: 701 English training sentences, 99 dev and 204 test "
    "sentences a language."
)

EXPERIMENTS = {
    "sib200": Experiment(
        search="sib200_small",
        texts=_SIB200,
        seeds=(101, 102, 103, 104, 105),
        methods=(
            ("plain", "best"),
            ("usual",),
            ("unfrozen", "rs-da"),
            TERMS,
            RECIPE,
            (SOUPS,),
            ("plain-long", "paper", "rs-rp", "adv"),
        ),
        soup_seeds=(101, 102, 103),
    ),
    # Here the recipe is searched as well: plain fine-tuning trains every layer.
    "sib200-methods": Experiment(
        search="sib200_methods",
        texts=_SIB200,
        seeds=(101, 102, 103, 104, 105),
        methods=(("plain", "best"), (TUNED,), (SOUPS,), ("half", "usual")),
        soup_seeds=(101, 102, 103),
    ),
    # The same search without the target languages' dev texts.
    "sib200-methods-english": Experiment(
        search="sib200_methods",
        texts=_SIB200,
        seeds=(101, 102, 103, 104, 105),
        methods=(("plain", "best"),),
        changes={
            "search.objective": "dev/calibrated/en_and_virtual",
            "data.target_dev_limit": None,
            "data.dev_languages": "source",
        },
    ),
    "sib200-all-layers": Experiment(
        search="sib200_small",
        texts=_SIB200,
        seeds=(101, 102, 103, 104, 105),
        methods=(("plain", "best"), ("last", "rs-da")),
        changes={"training.frozen_layers": 0},
    ),
    "xnli": Experiment(
        search="xnli_small",
        texts="Trained on 19,666 English pairs of SNLI (its dev and test sets), not on the 392,702 "
        "of MultiNLI. Dev and test texts are the two halves of XNLI's dev set, 1,245 pairs a "
        "language each; XNLI's own test set was not used.",
        seeds=(101, 102, 103),
        methods=(
            ("plain", "best"),
            (TUNED,),
            ("rs-da", "plain-long"),
            (TUNED_LONG,),
            ("usual", "paper"),
        ),
    ),
    "pawsx": Experiment(
        search="pawsx_small",
        texts="Trained on the 2,000 English pairs of PAWS-X's dev set, not on its 49,401 training "
        "pairs. Dev and test texts are two parts of PAWS-X's test set, 500 pairs a language each.",
        seeds=(101, 102, 103),
        methods=(("plain", "best"), (TUNED,), ("rs-da",)),
    ),
    "demo": Experiment(
        search="demo",
        texts="512 English training texts, 64 dev and 128 test texts a language, which the package "
        "brings.",
        seeds=(101, 102, 103, 104, 105),
        methods=(("plain", "best"), (TUNED, "half"), (SOUPS,), ("usual", "rs-da", "paper")),
        soup_seeds=(101, 102, 103, 104, 105),
    ),
}


@dataclass(frozen=True)
class Run:
    """One training, or one soup of trainings."""

    label: str
    """The method, such as `rs-da`, or the member of a soup, such as `soup/03`."""
    seed: int
    """The pair it belongs to: the head's seed."""
    values: Values
    """Values of spec keys."""
    soups: tuple[str, ...] = ()
    """Labels of the soups that average it."""

    @property
    def key(self) -> tuple[str, int]:
        """What names the run in the table."""
        return self.label, self.seed


def main(
    name: Annotated[str, typer.Argument(help=f"One of {', '.join(EXPERIMENTS)}.")],
    search_run: Annotated[
        Path | None, typer.Option(help="Folder of the finished search; needed the first time.")
    ] = None,
    data_dir: DataDir = None,
    synonyms: Annotated[
        str | None, typer.Option(help="Synonyms as of method.view.synonyms; default: the search's.")
    ] = None,
    jobs: Annotated[int, typer.Option(help="Trainings side by side, each on one thread.")] = 2,
    table: Annotated[
        Path | None, typer.Option(help="The table; default: docs/results/NAME.jsonl.")
    ] = None,
    changes: Overrides = None,
) -> None:
    """Train what the experiment's table lacks."""
    spec = spec_of(name, data_dir, synonyms, changes)
    experiment = EXPERIMENTS[name]
    target = table or TABLES / f"{name}.jsonl"
    target.parent.mkdir(parents=True, exist_ok=True)
    weights = target.with_suffix(".weights")
    weights.mkdir(exist_ok=True)
    os.environ.update({key: os.environ.get(key, value) for key, value in LOCAL_ENVIRONMENT.items()})
    searched = search_table(target, search_run)
    check_same_settings(target, spec)
    runs = planned(experiment, spec, configurations(searched, experiment.members))
    make_soups(runs, spec, target, weights)
    missing = unfinished(runs, target, weights)
    print(f"{len(runs) - len(missing)} of {len(runs)} runs are in {target}", flush=True)
    # A process for each training: what one leaves in memory does not reach the next.
    with ProcessPoolExecutor(jobs, get_context("spawn"), max_tasks_per_child=1) as pool:
        for row in results(pool, missing, spec, weights, jobs):
            if (row["label"], row["seed"]) not in read_table(target):
                append(row, target)
            score = 100 * row["metrics"]["test/accuracy/zero_shot_mean"]
            print(f"{row['label']} seed {row['seed']}: zero-shot {score:.1f} %", flush=True)
            make_soups(runs, spec, target, weights)
    shutil.rmtree(weights)


def spec_of(
    name: str, data_dir: Path | None, synonyms: str | None, changes: list[str] | None
) -> SearchSpec:
    """Return an experiment's search with the flags that a user typed.

    Args:
        name: The experiment.
        data_dir: Folder of the task's data; None: the search's.
        synonyms: Value of `method.view.synonyms`; None: the search's.
        changes: Changed keys, `key=value`.

    Raises:
        UserError: If there is no such experiment, or a change is wrong.
    """
    if name not in EXPERIMENTS:
        raise UserError(f"{name}: no such experiment; choose from {', '.join(EXPERIMENTS)}")
    experiment = EXPERIMENTS[name]
    flags = {"data_dir": data_dir and str(data_dir.resolve()), "method.view.synonyms": synonyms}
    return load_spec(
        experiment.search, spec_changes(changes, {**experiment.changes, **given(flags)})
    )


def search_table(table: Path, search_run: Path | None) -> list[dict[str, Any]]:
    """Return the leaderboard of an experiment's search, which is kept beside its table.

    Args:
        table: The experiment's table, `NAME.jsonl`.
        search_run: Folder of the finished search; None: what is kept.

    Raises:
        UserError: If nothing is kept, or the runs of the table belong to another search.
    """
    kept = table.with_name(f"{table.stem}-search.json")
    if search_run is None and not kept.exists():
        raise UserError(f"{kept}: not there yet; name the finished search with --search-run")
    if search_run is not None:
        rows = json.loads((search_run / "leaderboard.json").read_text(encoding="utf-8"))
        # A row a line: changes can be read.
        text = "[\n" + ",\n".join(map(json.dumps, rows)) + "\n]\n"
        if table.exists() and kept.exists() and kept.read_text(encoding="utf-8") != text:
            raise UserError(f"{table} has runs of another search; choose another --table")
        kept.write_text(text, encoding="utf-8")
    found: list[dict[str, Any]] = json.loads(kept.read_text(encoding="utf-8"))
    return found


def check_same_settings(table: Path, spec: SearchSpec) -> None:
    """Check that a table's runs were trained as those to come; what they share is kept beside it.

    Args:
        table: The experiment's table, `NAME.jsonl`.
        spec: The experiment's search.

    Raises:
        UserError: If a key differs that all runs have, other than the place of a file, or the
            content of the data, of the synonyms or of the model.
    """
    kept = table.with_name(f"{table.stem}-spec.json")
    keys = {
        key: value
        for key, value in flatten(spec.model_dump(mode="json")).items()
        if key.startswith(_SHARED) and key not in PLACES
    }
    read = fingerprints(
        task_of(spec),
        load_synonyms(spec.method.view.synonyms),
        spec.model,
        check_encoder(spec.model),
    )
    now = keys | read
    if kept.exists():
        before = json.loads(kept.read_text(encoding="utf-8"))
        # A table of an earlier version has no digests.
        if changed := changed_inputs(before, now if TASK in before else keys):
            more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
            raise UserError(
                f"{table}: its runs were trained with another {', '.join(changed[:3])}{more}; undo "
                "the change, or choose another --table"
            )
    kept.write_text(json.dumps(now, indent=1) + "\n", encoding="utf-8")


def configurations(rows: list[dict[str, Any]], count: int) -> dict[str, Values]:
    """Return the values of a search's best configurations by label, the best first.

    Args:
        rows: The search's leaderboard.
        count: How many, baselines and soups aside.

    Raises:
        UserError: If no configuration finished.
    """
    found = {
        row["trial"]: {key: row[key] for key in row if key.startswith(("method.", "training."))}
        for row in rows
        if row["rank"] and (row["trial"].isdigit() or row["trial"] == "paper")
    }
    if not found:
        raise UserError("the search has no configuration that finished; resume it")
    return dict(list(found.items())[:count])


def planned(experiment: Experiment, spec: SearchSpec, best: Mapping[str, Values]) -> list[Run]:
    """Return the runs of an experiment, in an order in which a part of them is of use.

    Args:
        experiment: The experiment.
        spec: Its search.
        best: The search's best configurations by label, the best first.
    """
    winner = next(iter(best.values()))
    recipe = {key: value for key, value in winner.items() if key.startswith("training.")}
    methods = {
        **METHODS,
        "best": winner,
        TUNED: {**METHODS["plain"], **recipe},
        TUNED_LONG: {**METHODS["plain-long"], **recipe},
    }

    def method(label: str, seed: int) -> Run:
        values = methods[label]
        soup = {"best": ("soup",), "plain": ("plain-soup",)}.get(label, ())
        own = {"training.seed": seed, "training.head_seed": seed}
        return Run(label, seed, {**values, **own}, soup if seed in experiment.soup_seeds else ())

    runs = []
    for group in experiment.methods:
        if group == (SOUPS,):
            runs += soup_members(experiment, spec, best)
        else:
            runs += [method(label, seed) for seed in experiment.seeds for label in group]
    return runs


def soup_members(experiment: Experiment, spec: SearchSpec, best: Mapping[str, Values]) -> list[Run]:
    """Return the runs that only the soups need; the winner and plain are members as well.

    Args:
        experiment: The experiment.
        spec: Its search.
        best: The search's best configurations by label, the best first.
    """
    rate = spec.training.learning_rate
    runs = []
    for seed in experiment.soup_seeds:
        own = {"training.seed": seed, "training.head_seed": seed}
        runs += [
            Run(f"soup/{label}", seed, {**values, **own}, ("soup",))
            for label, values in list(best.items())[1:]
        ]
        # Their data order differs too: the strongest rival that plain fine-tuning has.
        runs += [
            Run(
                f"plain-soup/{number}",
                seed,
                {
                    **METHODS["plain"],
                    "training.learning_rate": rate * factor,
                    "training.seed": seed + 1000 * number,
                    "training.head_seed": seed,
                },
                ("plain-soup",),
            )
            for number, factor in enumerate(experiment.plain_rates)
            if factor != 1.0
        ]
    return runs


def unfinished(runs: list[Run], table: Path, weights: Path) -> list[Run]:
    """Return the runs that the table lacks, and those whose weights a soup still needs.

    The latter are trained again when it is the soups' turn.
    """
    rows = read_table(table)

    def serves(run: Run) -> bool:
        needed = any((soup, run.seed) not in rows for soup in run.soups)
        return not needed or weights_file(weights, run.label, run.seed).exists()

    new = [run for run in runs if run.key not in rows]
    again = [run for run in runs if run.key in rows and not serves(run)]
    turn = next((place for place, run in enumerate(new) if "/" in run.label), len(new))
    return new[:turn] + again + new[turn:]


def results(
    pool: ProcessPoolExecutor, runs: list[Run], spec: SearchSpec, weights: Path, jobs: int
) -> Iterator[dict[str, Any]]:
    """Train runs in their order, some side by side; yield their rows as they finish."""
    waiting, running = iter(runs), set[Future[dict[str, Any]]]()
    while True:
        for run in waiting:
            running.add(pool.submit(train, run, spec, weights))
            if len(running) == jobs:
                break
        if not running:
            return
        done, running = wait(running, return_when=FIRST_COMPLETED)
        for future in done:
            yield future.result()


def train(run: Run, spec: SearchSpec, weights: Path) -> dict[str, Any]:
    """Train a run; return its row of the table. Runs in a process of its own.

    Args:
        run: The run.
        spec: The experiment's search.
        weights: Folder that keeps the weights of a soup's members.
    """
    import torch

    from xlt_ray.distributed import Workers, computes_in_bf16
    from xlt_ray.evaluation.saved_predictions import Predictions
    from xlt_ray.training.build import build
    from xlt_ray.training.trainer import Trainer

    torch.set_num_threads(1)
    own = trial_spec(spec, run.values)
    device = torch.device("cpu")
    workers = Workers(bf16=computes_in_bf16(device, own.training.precision))
    reports: list[dict[str, float]] = []
    right: dict[str, str] = {}

    def report(metrics: Mapping[str, float], checkpoint: Path | None) -> None:
        reports.append(dict(metrics))
        if checkpoint is None:
            return
        if (checkpoint / "predictions.npz").exists():
            right.update(packed(Predictions.load(checkpoint / "predictions.npz").correct()))
            if run.soups:
                kept = weights_file(weights, run.label, run.seed)
                shutil.move(checkpoint / "model.safetensors", kept)
        shutil.rmtree(checkpoint)

    with tempfile.TemporaryDirectory(dir=weights) as folder:
        Trainer(
            build(own, device),
            own.training,
            selection=own.search.objective,
            workers=workers,
            folder=Path(folder),
            report=report,
        ).train()
    shown = ("dev/", "train/", "step")
    return {
        "label": run.label,
        "seed": run.seed,
        "values": dict(run.values),
        "metrics": rounded(
            {k: v for k, v in reports[-1].items() if k.startswith(("test/", "selected/", "time/"))}
            | {OBJECTIVE: reports[-1][OBJECTIVE]}
        ),
        "curve": [
            rounded({k: v for k, v in one.items() if k.startswith(shown)}) for one in reports[:-1]
        ],
        "right": right,
    }


def make_soups(runs: list[Run], spec: SearchSpec, table: Path, weights: Path) -> None:
    """Average the weights of each soup whose members are all trained, and score the mean."""
    rows = read_table(table)
    members: dict[tuple[str, int], list[Path]] = {}
    for run in runs:
        for soup in run.soups:
            kept = weights_file(weights, run.label, run.seed)
            members.setdefault((soup, run.seed), []).append(kept)
    for (soup, seed), files in members.items():
        if (soup, seed) in rows or len(files) < 2 or not all(map(Path.exists, files)):
            continue
        values = {"training.seed": seed, "training.head_seed": seed}
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            row = pool.submit(average, Run(soup, seed, values), files, spec).result()
        append(row, table)
        for path in files:
            path.unlink()


def average(run: Run, files: list[Path], spec: SearchSpec) -> dict[str, Any]:
    """Average the weights of a soup's members; return its row of the table."""
    import torch

    from xlt_ray.distributed import Workers, computes_in_bf16
    from xlt_ray.evaluation.saved_predictions import Predictions
    from xlt_ray.training.build import build
    from xlt_ray.training.soup import PREDICTIONS, make_soup

    torch.set_num_threads(1)
    own = trial_spec(spec, run.values)
    device = torch.device("cpu")
    with tempfile.TemporaryDirectory() as folder:
        made = make_soup(
            build(own, device),
            {path.stem: path for path in files},
            Path(folder),
            objective=own.search.objective,
            greedy=False,
            workers=Workers(bf16=computes_in_bf16(device, own.training.precision)),
        )
        right = packed(Predictions.load(Path(folder) / PREDICTIONS).correct())
    return {
        "label": run.label,
        "seed": run.seed,
        "values": {"members": list(made.members)},
        "metrics": rounded(made.metrics),
        "curve": [],
        "right": right,
    }


def weights_file(folder: Path, label: str, seed: int) -> Path:
    """The file of a member's weights."""
    return folder / f"{label.replace('/', '-')}-seed{seed}.safetensors"


def rounded(metrics: Mapping[str, float]) -> dict[str, float]:
    """Metrics with six decimals, which is more than they mean."""
    return {key: round(float(value), 6) for key, value in metrics.items()}


def packed(correct: Mapping[str, np.ndarray]) -> dict[str, str]:
    """Whether each item is right, by language: `ITEMS:BITS`, the bits as hexadecimal text."""
    return {
        code: f"{len(right)}:{np.packbits(right).tobytes().hex()}"
        for code, right in correct.items()
    }


def unpacked(text: str) -> np.ndarray:
    """Whether each item is right, as :func:`packed` wrote it: bool (items,)."""
    items, _, bits = text.partition(":")
    bytes_ = np.frombuffer(bytes.fromhex(bits), np.uint8)
    return np.unpackbits(bytes_, count=int(items)).astype(bool)


def append(row: Mapping[str, Any], table: Path) -> None:
    """Add a row to a table; a last line that a killed process left incomplete makes way."""
    journal = Journal(table)
    journal.drop_torn_line()
    journal.append(row)


def read_table(path: Path) -> dict[tuple[str, int], dict[str, Any]]:
    """The rows of a table by label and seed; none if it does not exist."""
    return {(row["label"], row["seed"]): row for _, row in Journal(path).read()}


if __name__ == "__main__":
    run_command_line(main)
