"""The time that a trial takes to start, and its use of the machine; each worker reports both."""

from __future__ import annotations

import resource
import time
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    import torch


class Stopwatch:
    """Adds up seconds by name.

    Args:
        started: When the first lap began, in seconds since 1970; None: now. An earlier process on
            the machine may have begun it.
    """

    def __init__(self, started: float | None = None) -> None:
        self._last = time.time() if started is None else started
        self.seconds: dict[str, float] = {}
        """Seconds by name."""

    def lap(self, name: str) -> None:
        """Add the time since the last lap, or since the start, to a name."""
        now = time.time()
        self.seconds[name] = self.seconds.get(name, 0.0) + now - self._last
        self._last = now


class Usage:
    """Measures what this process and its machine use.

    Args:
        device: The device on which the process computes.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._process = psutil.Process()
        # psutil measures utilisation since its last call: these calls start the first interval.
        self._process.cpu_percent()
        psutil.cpu_percent()

    def __call__(self) -> dict[str, float]:
        """Return the current use, as metrics.

        Returns:
            CPU utilisation since the last call, in percent of all cores (machine) and of one core
            (process); the machine's memory in percent; the process's memory, now and at its peak,
            in megabytes (10⁶ bytes); on a GPU the peak memory of tensors, in megabytes.
        """
        used = {
            "cpu_utilization_percentage": psutil.cpu_percent(),
            "process_cpu_percentage": self._process.cpu_percent(),
            "system_memory_usage_percentage": psutil.virtual_memory().percent,
            "process_memory_megabytes": self._process.memory_info().rss / 1e6,
            # In units of 1,024 bytes, on Linux.
            "process_memory_peak_megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            * 1024
            / 1e6,
        }
        if self._device.type == "cuda":
            import torch

            peak = torch.cuda.max_memory_allocated(self._device)
            used["gpu_memory_peak_megabytes"] = peak / 1e6
        return {f"system/{name}": value for name, value in used.items()}
