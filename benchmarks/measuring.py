"""Time several implementations against each other, turn by turn in one run.

Machines are noisy, so no time stands for itself: each side lives in a process of its own, the sides
take turns, and what is reported are ratios of medians.
"""

from __future__ import annotations

import json
import multiprocessing
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

Factory = Callable[[], Callable[[int], None]]
"""Sets a side up in its process; what it returns does the work of one turn."""


@dataclass(frozen=True)
class Measured:
    """What one side took."""

    seconds: list[float]
    """Time of each turn."""
    peak: int
    """Most memory during the turns in bytes: of the GPU if there is one, else of the process."""

    @property
    def median(self) -> float:
        """Median time of a turn."""
        return float(np.median(self.seconds))


def device() -> torch.device:
    """Where the benchmarks compute."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def alternate(
    sides: Mapping[str, Factory], turns: int, threads: int, warm_up: int = 1
) -> dict[str, Measured]:
    """Let the sides take turns.

    Args:
        sides: Name to factory, which must be picklable.
        turns: Measured turns of each side.
        threads: Compute threads of a side; only one side computes at a time.
        warm_up: Turns before those.
    """
    context = multiprocessing.get_context("spawn")
    pipes: dict[str, Connection] = {}
    processes = []
    for name, factory in sides.items():
        pipes[name], other = context.Pipe()
        process = context.Process(target=_side, args=(factory, threads, other), daemon=True)
        process.start()
        processes.append(process)
        pipes[name].recv()
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for turn in track(range(warm_up + turns), description="Turns", console=Console(stderr=True)):
        for name, pipe in pipes.items():
            pipe.send(turn)
            taken = pipe.recv()
            if turn >= warm_up:
                seconds[name].append(taken)
    found = {}
    for name, pipe in pipes.items():
        pipe.send(None)
        found[name] = Measured(seconds[name], pipe.recv())
    for process in processes:
        process.join()
    return found


def _side(factory: Factory, threads: int, pipe: Connection) -> None:
    torch.set_num_threads(threads)
    work = factory()
    _forget_peak()
    pipe.send(None)
    while (turn := pipe.recv()) is not None:
        started = time.perf_counter()
        work(turn)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        pipe.send(time.perf_counter() - started)
    pipe.send(_peak())


def _forget_peak() -> None:
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    elif Path("/proc/self/clear_refs").exists():
        Path("/proc/self/clear_refs").write_text("5")


def _peak() -> int:
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def matmul_rate(rows: int, inner: int, columns: int, bf16: bool, threads: int) -> float:
    """Operations a second of a matrix product, the best of several.

    Args:
        rows: Rows of the left factor: tokens.
        inner: Columns of the left factor: hidden size.
        columns: Columns of the right factor: feed-forward size.
        bf16: In bfloat16 instead of float32.
        threads: Compute threads.
    """
    torch.set_num_threads(threads)
    kind = torch.bfloat16 if bf16 else torch.float32
    left = torch.randn(rows, inner, device=device()).to(kind)
    right = torch.randn(columns, inner, device=device()).to(kind)
    best = float("inf")
    for _ in range(30):
        started = time.perf_counter()
        torch.nn.functional.linear(left, right)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - started)
    return 2 * rows * inner * columns / best


def machine(threads: int, bf16: bool) -> str:
    """The machine in a line."""
    if torch.cuda.is_available():
        name = torch.cuda.get_device_name()
    else:
        name = f"{threads} CPU threads of {_processor()}"
    return f"{name}, {'bf16' if bf16 else 'fp32'}, torch {torch.__version__}"


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def show(title: str, rows: list[dict[str, str]], file: Path | None, facts: dict[str, Any]) -> None:
    """Print a table, and keep it as JSON for docs/performance.md.

    Args:
        title: What was measured.
        rows: Column to cell.
        file: Where to keep it; None: nowhere.
        facts: What else to keep, such as the machine.
    """
    table = Table(title=title)
    for number, column in enumerate(rows[0]):
        table.add_column(column, justify="right" if number else "left")
    for row in rows:
        table.add_row(*row.values())
    console = Console(width=max(120, Console().width))
    console.print(table)
    for name, value in facts.items():
        console.print(f"{name}: {value}", highlight=False, soft_wrap=True)
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps({"title": title, "rows": rows, **facts}, indent=2) + "\n")
