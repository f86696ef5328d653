"""The Python interface, as its page in the documentation shows it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.support.searching import ROOT, environment, write_search

RUN = """
import doctest, sys
if __name__ == "__main__":
    flags = doctest.ELLIPSIS | doctest.IGNORE_EXCEPTION_DETAIL
    failed, tried = doctest.testfile(sys.argv[1], module_relative=False, optionflags=flags)
    print(tried)
    sys.exit(failed)
"""


def test_the_pages_examples_run(tmp_path: Path) -> None:
    write_search(tmp_path, assessment={"alignment_rows": 0})
    program = tmp_path / "run.py"
    program.write_text(RUN)
    page = ROOT / "docs" / "python.md"
    run = subprocess.run(
        [sys.executable, str(program), str(page)],
        cwd=tmp_path,
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert int(run.stdout.split()[-1]) == page.read_text(encoding="utf-8").count(">>> ")
