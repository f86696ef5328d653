"""Write docs/results.md and its pictures from the tables of the experiments.

    python -m scripts.results

The tables are docs/results/*.jsonl, which `python -m scripts.evidence` fills. The section of
conclusions is written by hand; it stays when the page is written anew.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from scripts.evidence import (
    EXPERIMENTS,
    TABLES,
    TUNED,
    TUNED_LONG,
    read_table,
    search_table,
    unpacked,
)
from scripts.results_figures import differences, mean_curves
from scripts.step_times import times_file
from xlt_ray.config.loading import load_spec
from xlt_ray.evaluation.intervals import (
    Difference,
    accuracy,
    paired_difference,
    points,
    rank_correlation,
)
from xlt_ray.evaluation.scores import objectives as dev_objectives
from xlt_ray.figures.style import save
from xlt_ray.names import OBJECTIVE
from xlt_ray.report.comparison_tables import grid

DOCS = Path(__file__).resolve().parent.parent / "docs"
PAGE = DOCS / "results.md"
CONCLUSIONS = "## What helped and what did not"
SOURCE = "en"
SOUPS = {"soup": "best", "plain-soup": "plain"}
"""Each soup, and the method that is its first member."""
TITLES = {
    "sib200": "SIB-200, six layers frozen",
    "sib200-methods": "SIB-200, methods and recipes searched",
    "sib200-methods-english": "SIB-200, the same search by English dev texts",
    "sib200-all-layers": "SIB-200, every layer trained",
    "xnli": "XNLI",
    "pawsx": "PAWS-X",
    "demo": "the demo",
}
"""The experiments, in the order of the page."""
METHODS = {
    "best": "best configuration of the search",
    "soup": "soup of the search's best configurations",
    "plain-soup": "soup of plain runs",
    "plain-long": "plain, twice the steps",
    "rs-da": "rs-da: synonym views, robust loss",
    "rs-rp": "rs-rp: random noise, robust loss",
    "adv": "adv: adversarial noise, robust loss",
    "paper": "paper: EAR with the paper's weights",
    "push": "rs-da with a strong push",
    "pull": "rs-da with a strong pull",
    "consistency": "rs-da with consistent predictions",
    "plain": "plain fine-tuning",
    "usual": "plain as usual: all layers, best evaluation",
    TUNED: "plain, learning rate and frozen layers of the best",
    TUNED_LONG: "plain, the same with twice the steps",
    "half": "plain, six layers frozen",
    "unfrozen": "plain, all layers",
    "single": "plain, weights of the best evaluation",
    "last": "plain, weights of the last evaluation",
    "frozen-embeddings": "plain, embeddings frozen too",
    "frozen-more": "plain, eight layers frozen",
    "layer-decay": "plain, learning rate × 0.9 a layer down",
    "label-smoothing": "plain, labels smoothed by 0.1",
    "warm-up": "plain, warm-up of a tenth",
    "ema": "plain, moving average of the weights",
    "lora": "plain, low-rank adapters in all layers",
}
"""The methods in the order of the tables, in words."""


FEWEST_SEEDS = 3
"""Differences over fewer seeds are shown without a verdict, and in no picture."""


@dataclass(frozen=True)
class Results:
    """The runs of an experiment."""

    rows: Mapping[tuple[str, int], Mapping[str, Any]]
    """The rows of its table, by label and seed."""

    @property
    def runs(self) -> list[tuple[str, Mapping[str, Any]]]:
        """Label and row of each run, once: one of the paper's setting may have two labels."""
        runs = {id(row): (label, row) for (label, _), row in self.rows.items()}
        return list(runs.values())

    @property
    def methods(self) -> list[str]:
        """Labels of the methods that have runs, in the order of the tables."""
        labels = {label for label, _ in self.rows}
        return [label for label in METHODS if label in labels]

    @property
    def targets(self) -> list[str]:
        """Codes of the target languages."""
        right = next(iter(self.rows.values()))["right"]
        return [code for code in right if code != SOURCE]

    def seeds(self, *labels: str) -> list[int]:
        """The seeds with which all of some methods have run."""
        found = {seed for _, seed in self.rows}
        return sorted(s for s in found if all((label, s) in self.rows for label in labels))

    def correct(self, label: str, seeds: Sequence[int]) -> dict[str, np.ndarray]:
        """Whether a method's predictions are right, by language: bool (seeds, items)."""
        rows = [self.rows[label, seed]["right"] for seed in seeds]
        return {code: np.stack([unpacked(row[code]) for row in rows]) for code in rows[0]}

    def difference(self, label: str, reference: str) -> Difference:
        """A method's zero-shot mean less a reference's, over the seeds that both have."""
        seeds = self.seeds(label, reference)
        return paired_difference(
            self.correct(label, seeds), self.correct(reference, seeds), self.targets
        )


