"""The use of the machine, and seconds by name."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch

from xlt_ray.training.telemetry import Stopwatch, Usage


def kernel_megabytes(key: str) -> float:
    """Return a memory value of this process, from the kernel."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    (value,) = (line.split()[1] for line in lines if line.startswith(f"{key}:"))
    return int(value) * 1024 / 1e6


def test_memory_is_the_kernel_s_number() -> None:
    usage = Usage(torch.device("cpu"))
    block = bytearray(300_000_000)
    with_block = usage()
    del block
    without = usage()
    used = "system/process_memory_megabytes"
    assert with_block[used] - without[used] == pytest.approx(300, abs=20)
    assert without[used] == pytest.approx(kernel_megabytes("VmRSS"), abs=20)
    peak = without["system/process_memory_peak_megabytes"]
    assert peak == pytest.approx(kernel_megabytes("VmHWM"), abs=20)
    assert peak > without[used] + 250


def test_processor_use_is_that_since_the_last_call() -> None:
    usage = Usage(torch.device("cpu"))
    before, started = time.process_time(), time.monotonic()
    while time.process_time() < before + 0.5:
        pass
    share = 100 * (time.process_time() - before) / (time.monotonic() - started)
    busy = usage()
    assert busy["system/process_cpu_percentage"] == pytest.approx(share, rel=0.3)
    assert 0 < busy["system/cpu_utilization_percentage"] <= 100


def test_laps_of_a_name_add_up_to_the_time_since_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([103.0, 104.0, 109.0])
    monkeypatch.setattr(time, "time", lambda: next(times))
    clock = Stopwatch(started=100.0)
    for name in ("process", "data", "process"):
        clock.lap(name)
    assert clock.seconds == {"process": 8.0, "data": 1.0}
