"""The experiments of docs/results.md: what is planned, what a run keeps, what the page says."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scripts import evidence, results, step_times
from scripts.evidence import EXPERIMENTS, Run, packed, planned, read_table, unfinished, unpacked
from tests.support.core_toy import Toy, make_toy
from xlt_ray.config.loading import load_spec
from xlt_ray.errors import UserError
from xlt_ray.evaluation.scores import MEASURES

BEST = {
    "03": {"method.push_margin": 0.2},
    "paper": {"method.push_weight": 0.1},
    "07": {"method.push_margin": 0.3},
    "09": {"method.push_margin": 0.4},
}


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Toy:
    return make_toy(tmp_path_factory.mktemp("toy"))


@given(st.lists(st.booleans(), min_size=1, max_size=40))
def test_packed_items_are_unpacked(right: list[bool]) -> None:
    text = json.loads(json.dumps(packed({"de": np.array(right)})))["de"]
    assert unpacked(text).tolist() == right


def test_the_runs_of_a_seed_share_their_head_and_soups_have_equally_many_members() -> None:
    spec = load_spec("sib200_small")
    runs = planned(EXPERIMENTS["sib200"], spec, BEST)
    assert len({run.key for run in runs}) == len(runs)
    for run in runs:
        own = evidence.trial_spec(spec, run.values)
        assert own.training.initial_seed == run.seed
        # Only the members of the plain soup vary the order of the data.
        assert own.training.seed == run.seed or run.label.startswith("plain-soup/")
    for seed in EXPERIMENTS["sib200"].soup_seeds:
        members = {
            soup: [run.label for run in runs if run.seed == seed and soup in run.soups]
            for soup in ("soup", "plain-soup")
        }
        assert members["soup"] == ["best", "soup/paper", "soup/07", "soup/09"]
        assert len(members["plain-soup"]) == 4
        assert members["plain-soup"][0] == "plain"


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_a_part_of_the_runs_is_of_use(name: str) -> None:
    experiment = EXPERIMENTS[name]
    runs = planned(experiment, load_spec(experiment.search), BEST)
    first = [run for run in runs if run.label in ("plain", "best")]
    assert runs[: len(first)] == first and len(first) == 2 * len(experiment.seeds)
    for plain, best in zip(first[::2], first[1::2], strict=True):
        assert (plain.label, best.label) == ("plain", "best") and plain.seed == best.seed
    methods = {method for group in experiment.methods for method in group} - {evidence.SOUPS}
    assert {run.label for run in runs if "/" not in run.label} == methods


def test_the_winner_is_the_first_configuration_that_is_no_baseline(tmp_path: Path) -> None:
    rows = [
        {"trial": "plain", "rank": 1, "method.name": "plain"},
        {"trial": "soup", "rank": 2},
        {"trial": "05", "rank": 3, "method.push_margin": 0.5, "training.seed": 3},
        {"trial": "paper", "rank": 4, "method.push_weight": 0.1},
        {"trial": "06", "rank": None, "method.push_margin": 0.6},
    ]
    (tmp_path / "leaderboard.json").write_text(json.dumps(rows))
    table = tmp_path / "table.jsonl"
    found = evidence.search_table(table, tmp_path)
    assert found == rows == evidence.search_table(table, None)
    assert evidence.configurations(found, 4) == {
        "05": {"method.push_margin": 0.5, "training.seed": 3},
        "paper": {"method.push_weight": 0.1},
    }


def test_a_table_survives_a_process_that_was_killed_while_it_wrote(tmp_path: Path) -> None:
    table = tmp_path / "table.jsonl"
    evidence.append({"label": "plain", "seed": 1}, table)
    whole = table.read_bytes()
    table.write_bytes(whole + whole[:9])
    assert read_table(table).keys() == {("plain", 1)}
    evidence.append({"label": "best", "seed": 1}, table)
    assert read_table(table).keys() == {("plain", 1), ("best", 1)}
    assert read_table(tmp_path / "nowhere.jsonl") == {}


def test_a_table_keeps_to_its_search(tmp_path: Path) -> None:
    table = tmp_path / "table.jsonl"
    with pytest.raises(UserError, match="--search-run"):
        evidence.search_table(table, None)
    (tmp_path / "leaderboard.json").write_text('[{"trial": "01", "rank": 1}]')
    evidence.search_table(table, tmp_path)
    evidence.append({"label": "plain", "seed": 1}, table)
    (tmp_path / "leaderboard.json").write_text('[{"trial": "02", "rank": 1}]')
    with pytest.raises(UserError, match="another search"):
        evidence.search_table(table, tmp_path)


def test_a_table_keeps_to_its_settings(toy: Toy, tmp_path: Path) -> None:
    table = tmp_path / "table.jsonl"
    for changes in ({}, {"search.num_trials": 7}):
        evidence.check_same_settings(table, toy.spec(changes))
    with pytest.raises(UserError, match=r"were trained with another training\.learning_rate; undo"):
        evidence.check_same_settings(table, toy.spec({"training.learning_rate": 0.5}))
    evidence.check_same_settings(table, toy.spec({}))


def test_a_table_keeps_to_its_data_wherever_they_are(toy: Toy, tmp_path: Path) -> None:
    table = tmp_path / "table.jsonl"
    evidence.check_same_settings(table, toy.spec({}))
    moved = Toy(shutil.copytree(toy.folder, tmp_path / "moved"))
    evidence.check_same_settings(table, moved.spec({}))
    file = moved.folder / "test-de.tsv"
    rows = file.read_text(encoding="utf-8").splitlines(keepends=True)
    file.write_text("".join(rows[:-1]), encoding="utf-8")
    with pytest.raises(UserError, match=r"trained with another test-de\.tsv \(test, de\); undo"):
        evidence.check_same_settings(table, moved.spec({}))


def test_a_member_whose_weights_are_lost_is_trained_again_until_its_soup_is_made(
    tmp_path: Path,
) -> None:
    table = tmp_path / "table.jsonl"
    kept, lost, alone = (
        Run("plain", 1, {}, ("plain-soup",)),
        Run("plain-soup/0", 1, {}, ("plain-soup",)),
        Run("adv", 1, {}),
    )
    for run in (kept, lost, alone):
        evidence.append({"label": run.label, "seed": run.seed}, table)
    evidence.weights_file(tmp_path, kept.label, 1).touch()
    assert unfinished([kept, lost, alone], table, tmp_path) == [lost]
    # What the table lacks comes before it, up to the soups' turn.
    new = Run("usual", 1, {}), Run("plain-soup/1", 1, {}, ("plain-soup",)), Run("push", 1, {})
    runs = [lost, new[0], kept, *new[1:], alone]
    assert unfinished(runs, table, tmp_path) == [new[0], lost, *new[1:]]
    evidence.append({"label": "plain-soup", "seed": 1}, table)
    assert unfinished([kept, lost, alone], table, tmp_path) == []


def test_a_soup_of_one_training_twice_predicts_as_the_training(toy: Toy, tmp_path: Path) -> None:
    spec = toy.spec({"training.epochs": 1})
    values = {"method.name": "plain", "training.seed": 5, "training.head_seed": 5}
    row = evidence.train(Run("plain", 5, values, ("plain-soup",)), spec, tmp_path)
    weights = evidence.weights_file(tmp_path, "plain", 5)
    soup = evidence.average(Run("plain-soup", 5, values), [weights, weights], spec)
    assert soup["right"] == row["right"]
    right = unpacked(row["right"]["de"])
    assert row["metrics"]["test/accuracy/de"] == pytest.approx(right.mean(), abs=1e-6)
    assert row["curve"]
    assert list(tmp_path.iterdir()) == [weights]


ZERO_SHOT = "test/accuracy/zero_shot_mean"


def synthetic(rng: np.random.Generator, label: str, seed: int, share: float) -> dict[str, Any]:
    """A row whose predictions are right with a probability."""
    right = {code: rng.random(200) < share for code in ("en", "de", "fr")}
    mean = float(np.mean([right["de"].mean(), right["fr"].mean()]))
    selected = {
        f"selected/{measure}/{place}": rng.random()
        for measure in MEASURES
        for place in ("en", "en_virtual", "en_and_virtual")
    }
    curve = [{"step": step, "dev/calibrated/en_and_virtual": rng.random()} for step in (5, 10)]
    return {
        "label": label,
        "seed": seed,
        "values": {"method.name": label if label in ("plain", "rs-da") else "ear"},
        "metrics": {"objective": rng.random(), "test/accuracy/zero_shot_mean": mean, **selected},
        "curve": curve,
        "right": packed(right),
    }


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page written from a table of five seeds, and its folder."""
    folder = tmp_path_factory.mktemp("page")
    rng = np.random.default_rng(0)
    tables = folder / "results"
    tables.mkdir()
    (folder / "images").mkdir()
    for seed in range(5):
        for label, share in (("plain", 0.5), ("best", 0.8), ("rs-da", 0.8), ("soup/paper", 0.8)):
            evidence.append(synthetic(rng, label, seed, share), tables / "sib200.jsonl")
    (tables / "sib200-times.json").write_text(json.dumps({"plain": 0.2, "best": 0.5}))
    searched = [
        {
            "trial": "05",
            "rank": 1,
            "status": "finished",
            "method.push_margin": 0.12345,
            "objective": 0.5,
            "test/accuracy/zero_shot_mean": 0.8125,
            "test/accuracy/en": 0.9,
        },
        {"trial": "06", "rank": None, "status": "stopped", "objective": None},
    ]
    (tables / "sib200-search.json").write_text(json.dumps(searched))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(results, "TABLES", tables)
        patched.setattr(results, "DOCS", folder)
        patched.setattr(results, "PAGE", folder / "results.md")
        before = f"# Old\n\n{results.CONCLUSIONS}\n\nBy hand.\n\n## Old section\n"
        results.PAGE.write_text(before)
        results.main()
    return folder