def main() -> None:
    """Write the page."""
    tables = {name: Results(with_paper(read_table(TABLES / f"{name}.jsonl"))) for name in TITLES}
    found = {name: results for name, results in tables.items() if results.rows}
    # Searches whose best configuration was not trained with further seeds.
    alone = [[f"## {heading(name)}", *search(name)] for name in TITLES if name not in found]
    parts = [
        "# Results",
        opening(found),
        f"{CONCLUSIONS}\n\n{conclusions()}",
        *(section(name, results) for name, results in found.items()),
        *("\n\n".join(own) for own in alone if len(own) > 1),
        *search_soups(),
    ]
    PAGE.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    for name, results in found.items():
        draw(name, results)
    draw_overview(found)
    print(f"{PAGE} is written.")


def with_paper(rows: Mapping[tuple[str, int], Any]) -> dict[tuple[str, int], Any]:
    """Rows of a table, with the soup's runs of the paper's setting as that method's."""
    members = {("paper", seed): row for (label, seed), row in rows.items() if label == "soup/paper"}
    return {**members, **rows}


def opening(found: Mapping[str, Results]) -> str:
    """What the searches come down to: a picture, some sentences and a row for each experiment."""
    parts = [
        "![Differences to plain fine-tuning](images/results.png)",
        " ".join(
            [
                "The table compares a search's best configuration, and the soup of its best "
                "configurations, with plain fine-tuning. Accuracy is the mean over the languages "
                "that training saw no label of, on test data, with the packaged encoder. "
                "Differences are in points, paired over test items and seeds, with 95 % intervals: "
                "in brackets a bootstrap over both, in *over seeds* a t-interval over the seeds.",
                *freezing(found),
            ]
        ),
    ]
    others = {
        "soup − plain": ("soup", "plain"),
        "best − plain, same recipe": ("best", TUNED),
        "best − plain, twice the steps": ("best", "plain-long"),
        "best − soup of plain runs": ("best", "plain-soup"),
    }
    rows = []
    for name, results in found.items():
        seeds = results.seeds("plain", "best")
        if len(seeds) < FEWEST_SEEDS:
            continue
        correct = [results.correct(label, seeds) for label in ("plain", "best")]
        rows.append(
            [
                f"[{heading(name)}](#{anchor(heading(name))})",
                str(len(seeds)),
                *(f"{100 * accuracy(right, results.targets).mean:.1f}" for right in correct),
                in_points(results, "best", "plain"),
                over_seeds(results, "best", "plain"),
                *(in_points(results, *pair, known_seeds=len(seeds)) for pair in others.values()),
            ]
        )
    header = ["data", "seeds", "plain, %", "best, %", "best − plain", "over seeds", *others]
    table = grid(header, rows)
    return "\n\n".join([*parts, table])


def anchor(title: str) -> str:
    """The name that GitHub gives a heading, for links to it."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def lead(name: str, results: Results) -> str:
    """The picture and the sentences that an experiment comes down to."""
    sentences = [
        f"{METHODS[label].capitalize()}, against {METHODS[reference]} "
        f"({len(results.seeds(label, reference))} seeds): "
        f"**{spoken(results.difference(label, reference))}**."
        for label, reference in (
            ("best", "plain"),
            ("soup", "plain"),
            ("best", "usual"),
            ("best", TUNED),
            ("best", "plain-long"),
            ("best", "plain-soup"),
            ("best", "rs-da"),
            ("soup", "plain-soup"),
        )
        if len(results.seeds(label, reference)) >= FEWEST_SEEDS
    ]
    picture = f"![Differences to plain fine-tuning on {TITLES[name]}](images/results-{name}.png)"
    parts = [picture] if against_plain(results) else []
    parts.append(f"Mean accuracy over {len(results.targets)} languages. {' '.join(sentences)}")
    return "\n\n".join(parts).rstrip()


def heading(name: str) -> str:
    """The experiment's title, as a sentence begins."""
    title = TITLES[name]
    return title[0].upper() + title[1:]


