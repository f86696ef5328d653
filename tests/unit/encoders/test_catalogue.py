"""Short names of encoders: what they stand for, and what is said of one that is nearly right."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.core_toy import make_toy
from tests.support.hub_stand_in import HubStandIn
from tests.support.tiny_encoder import tiny_encoder
from xlt_ray.encoders.catalogue import ENCODERS, hub_name, suggestion
from xlt_ray.encoders.loading import check_encoder
from xlt_ray.errors import UserError

ROOT = Path(__file__).resolve().parents[3]

PLAN = """
import sys
from xlt_ray.config.spec import SearchSpec
from xlt_ray.search.make_plan import make_plan
plan = make_plan(SearchSpec.model_validate_json(sys.argv[1]))
print(plan.spec.model, plan.encoder.source, plan.encoder.layers)
"""


def test_guide_has_the_table() -> None:
    guide = (ROOT / "docs" / "models-and-data.md").read_text(encoding="utf-8")
    table = guide.partition("| `--model` | on the hub |")[2].partition("\n\n")[0]
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]
    ]
    assert rows == [
        [f"`{name}`", f"`{known.hub}`", f"{known.parameters} M", known.licence, known.languages]
        for name, known in ENCODERS.items()
    ]


def test_a_short_name_is_a_hub_name_and_other_names_stay() -> None:
    assert hub_name("mmbert-base") == "jhu-clsp/mmBERT-base"
    for model in ("jhu-clsp/mmBERT-base", "bert-base-multilingual-cased", "packaged/x", "/a/b"):
        assert hub_name(model) == model


def test_a_local_folder_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tiny_encoder(tmp_path / "mbert", layers=3)
    assert check_encoder("mbert").layers == 3
    assert hub_name("mbert") == "mbert"


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("mmbert-bas", "mmbert-base"),
        ("mmBERT-base", "mmbert-base"),
        ("xlmr_base", "xlmr-base"),
        ("jhu-clsp/mmbert-base", "jhu-clsp/mmBERT-base"),
    ],
)
def test_a_near_miss_suggests(typed: str, meant: str) -> None:
    assert suggestion(typed) == f" (did you mean '{meant}'?)"
    assert suggestion("some/thing-else") == ""


def test_the_error_has_the_suggestion(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=r"model mmbert-bas: not found \(did you mean 'mmbert-base"):
        check_encoder("mmbert-bas")


def test_a_search_plans_and_records_the_hubs_model(tmp_path: Path) -> None:
    toy = make_toy(tmp_path)
    spec = toy.spec({}).model_copy(update={"model": "xlmr-base"})
    tiny_encoder(tmp_path / "hub" / "models" / "FacebookAI" / "xlm-roberta-base", "xlm-roberta")
    hub = HubStandIn(tmp_path / "hub")
    with hub.serving():
        environment = os.environ | {
            "HF_ENDPOINT": hub.url,
            "HF_HOME": str(tmp_path / "home"),
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "XLT_RAY_CACHE": str(tmp_path / "cache"),
        }
        done = subprocess.run(
            [sys.executable, "-c", PLAN, json.dumps(spec.model_dump(mode="json"))],
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
            cwd=tmp_path,
        )
    assert done.returncode == 0, done.stderr
    name = "FacebookAI/xlm-roberta-base"
    assert done.stdout.split() == [name, name, "2"]
