"""Where the time of a trial goes, and what it uses of its machine."""

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
        started: When the first lap began, in seconds since 1970; now if omitted. Laps of several
            processes on one machine can be told so.
    """

    def __init__(self, started: float | None = None) -> None:
        self._last = time.time() if started is None else started
        self.seconds: dict[str, float] = {}
        """Seconds of each name."""

    def lap(self, name: str) -> None:
        """Count the time since the last lap, or since the start, to a name."""
        now = time.time()
        self.seconds[name] = self.seconds.get(name, 0.0) + now - self._last
        self._last = now


class Usage:
    """What this process and its machine use.

    Args:
        device: Where the process computes.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._process = psutil.Process()
        # Utilisation is told since the last call: from here on, the first time.
        self._process.cpu_percent()
        psutil.cpu_percent()

    def __call__(self) -> dict[str, float]:
        """What was used since the last call, or is used now.

        Returns:
            CPU utilisation since the last call, in percent of all cores (the machine) and of one
            core (the process); memory now and at most so far in megabytes (10⁶ bytes) and, of the
            machine, in percent; on a GPU the most memory so far that tensors took of it.
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