def freezing(found: Mapping[str, Results]) -> list[str]:
    """What it is worth to freeze the lower half of the encoder, plain fine-tuning against plain."""
    results = found.get("sib200")
    seeds = results.seeds("plain", "unfrozen") if results else []
    if results is None or len(seeds) < FEWEST_SEEDS:
        return []
    return [
        "For scale, plain fine-tuning on SIB-200 with the lower half of the encoder frozen, "
        f"against every layer trained: **{spoken(results.difference('plain', 'unfrozen'))}** "
        f"({len(seeds)} seeds)."
    ]


def spoken(difference: Difference) -> str:
    """A difference in points, its intervals and its verdict."""
    seeds = over_seed_interval(difference)
    between = f"{interval(difference)}, over seeds {seeds}" if seeds else interval(difference)
    return f"{points(difference.mean)} points {between}, {difference.verdict}"


def conclusions() -> str:
    """The page's section of conclusions, written by hand."""
    if not PAGE.exists():
        return ""
    _, _, after = PAGE.read_text(encoding="utf-8").partition(CONCLUSIONS)
    return after.partition("\n## ")[0].strip()


def section(name: str, results: Results) -> str:
    """Everything about an experiment."""
    parts = [
        f"## {heading(name)}",
        lead(name, results),
        f"{EXPERIMENTS[name].texts} Made by `python -m scripts.evidence {name}{_data(name)} "
        "--search-run RUN`; every run is a line of "
        f"[docs/results/{name}.jsonl](results/{name}.jsonl). {len(results.runs)} runs. The runs of "
        "one seed start from the same head. Each takes the mean weights of its last evaluations, "
        "unless its row says otherwise, and is scored on test data once.",
        table(results, step_times(name)),
        "Brackets: 95 % interval of a paired bootstrap over test items and seeds; with one seed, "
        "it covers test items only. *Over seeds*: 95 % t-interval over seeds. A verdict needs both "
        f"clear of zero, and {FEWEST_SEEDS} seeds.",
        *timing(name),
        *search(name),
        *soups(results),
        *objectives(results),
        f"![Learning curves on {TITLES[name]}](images/results-{name}-curves.png)",
    ]
    return "\n\n".join(parts)


def table(results: Results, times: Mapping[str, float]) -> str:
    """Scores, differences and cost, a row a method.

    Args:
        results: The runs.
        times: Seconds of a training step by method; empty: the table has no such column.
    """
    references = [r for r in ("plain", "rs-da", "plain-soup") if results.seeds(r)]
    rows = []
    for label in results.methods:
        seeds = results.seeds(label)
        correct = results.correct(label, seeds)
        mean, english = accuracy(correct, results.targets), accuracy(correct, [SOURCE])
        spread = "" if mean.deviation is None else f" ± {100 * mean.deviation:.1f}"
        compared = [
            shown
            for reference in references
            for shown in cells(results, label, reference, known_seeds=len(seeds))
        ]
        rows.append(
            [
                METHODS[label],
                str(len(seeds)),
                f"{100 * mean.mean:.1f}{spread}",
                f"{100 * english.mean:.1f}",
                *compared,
                *([step_time(label, times)] if times else []),
            ]
        )
    header = ["method", "seeds", "zero-shot, %", "English, %"]
    for reference in references:
        header += [f"− {reference}, points", *(["over seeds"] if reference == "plain" else [])]
    return grid([*header, *(["a step, plain = 1"] if times else [])], rows)


def cells(results: Results, label: str, reference: str, known_seeds: int) -> list[str]:
    """The cells that compare a method with a reference; against plain the interval over seeds too.

    Args:
        results: The runs.
        label: The method.
        reference: The method to compare it with; the same: the cells are empty.
        known_seeds: The number of seeds that the reader knows of; another one is shown.
    """
    own = label == reference
    shown = ["" if own else in_points(results, label, reference, known_seeds)]
    if reference == "plain":
        shown.append("" if own else over_seeds(results, label, reference))
    return shown


def step_times(name: str) -> dict[str, float]:
    """Seconds of a training step by method, which `scripts.step_times` measures; maybe none."""
    file = times_file(TABLES / f"{name}.jsonl")
    seconds: dict[str, float] = json.loads(file.read_text("utf-8")) if file.exists() else {}
    return seconds


def step_time(label: str, times: Mapping[str, float]) -> str:
    """The time of a method's step in plain fine-tuning's; empty for soups, which take none."""
    return f"{times[label] / times['plain']:.1f}" if label in times else ""


