"""What a running search says of its trials."""

from __future__ import annotations

from pathlib import Path

import pytest

from xlt_ray.cluster.recording import failure_reason

OUT_OF_MEMORY = """\
Traceback (most recent call last):
ray.train.ControllerError: Training failed due to controller error:
2 worker(s) were killed due to the node running low on memory. Memory on the node was 22.47GB used
To adjust the kill threshold, set the environment variable `RAY_memory_usage_threshold`.
"""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Traceback:\n  File x\nValueError: no such layer\n\n", "ValueError: no such layer"),
        ("", ""),
    ],
)
def test_failure_is_told_by_the_last_line(tmp_path: Path, text: str, expected: str) -> None:
    file = tmp_path / "error.txt"
    file.write_text(text)
    assert failure_reason(str(file)) == expected


def test_too_little_memory_is_told_with_what_to_do(tmp_path: Path) -> None:
    file = tmp_path / "error.txt"
    file.write_text(OUT_OF_MEMORY)
    reason = failure_reason(str(file))
    assert "ran out of memory" in reason and "RAY_" not in reason
    assert "--max-concurrent" in reason and "training.micro_batch_tokens" in reason
