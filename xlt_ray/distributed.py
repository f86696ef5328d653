"""The data-parallel workers of one trial, as seen by one of them."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Literal

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True)
class Workers:
    """Rank, device and arithmetic of this worker; collective operations over all of them."""

    rank: int = 0
    """Number of this worker, from 0."""
    size: int = 1
    """Number of workers; above 1 a torch.distributed process group must be initialised."""
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    """Where this worker computes."""
    bf16: bool = False
    """Whether matrix products run in bfloat16 (autocast)."""

    def autocast(self) -> AbstractContextManager[object]:
        """The arithmetic of forward passes."""
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.bf16)

    def maximum(self, values: Tensor) -> Tensor:
        """Element-wise maximum over the workers."""
        if self.size > 1:
            dist.all_reduce(values, op=dist.ReduceOp.MAX)
        return values

    def sum(self, values: Tensor) -> Tensor:
        """Element-wise sum over the workers."""
        if self.size > 1:
            dist.all_reduce(values, op=dist.ReduceOp.SUM)
        return values


def computes_in_bf16(device: torch.device, precision: Literal["auto", "bf16", "fp32"]) -> bool:
    """Decide whether to use bf16 autocast; `auto` asks the hardware."""
    if precision != "auto":
        return precision == "bf16"
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and torch.cpu._is_avx512_bf16_supported()
