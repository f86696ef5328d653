"""The packages keep their floors: contracts of import-linter in pyproject.toml, private names."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "xlt_ray"
LINT = (
    "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"
)
# MLflow loads a registered model through this name of its loader module.
ENTRY_POINTS = {("xlt_ray/serving.py", "_load_pyfunc")}


def lint(folder: Path) -> tuple[int, str]:
    """Check the contracts of a folder with pyproject.toml and xlt_ray/."""
    result = subprocess.run(
        [sys.executable, "-c", LINT],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder), "NO_COLOR": "1", "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )
    return result.returncode, result.stdout + result.stderr


def test_no_package_imports_from_above() -> None:
    code, report = lint(ROOT)
    assert code == 0, report


@pytest.mark.parametrize(
    ("module", "line", "broken"),
    [
        ("data/rows.py", "from xlt_ray.training import trainer", "floors"),
        ("errors.py", "from xlt_ray import names", "floors"),
        ("config/keys.py", "from xlt_ray.encoders import pooling", "floors"),
        ("search/plan.py", "def late() -> None:\n    import ray", "Ray"),
        # Through a module that only it imports.
        ("journal.py", "import mlflow", "MLflow"),
        ("inference/classifier.py", "from rich.table import Table", "Tables"),
        ("surplus.py", "", "surplus"),
    ],
)
def test_an_import_from_above_is_found(tmp_path: Path, module: str, line: str, broken: str) -> None:
    shutil.copytree(PACKAGE, tmp_path / "xlt_ray", ignore=shutil.ignore_patterns("*.tsv"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    file = tmp_path / "xlt_ray" / module
    text = file.read_text(encoding="utf-8") if file.exists() else ""
    file.write_text(f"{text}\n{line}\n", encoding="utf-8")
    code, report = lint(tmp_path)
    assert code == 1, report
    verdicts = [row for row in report.splitlines() if row.endswith("BROKEN") or "surplus" in row]
    assert any(broken in row for row in verdicts), report


def private_imports() -> Iterator[tuple[str, str]]:
    """Each private name (`_x`) that a module imports from another module of the package."""
    for file in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("xlt_ray"):
                for name in (alias.name for alias in node.names):
                    if name.startswith("_") and not name.startswith("__"):
                        yield str(file.relative_to(ROOT)), name


def test_private_names_stay_in_their_module() -> None:
    assert set(private_imports()) <= ENTRY_POINTS