def timing(name: str) -> list[str]:
    """How the time of a step was measured, if it was."""
    if not step_times(name):
        return []
    return [
        f"The time of a training step was measured by `python -m scripts.step_times {name}`, one "
        "method after the other on one machine with nothing else running. A soup takes the "
        "trainings of its members; twice the steps take twice the time."
    ]


def search(name: str) -> list[str]:
    """The leaderboard of an experiment's search."""
    file = TABLES / f"{name}-search.json"
    if not file.exists():
        return []
    rows = search_table(TABLES / f"{name}.jsonl", None)
    experiment = EXPERIMENTS[name]
    changes = "".join(
        f" --set {key}={'null' if value is None else value}"
        for key, value in experiment.changes.items()
    )
    keys = list(load_spec(experiment.search).search.parameters)
    scores = (OBJECTIVE, "test/accuracy/zero_shot_mean", f"test/accuracy/{SOURCE}")
    table = [
        [
            str(row["rank"] or ""),
            row["trial"],
            row["status"],
            *("" if row.get(key) is None else short(row[key]) for key in keys),
            *("" if row.get(key) is None else f"{100 * row[key]:.1f}" for key in scores),
        ]
        for row in rows
    ]
    header = ["rank", "trial", "", *(f"`{key.partition('.')[2]}`" for key in keys)]
    return [
        "### The search\n\n"
        f"`python launch.py --search {experiment.search}{changes}{_data(name)}`. Ranked by the dev "
        "objective, in %; test scores of what finished.\n\n"
        + grid([*header, "dev", "zero-shot", "English"], table)
    ]


def short(value: Any) -> str:
    """A parameter's value with the digits that matter."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def soups(results: Results) -> list[str]:
    """Each soup beside its members, seed by seed."""
    rows = []
    for soup, first in SOUPS.items():
        members = sorted({name for name, _ in results.rows if name.startswith(f"{soup}/")})
        for seed in results.seeds(soup, first, *members):
            metrics = [results.rows[name, seed]["metrics"] for name in (soup, first, *members)]
            rows.append([METHODS[soup], str(seed), *beside_members(*metrics)])
    if not rows:
        return []
    return ["### Soups and their members\n\n" + grid(["soup", "seed", *SOUP_COLUMNS], rows)]


SOUP_COLUMNS = ("soup, %", "mean of members", "best by dev", "lowest", "highest")


def beside_members(soup: Mapping[str, Any], *members: Mapping[str, Any]) -> list[str]:
    """The cells of :data:`SOUP_COLUMNS`: zero-shot means on test data in %, from metrics."""
    key = "test/accuracy/zero_shot_mean"
    scores = [member[key] for member in members]
    chosen = max(members, key=lambda member: float(member[OBJECTIVE]))[key]
    shown = (soup[key], np.mean(scores), chosen, min(scores), max(scores))
    return [f"{100 * value:.1f}" for value in shown]


def search_soups() -> list[str]:
    """The soups of the searches beside their members; one seed each."""
    rows = []
    for name in TITLES:
        if not (TABLES / f"{name}-search.json").exists():
            continue
        found = {row["trial"]: row for row in search_table(TABLES / f"{name}.jsonl", None)}
        for label, row in found.items():
            if not row.get("members"):
                continue
            members = [found[member] for member in row["members"].split()]
            cells = [TITLES[name], label, str(len(members))]
            rows.append([*cells, *beside_members(row, *members)])
    if not rows:
        return []
    header = ["search", "soup", "members", *SOUP_COLUMNS]
    return [
        "## Soups of the searches\n\n"
        "The mean of the weights of a search's finished trials, compared with its members. Scores "
        "are zero-shot means on test data, one seed each.\n\n" + grid(header, rows),
    ]


def objectives(results: Results) -> list[str]:
    """Rank correlation of each dev measure with the test zero-shot mean."""
    single = [row for label, row in results.runs if label not in SOUPS]
    if len(single) < 10:
        return []
    views = [row for row in single if row["values"].get("method.name", "ear") not in PLAIN]
    groups = {f"all {len(single)} runs": single}
    if 3 <= len(views) < len(single):
        groups[f"the {len(views)} runs with views"] = views
    rows = []
    for objective in dev_objectives(SOURCE, target_labels=False):
        name = objective.replace("dev/", "selected/")
        if any(name not in row["metrics"] for row in single):
            continue  # Recorded by a version without this measure, or on English texts only.
        rows.append([f"`{objective}`", *(correlation(group, name) for group in groups.values())])
    return [
        "### Which dev objective orders runs as the test set does\n\n"
        "Spearman's rank correlation with the zero-shot mean on test data. All objectives use "
        "English labels only.\n\n" + grid(["dev objective", *groups], rows),
    ]


def correlation(rows: Sequence[Mapping[str, Any]], name: str) -> str:
    """Spearman's correlation of a metric with the zero-shot mean; empty where one is constant."""
    pairs = [(row["metrics"][name], row["metrics"]["test/accuracy/zero_shot_mean"]) for row in rows]
    if len(pairs) < 3 or any(len(set(values)) == 1 for values in zip(*pairs, strict=True)):
        return ""
    own, scores = zip(*pairs, strict=True)
    return f"{rank_correlation(own, scores)[0]:+.2f}"


