"""A stage is interrupted if a trial is missing or did not end."""

from __future__ import annotations

from tests.support.search_results import LANGUAGES, entry
from xlt_ray.pipeline.stage import is_interrupted


def test_a_stage_ends_when_all_its_trials_ended() -> None:
    ended = [entry("01", LANGUAGES), entry("02", LANGUAGES, "pruned")]
    ended.append(entry("03", LANGUAGES, "failed", None))
    assert not is_interrupted(ended, 3)
    assert is_interrupted(ended, 4)
    assert is_interrupted([*ended, entry("04", LANGUAGES, "interrupted", None)], 4)
