"""The replayed search counts steps as a search trains them, on the surface that was recorded."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

import benchmarks.objectives
from benchmarks.search_quality import RANDOM, Surface, ends
from benchmarks.search_table import OBJECTIVES, TABLE, from_unit, search_of, sobol, to_unit
from xlt_ray.config.space import Integer
from xlt_ray.evaluation.scores import ESTIMATED_ACCURACY, objectives
from xlt_ray.search.study import Study

ROOT = Path(__file__).resolve().parents[2]
STEPS = (43, 87, 130)
PARAMETERS = search_of(TABLE).search.parameters


def score(values: dict[str, float]) -> float:
    """A smooth objective with its best value in the middle of the space."""
    place = [to_unit(PARAMETERS[key], value) for key, value in values.items()]
    return 0.8 - 0.5 * sum((position - 0.5) ** 2 for position in place)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("table") / "trainings.jsonl"
    lines = []
    for number, values in enumerate(sobol(search_of(TABLE), 64)):
        curve = [
            {"step": step, OBJECTIVES[0]: score(values) * share, OBJECTIVES[1]: 0.5}
            for step, share in zip(STEPS, (0.6, 0.9, 1.0), strict=True)
        ]
        lines.append(json.dumps({"point": number, "values": values, "curve": curve}))
    file.write_text("\n".join(lines) + "\n")
    shutil.copy(TABLE.with_suffix(".yaml"), file.with_suffix(".yaml"))
    return file


@pytest.fixture(scope="module")
def surface(table: Path) -> Surface:
    return Surface(table, OBJECTIVES[0], noise=False)


@pytest.mark.parametrize("key", PARAMETERS)
@pytest.mark.parametrize("position", [0.0, 0.25, 1.0])
def test_places_and_values_are_each_others_reverse(key: str, position: float) -> None:
    value = from_unit(PARAMETERS[key], position)
    assert to_unit(PARAMETERS[key], value) == pytest.approx(position)
    low, high = PARAMETERS[key].low, PARAMETERS[key].high  # type: ignore[union-attr]
    assert low <= value <= high * (1 + 1e-12)


def test_whole_numbers_share_the_range_evenly() -> None:
    layers = Integer(distribution="int", low=2, high=5)
    found = [from_unit(layers, (place + 0.5) / 8) for place in range(8)]
    assert found == [2, 2, 3, 3, 4, 4, 5, 5]
    assert (from_unit(layers, 0.0), from_unit(layers, 1.0)) == (2, 5)
    for value in range(2, 6):
        assert from_unit(layers, to_unit(layers, value)) == value


def test_quarter_of_a_logarithmic_range() -> None:
    """The pull weight goes from 0.1 to 10."""
    assert from_unit(PARAMETERS["method.pull_weight"], 0.25) == pytest.approx(10**-0.5)


def test_points_are_a_prefix_of_more_points() -> None:
    spec = search_of(TABLE)
    assert sobol(spec, 8) == sobol(spec, 16)[:8]


def test_surface_runs_through_a_smooth_objective(surface: Surface) -> None:
    random = np.random.default_rng(0)
    for place in random.uniform(0.1, 0.9, (20, len(PARAMETERS))):
        values = {
            key: from_unit(PARAMETERS[key], x) for key, x in zip(PARAMETERS, place, strict=True)
        }
        expected = score(values) * np.array([0.6, 0.9, 1.0])
        np.testing.assert_allclose(surface.curve(values), expected, atol=0.01)


def test_noise_is_a_recorded_deviation_and_stays_with_its_configuration(table: Path) -> None:
    lines = [json.loads(line) for line in table.read_text().splitlines()]
    for line in lines[::2]:
        line["curve"][2][OBJECTIVES[0]] += 0.1
    noisy = table.with_name("noisy.jsonl")
    shutil.copy(TABLE.with_suffix(".yaml"), noisy.with_suffix(".yaml"))
    noisy.write_text("\n".join(map(json.dumps, lines)))
    smooth, rough = (Surface(noisy, OBJECTIVES[0], noise) for noise in (False, True))
    for values in sobol(search_of(TABLE), 16):
        curve = rough.curve(values)
        assert curve.tolist() == rough.curve(values).tolist()
        deviation = curve[2] - smooth.curve(values)[2]
        assert np.abs(smooth.deviations[:, 2] - deviation).min() < 1e-9


@pytest.mark.parametrize(("average_last", "expected"), [(None, 0.9), (2, 0.3)])
def test_reported_score_falls_only_where_weights_are_averaged(
    table: Path, tmp_path: Path, average_last: int | None, expected: float
) -> None:
    lines = [json.loads(line) for line in table.read_text().splitlines()]
    for line in lines:
        for report, value in zip(line["curve"], (0.5, 0.9, 0.3), strict=True):
            report[OBJECTIVES[0]] = value
    file = tmp_path / "falling.jsonl"
    file.write_text("\n".join(map(json.dumps, lines)))
    search = yaml.safe_load(table.with_suffix(".yaml").read_text())
    search["training"]["average_last"] = average_last
    file.with_suffix(".yaml").write_text(yaml.safe_dump(search))
    values = lines[0]["values"]
    reported = Surface(file, OBJECTIVES[0], noise=False).curve(values)
    assert reported.tolist() == pytest.approx([0.5, 0.9, expected])


@pytest.mark.parametrize(
    ("concurrent", "expected"),
    # Side by side, the second has trained 87 steps when the first is at its end.
    [(1, [130, 260, 390, 520]), (2, [217, 260, 477, 520])],
)
def test_every_step_of_every_trial_counts(
    surface: Surface, concurrent: int, expected: list[int]
) -> None:
    found = itertools.islice(ends(surface, RANDOM, concurrent), 4)
    assert [trained for trained, _ in found] == expected


def test_objectives_are_correlated_with_what_transfers(tmp_path: Path) -> None:
    names = objectives("en")
    # English accuracy orders the trainings as the truth does, the estimate in reverse; the other
    # objectives cannot tell them apart.
    lines = []
    for number, truth in enumerate((0.5, 0.7, 0.6, 0.9, 0.8)):
        end = dict.fromkeys(names, 0.3) | {"step": 1, "dev/accuracy/zero_shot_mean": truth}
        end |= {"dev/accuracy/en": truth / 2, ESTIMATED_ACCURACY: 1 - truth}
        lines.append(json.dumps({"point": number, "values": {}, "curve": [end]}))
    file = tmp_path / "trainings.jsonl"
    file.write_text("\n".join(lines))
    benchmarks.objectives.main(file, tmp_path / "measured.json")
    measured = json.loads((tmp_path / "measured.json").read_text())
    found = {row.pop("objective"): tuple(row.values()) for row in measured["rows"]}
    assert found["dev/accuracy/en"] == ("+1.00", "", "90.0")
    assert found[ESTIMATED_ACCURACY] == ("-1.00", "", "50.0")
    # Of trainings that it cannot tell apart, the mean.
    assert found["dev/brier/en_virtual"] == ("", "", "70.0")
    # What reads labels of the target languages is no objective to compare.
    assert [name for name in found if name.endswith("zero_shot_mean")] == [ESTIMATED_ACCURACY]


def test_scores_are_those_of_the_proposed_configurations(surface: Surface) -> None:
    study = Study(search_of(TABLE, {**RANDOM, "search.seed": 5}))
    drawn = [surface.curve(study.propose()[1])[-1] for _ in range(3)]
    found = itertools.islice(ends(surface, {**RANDOM, "search.seed": 5}, 1), 3)
    assert [end for _, end in found] == pytest.approx(drawn)


def test_pruned_trials_cost_their_steps_and_never_end(surface: Surface) -> None:
    changes = {"search.sampler.name": "random", "search.seed": 3}
    pruned = list(itertools.islice(ends(surface, changes, 1), 8))
    whole = dict(itertools.islice(ends(surface, {**RANDOM, "search.seed": 3}, 1), 60))
    assert pruned[-1][0] > 8 * 130
    # Each of the ends is one of the same proposals' ends, trained in full.
    assert {end for _, end in pruned} < set(whole.values())
    assert all((steps - 130 * rank) % 43 == 0 for rank, (steps, _) in enumerate(pruned, start=1))


def test_driver_scale_counts_trials_and_what_mlflow_has(tmp_path: Path) -> None:
    file = tmp_path / "driver.json"
    command = [sys.executable, "-m", "benchmarks.driver_scale", "--trials", "4", "--every", "2"]
    command += ["--nodes", "2", "--concurrent", "2", "--json", str(file)]
    # It has a cluster of its own: it joins neither one that is named here nor one that it finds.
    elsewhere = {**os.environ, "RAY_ADDRESS": "127.0.0.1:1"}
    subprocess.run(
        command, check=True, cwd=ROOT, stdout=subprocess.DEVNULL, timeout=300, env=elsewhere
    )
    measured = json.loads(file.read_text())
    assert [row["trials"] for row in measured["rows"]] == ["1 to 2", "3 to 4"]
    # The search's own run, and one a trial.
    assert "it has 5 runs" in measured["wall time"]