def test_the_page_opens_with_the_differences_and_keeps_what_was_written_by_hand(
    page: Path,
) -> None:
    text = (page / "results.md").read_text()
    rows = read_table(page / "results" / "sib200.jsonl")

    def mean(label: str) -> float:
        return float(np.mean([rows[label, s]["metrics"][ZERO_SHOT] for s in range(5)]))

    gain = 100 * (mean("best") - mean("plain"))
    assert gain > 20
    opening, _, rest = text.partition(results.CONCLUSIONS)
    [row] = [line for line in opening.splitlines() if "](#sib-200-six-layers-frozen)" in line]
    cells = [cell.strip() for cell in row.split("|")]
    assert cells[2:5] == ["5", f"{100 * mean('plain'):.1f}", f"{100 * mean('best'):.1f}"]
    assert cells[5].startswith(f"{gain:+.1f} [") and cells[5].endswith("] better")
    # The t-interval over seeds, by hand.
    gains = [
        rows["best", s]["metrics"][ZERO_SHOT] - rows["plain", s]["metrics"][ZERO_SHOT]
        for s in range(5)
    ]
    half = 2.776 * np.std(gains, ddof=1) / 5**0.5
    low, high = (100 * (np.mean(gains) + side * half) for side in (-1, 1))
    assert cells[6] == f"[{low:+.1f}, {high:+.1f}]"
    assert rest.lstrip().startswith("By hand.")
    section = rest.partition("\n## SIB-200, six layers frozen\n")[2]
    assert f"**{gain:+.1f} points [" in section
    assert "better**" in section
    assert "no clear difference**" in section  # the best configuration against rs-da
    assert "Old section" not in text


