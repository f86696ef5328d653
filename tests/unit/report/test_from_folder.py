"""A report that is made again is the page that the search wrote."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.pipeline.test_run import MadeUp, SoupWins, made_up
from tests.unit.pipeline.test_run import run as run_stages
from tests.unit.report.test_html import Page
from xlt_ray.config.loading import dump_spec
from xlt_ray.errors import UserError
from xlt_ray.report.from_folder import check_page, rebuild_report
from xlt_ray.search.verdict import search_verdict


def test_a_search_without_trials_has_no_report(tmp_path: Path) -> None:
    run = made_up(MadeUp, tmp_path, seeds=0)
    (run.folder / "search.yaml").write_text(dump_spec(run.plan.spec))
    with pytest.raises(UserError, match="no trial has started"):
        rebuild_report(run.folder, tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


def test_the_page_has_the_sentence_of_the_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = made_up(SoupWins, tmp_path, seeds=0)
    outcome, printed = run_stages(state, monkeypatch)
    assert state.verdict is not None and state.verdict.sentence in printed
    assert "95 % interval" in state.verdict.sentence
    written = (state.folder / "report.html").read_text(encoding="utf-8")
    assert Page(written).text.count(state.verdict.sentence) == 1
    # The ledger of made-up trials has no scores: what a rebuild reads is the folder's predictions.
    again = search_verdict(outcome.entries, state.folder, state.plan.task.target_languages)
    assert again == state.verdict


def test_a_page_ends_in_html(tmp_path: Path) -> None:
    check_page(tmp_path / "page.html")
    with pytest.raises(UserError, match=r"must end in \.html"):
        check_page(tmp_path / "page.pdf")
