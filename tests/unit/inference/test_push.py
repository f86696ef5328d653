"""A model goes to a stand-in for the hub and comes back; what it refuses is one line."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.fine_tuned import one_by_one, write_model
from tests.support.hub_stand_in import OWNER, TOKEN, HubStandIn
from xlt_ray.errors import UserError
from xlt_ray.inference.push import push_model

ROOT = Path(__file__).resolve().parents[3]
TEXTS = ["Der alte Arzt schläft.", "老人在安静的花园里看书。"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model as a search exports it, and a file that has no business on the hub."""
    folder = tmp_path_factory.mktemp("run") / "tiny-20260101" / "best-model"
    write_model(folder, "xlm-roberta", ["text"])
    (folder / "README.md").write_text("---\nlanguage: [en, de]\n---\n# A card\n")
    (folder / "notes.log").write_text("private")
    return folder


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[HubStandIn]:
    stand_in = HubStandIn(tmp_path / "hub")
    (tmp_path / "hub" / "models").mkdir(parents=True)
    with stand_in.serving():
        yield stand_in


def push(
    model: Path, repo: str, hub: HubStandIn, token: str | None = TOKEN, *flags: str
) -> tuple[int, str, str]:
    """Run the command with the stand-in as the hub; return its code, output and errors."""
    settings = {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(hub.root / "home"),
        "HF_HUB_DISABLE_XET": "1",
        "PYTHONPATH": str(ROOT),
    }
    kept = {k: v for k, v in os.environ.items() if k not in ("HF_TOKEN", "HF_HUB_OFFLINE")}
    done = subprocess.run(
        [
            *(sys.executable, str(ROOT / "launch.py"), "push"),
            *("--model", str(model), "--repo", repo, *flags),
        ],
        env=kept | settings | ({"HF_TOKEN": token} if token else {}),
        capture_output=True,
        text=True,
        timeout=120,
    )
    return done.returncode, done.stdout, done.stderr


def test_what_is_pushed_answers_as_the_original(model: Path, hub: HubStandIn) -> None:
    code, output, errors = push(model, f"{OWNER}/new", hub)
    assert code == 0, errors
    there = hub.root / "models" / OWNER / "new"
    assert output.strip().startswith(f"{hub.url}/{OWNER}/new/commit/")
    assert hub.created == {f"{OWNER}/new": True}
    assert (there / "README.md").read_text() == (model / "README.md").read_text()
    assert not (there / "notes.log").exists()
    assert one_by_one(there, TEXTS).tolist() == one_by_one(model, TEXTS).tolist()

    # A second time, to a repository that exists; --public does not change how visible it is.
    code, output, errors = push(model, f"{OWNER}/new", hub, TOKEN, "--public")
    assert code == 0, errors
    assert hub.created == {f"{OWNER}/new": True}


@pytest.mark.parametrize(
    ("repo", "token", "expected"),
    [
        (f"{OWNER}/new", None, "there is no token"),
        (f"{OWNER}/new", "hf_wrong", "write access"),
        ("other/new", TOKEN, "write access"),
        (f"{OWNER}/n ew", TOKEN, "--repo"),
    ],
)
def test_what_the_hub_refuses_is_one_line(
    repo: str, token: str | None, expected: str, model: Path, hub: HubStandIn
) -> None:
    code, _, errors = push(model, repo, hub, token)
    assert code == 2 and expected in errors and len(errors.strip().splitlines()) == 1, errors
    assert hub.created == {} and not hub.stored


def test_a_hub_that_is_gone_is_one_line(model: Path, tmp_path: Path) -> None:
    gone = HubStandIn(tmp_path)
    with gone.serving():
        pass
    code, _, errors = push(model, f"{OWNER}/new", gone)
    assert code == 2 and "cannot be reached" in errors and len(errors.strip().splitlines()) == 1


def test_a_folder_without_a_card_and_a_name_without_an_owner_are_refused(
    model: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"no config\.json"):
        push_model(tmp_path, f"{OWNER}/new")
    bare = write_model(tmp_path / "bare", "xlm-roberta", ["text"])
    with pytest.raises(UserError, match=r"no README\.md"):
        push_model(bare, f"{OWNER}/new")
    with pytest.raises(UserError, match="expected OWNER/NAME"):
        push_model(model, "new")