def test_the_table_has_the_time_of_each_methods_step(page: Path) -> None:
    text = (page / "results.md").read_text()
    [line] = [line for line in text.splitlines() if line.startswith("| best configuration")]
    assert line.endswith("| 2.5 |")
    # Not timed.
    [line] = [line for line in text.splitlines() if line.startswith("| rs-da")]
    assert line.endswith("|  |")


def test_each_method_is_timed_by_a_short_training_of_its_own(toy: Toy, tmp_path: Path) -> None:
    table = tmp_path / "toy.jsonl"
    for label, values in (
        ("plain", {"method.name": "plain", "training.average_last": 1}),
        ("soup/03", {"method.name": "ear"}),
        ("rs-rp", {"method.name": "rs-rp"}),
        ("soup", {"members": ["plain", "soup/03"]}),
    ):
        evidence.append({"label": label, "seed": 5, "values": values}, table)
    runs = step_times.timed_runs(table)
    assert [run.label for run in runs] == ["plain", "rs-rp"]
    for run in runs:
        seconds = step_times.step_seconds(run, toy.spec({}), tmp_path)
        assert len(seconds) == step_times.READINGS - 1
        assert all(0 < one < 10 for one in seconds)
    with pytest.raises(UserError, match="has no run yet"):
        step_times.timed_runs(tmp_path / "none.jsonl")


