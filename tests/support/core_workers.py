"""Run a function in several processes that form a torch.distributed group on this machine."""

from __future__ import annotations

import multiprocessing
import os
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from datetime import timedelta
from typing import Any

import torch

from xlt_ray.distributed import Workers


def run_workers(size: int, function: Callable[..., Any], *arguments: Any) -> list[Any]:
    """Call ``function(workers, *arguments)`` on every worker.

    Args:
        size: Number of workers.
        function: A module's function, which workers import.
        arguments: Further arguments, pickled.

    Returns:
        What each worker returned, by rank.
    """
    # A server that has imported the libraries once forks every worker.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "transformers", "xlt_ray.training.build"])
    with (
        tempfile.TemporaryDirectory() as folder,
        ProcessPoolExecutor(size, mp_context=context) as pool,
    ):
        calls = [
            pool.submit(_run, function, rank, size, f"file://{folder}/rendezvous", arguments)
            for rank in range(size)
        ]
        return [call.result() for call in calls]


def _run(
    function: Callable[..., Any], rank: int, size: int, rendezvous: str, arguments: tuple[Any, ...]
) -> Any:
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.distributed.init_process_group(
        "gloo", rendezvous, rank=rank, world_size=size, timeout=timedelta(seconds=120)
    )
    try:
        return function(Workers(rank, size), *arguments)
    finally:
        torch.distributed.destroy_process_group()