PLAIN = ("plain", "plain-long")
"""Methods without views."""


def draw_overview(found: Mapping[str, Results]) -> None:
    """Draw what each search hands over, against plain fine-tuning."""
    compared = {
        f"{heading(name)}: {label}": results.difference(key, "plain")
        for name, results in found.items()
        for key, label in (("best", "best"), ("soup", "soup"))
        if len(results.seeds(key, "plain")) >= FEWEST_SEEDS
    }
    if compared:
        save(differences(compared, "plain fine-tuning"), DOCS / "images" / "results.png")


def against_plain(results: Results) -> dict[str, Difference]:
    """The differences to plain fine-tuning that have enough seeds for a picture."""
    return {
        METHODS[label]: results.difference(label, "plain")
        for label in results.methods
        if label != "plain" and len(results.seeds(label, "plain")) >= FEWEST_SEEDS
    }


def draw(name: str, results: Results) -> None:
    """Draw the pictures of an experiment."""
    pictures = DOCS / "images"
    if compared := against_plain(results):
        save(differences(compared, "plain fine-tuning"), pictures / f"results-{name}.png")
    experiment = EXPERIMENTS[name]
    measure = load_spec(experiment.search, experiment.changes).search.objective
    curves = {}
    for label in ("best", "rs-da", "paper", "plain", "plain-long"):
        rows = [results.rows[label, seed]["curve"] for seed in results.seeds(label)]
        if rows:
            steps = [report["step"] for report in rows[0]]
            values = np.array([[report[measure] for report in row] for row in rows])
            curves[METHODS[label]] = (np.array(steps), values)
    save(mean_curves(curves, f"{measure} (%)"), pictures / f"results-{name}-curves.png")


def in_points(results: Results, label: str, reference: str, known_seeds: int | None = None) -> str:
    """A difference in points with its interval, its verdict if there is one, and its seeds.

    Args:
        results: The experiment.
        label: The method.
        reference: The method to compare it with.
        known_seeds: The number of seeds that the reader knows of; another one is shown. None:
            show none.

    Returns:
        The text; empty if the two have no seed in common.
    """
    seeds = len(results.seeds(label, reference))
    if not seeds:
        return ""
    difference = results.difference(label, reference)
    open_ = seeds < FEWEST_SEEDS or difference.verdict == "no clear difference"
    verdict = "" if open_ else f" {difference.verdict}"
    number = "" if known_seeds in (None, seeds) else f" ({seeds} seed{'s'[: seeds != 1]})"
    return f"{points(difference.mean)} {interval(difference)}{verdict}{number}"


def over_seeds(results: Results, label: str, reference: str) -> str:
    """The interval over seeds of a difference in points; empty with fewer than two seeds."""
    seeds = results.seeds(label, reference)
    return over_seed_interval(results.difference(label, reference)) if seeds else ""


def interval(difference: Difference) -> str:
    """A bootstrap interval in points."""
    return f"[{points(difference.low)}, {points(difference.high)}]"


def over_seed_interval(difference: Difference) -> str:
    """The t-interval over seeds in points; empty with one seed."""
    if difference.seed_low is None or difference.seed_high is None:
        return ""
    return f"[{points(difference.seed_low)}, {points(difference.seed_high)}]"


def _data(name: str) -> str:
    """The flag that names the data, for the commands of an experiment that does not bring them."""
    return "" if name == "demo" else " --data-dir DATA"


if __name__ == "__main__":
    main()