def test_the_search_is_shown_with_its_values_and_scores(page: Path) -> None:
    lines = (page / "results.md").read_text().splitlines()
    [line] = [line for line in lines if line.startswith("| 1 | 05 | finished |")]
    assert "| 0.123 |" in line and line.endswith("| 50.0 | 81.2 | 90.0 |")
    assert any(line.startswith("|  | 06 | stopped |") for line in lines)


def test_the_pictures_of_the_page_exist(page: Path) -> None:
    for name in ("results.png", "results-sib200.png", "results-sib200-curves.png"):
        assert f"images/{name}" in (page / "results.md").read_text()
        assert (page / "images" / name).read_bytes().startswith(b"\x89PNG")


def test_the_table_says_over_how_many_seeds_a_difference_is() -> None:
    rng = np.random.default_rng(0)
    rows = {
        (label, seed): synthetic(rng, label, seed, 0.5)
        for label, seeds in (("plain", range(3)), ("best", range(3)), ("rs-da", range(1)))
        for seed in seeds
    }
    _, _, best, rs_da, plain = results.table(results.Results(rows), {}).splitlines()
    assert best.split(" | ")[-1].endswith("(1 seed) |")
    assert plain.split(" | ")[-1].endswith("(1 seed) |")
    assert "seed)" not in rs_da and rs_da.startswith("| rs-da: synonym views, robust loss | 1 |")


def test_differences_over_few_seeds_are_in_the_table_only() -> None:
    rng = np.random.default_rng(0)
    rows = {
        (label, seed): synthetic(rng, label, seed, share)
        for label, share in (("plain", 0.5), ("best", 0.8))
        for seed in range(2)
    }
    found = results.Results(rows)
    assert results.lead("xnli", found) == "Mean accuracy over 2 languages."
    assert results.in_points(found, "best", "plain").startswith("+")
    assert results.against_plain(found) == {}


def test_freezing_is_told_by_the_seeds_that_both_methods_have() -> None:
    rng = np.random.default_rng(0)
    rows = {
        (label, seed): synthetic(rng, label, seed, share)
        for label, share, seeds in (("plain", 0.8, range(5)), ("unfrozen", 0.5, range(1, 7)))
        for seed in seeds
    }
    [sentence] = results.freezing({"sib200": results.Results(rows)})
    assert (
        "every layer trained: **+" in sentence
        and "(4 seeds)" in sentence
        and "better**" in sentence
    )
    few = {key: row for key, row in rows.items() if key[1] < 3}
    assert results.freezing({"sib200": results.Results(few)}) == results.freezing({}) == []
