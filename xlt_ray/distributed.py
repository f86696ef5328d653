"""The data-parallel workers of one trial, as one of them sees them.

The worker of a trial makes them; training, evaluation and the objective use them.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Literal

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True)
class Workers:
    """The rank, device and precision of this worker, and reductions over all workers."""

    rank: int = 0
    """This worker's number, 0 to size - 1."""
    size: int = 1
    """Number of workers (>= 1); more than 1 need an initialised torch.distributed group."""
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    """The device on which this worker computes."""
    bf16: bool = False
    """Whether matrix products run in bfloat16 (autocast)."""

    def autocast(self) -> AbstractContextManager[object]:
        """Return the context of forward passes, which sets their precision."""
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.bf16)

    def maximum(self, values: Tensor) -> Tensor:
        """Replace values by their element-wise maximum over the workers, and return them."""
        if self.size > 1:
            dist.all_reduce(values, op=dist.ReduceOp.MAX)
        return values

    def sum(self, values: Tensor) -> Tensor:
        """Replace values by their element-wise sum over the workers, and return them."""
        if self.size > 1:
            dist.all_reduce(values, op=dist.ReduceOp.SUM)
        return values


def use_resources(cpus: float, gpus: float) -> torch.device:
    """Let torch use as many threads as a Ray task has CPU cores; return the task's device.

    Args:
        cpus: CPU cores of the task (> 0).
        gpus: GPUs of the task, or a fraction of one; 0: it computes on the CPU.
    """
    torch.set_num_threads(max(1, int(cpus)))
    return torch.device("cuda" if gpus else "cpu")


def computes_in_bf16(device: torch.device, precision: Literal["auto", "bf16", "fp32"]) -> bool:
    """Return whether forward passes use bf16 autocast.

    Args:
        device: The device of the model.
        precision: The spec's; `auto` uses bf16 if the hardware has bf16 arithmetic.
    """
    if precision != "auto":
        return precision == "bf16"
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and torch.cpu._is_avx512_bf16_supported()
