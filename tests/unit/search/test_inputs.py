"""Fingerprints: a change of what the trials read is noticed, named and kept in mind."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.support.task_files import xtreme
from xlt_ray.config.loading import load_spec
from xlt_ray.encoders.loading import EncoderInfo
from xlt_ray.errors import UserError
from xlt_ray.search.inputs import equal_files, fingerprints, warning
from xlt_ray.search.ledger import Ledger, begun_inputs, changed_inputs
from xlt_ray.search.resume import check_same_inputs
from xlt_ray.search.trials import Trial

SEARCH = {"name": "any"}


class Place:
    """A task, synonyms and a model in a folder, of which a test changes one."""

    def __init__(self, folder: Path) -> None:
        (folder / "data").mkdir()
        self.data, self.model = folder / "data", folder / "model"
        self.task = xtreme(self.data)
        self.synonyms = {"film": ("movie",)}
        self.model.mkdir()
        (self.model / "model.safetensors").write_bytes(b"weights")
        (self.model / "config.json").write_text("{}")

    def read(self) -> dict[str, str]:
        encoder = EncoderInfo(str(self.model), "bert", 2, 32, 100, 512)
        return fingerprints(self.task, self.synonyms, str(self.model), encoder)


def change(place: Place, what: str) -> None:
    if what == "labels":
        place.task = place.task.model_copy(update={"labels": place.task.labels[::-1]})
    elif what == "synonyms":
        place.synonyms = {"film": ("picture",)}
    elif what == "description":
        place.task = place.task.model_copy(update={"description": "the same"})
    elif what == "time":
        (place.data / "train-en.tsv").touch()
    else:
        path = (place.data if what.endswith("tsv") else place.model) / what
        path.write_bytes(path.read_bytes() + b"a\tb\tneutral\n")


@pytest.mark.parametrize(
    ("what", "named"),
    [
        ("train-en.tsv", ["train-en.tsv (train, en)"]),
        ("test-de.tsv", ["test-de.tsv (test, de)"]),
        ("labels", ["the task file"]),
        ("synonyms", ["the synonym list"]),
        ("model.safetensors", ["the model's weights"]),
        ("config.json", ["the model's configuration or tokenizer"]),
        ("description", []),
        ("time", []),
    ],
)
def test_a_resumed_search_is_told_what_changed(tmp_path: Path, what: str, named: list[str]) -> None:
    place = Place(tmp_path)
    before = place.read()
    change(place, what)
    after = place.read()
    assert changed_inputs(before, after) == named
    check_same_inputs(before, after, Path("runs/x"), force=True)
    if not named:
        check_same_inputs(before, after, Path("runs/x"), force=False)
        return
    with pytest.raises(UserError) as error:
        check_same_inputs(before, after, Path("runs/x"), force=False)
    assert str(error.value).startswith(
        f"--resume runs/x: changed since the search started: {named[0]}; start a new search"
    )
    assert "--force" in str(error.value) and "\n" not in str(error.value)


def test_a_copy_in_another_folder_is_the_same(tmp_path: Path) -> None:
    places = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        places.append(Place(tmp_path / name).read())
    assert places[0] == places[1]


def test_many_changes_are_counted() -> None:
    before = {str(number): "a" for number in range(5)}
    with pytest.raises(UserError, match=r"started: 0, 1, 2 and 2 more;"):
        check_same_inputs(before, dict.fromkeys(before, "b"), Path("x"), force=False)


def test_a_search_recorded_without_inputs_resumes(tmp_path: Path) -> None:
    file = tmp_path / "trials.jsonl"
    ledger = Ledger(file)
    ledger.begin(SEARCH)
    ledger.start(Trial.labelled("paper"))
    assert begun_inputs(file) is None
    check_same_inputs(begun_inputs(file), {"a": "1"}, tmp_path, force=False)
    Ledger(file).begin(SEARCH, {"a": "1"})
    assert begun_inputs(file) == {"a": "1"} and warning(file) == ""


def test_inputs_may_change_while_no_trial_has_started(tmp_path: Path) -> None:
    file = tmp_path / "trials.jsonl"
    for inputs in ({"a": "1"}, {"a": "2"}):
        assert begun_inputs(file) is None
        Ledger(file).begin(SEARCH, inputs)
    assert warning(file) == ""


def test_a_forced_change_stays_in_the_warning(tmp_path: Path) -> None:
    file = tmp_path / "trials.jsonl"
    assert warning(file) == ""
    for round_, inputs in enumerate(({"a": "1", "b": "1"}, {"a": "2", "b": "1"}, {"a": "2"})):
        ledger = Ledger(file)
        ledger.begin(SEARCH, inputs)
        ledger.begin(SEARCH, inputs)
        ledger.start(Trial.labelled(f"0{round_ + 1}"))
    assert begun_inputs(file) == {"a": "2"}
    assert warning(file).startswith("trials were trained on different data: a, b changed between")
    assert Ledger(file).search == SEARCH and len(Ledger(file).records) == 3


def test_a_forced_change_of_the_objective_stays_in_the_warning(tmp_path: Path) -> None:
    file = tmp_path / "trials.jsonl"
    spec = load_spec("demo").model_dump(mode="json")
    rest = {key: value for key, value in spec["search"].items() if key != "objective"}
    more = {"search": {**rest, "objective": spec["search"]["objective"], "num_trials": 9}}
    other = {"search": {**rest, "objective": "dev/brier/en"}, "data_dir": "/elsewhere"}
    for number, changes in enumerate(({}, more, other)):
        ledger = Ledger(file)
        ledger.begin(spec | changes, {"a": "1"})
        ledger.start(Trial.labelled(f"0{number + 1}"))
        expected = "" if number < 2 else "with different keys: search.objective changed between"
        assert expected in warning(file) and bool(warning(file)) == bool(expected)


def test_files_of_the_same_content_are_named_together(tmp_path: Path) -> None:
    task = xtreme(tmp_path)
    for number, name in enumerate(("train-en", "dev-en", "dev-de", "test-en", "test-de")):
        with (tmp_path / f"{name}.tsv").open("a", encoding="utf-8") as file:
            file.write(f"{number}\tas long as the others\tneutral\n")
    assert equal_files(task) == []
    shutil.copy(tmp_path / "dev-en.tsv", tmp_path / "test-en.tsv")
    assert equal_files(task) == [["dev-en.tsv (dev, en)", "test-en.tsv (test, en)"]]
