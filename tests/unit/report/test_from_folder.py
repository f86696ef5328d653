"""A report that is made again is the page that the search wrote."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.pipeline.test_run import MadeUp, made_up
from xlt_ray.config.loading import dump_spec
from xlt_ray.errors import UserError
from xlt_ray.report.from_folder import check_page, rebuild_report


def test_a_search_without_trials_has_no_report(tmp_path: Path) -> None:
    run = made_up(MadeUp, tmp_path, seeds=0)
    (run.folder / "search.yaml").write_text(dump_spec(run.plan.spec))
    with pytest.raises(UserError, match="no trial has started"):
        rebuild_report(run.folder, tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


def test_a_page_ends_in_html(tmp_path: Path) -> None:
    check_page(tmp_path / "page.html")
    with pytest.raises(UserError, match=r"must end in \.html"):
        check_page(tmp_path / "page.pdf")
