"""An exponential moving average of the trained weights; the trainer updates it at every step."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class WeightAverage:
    """The average w' of the weights w: w' = w after the first step, then d w' + (1 - d) w.

    This is torch's `AveragedModel` with `get_ema_multi_avg_fn`, without its copy of the module.

    Args:
        model: The model; only parameters that are trained are averaged.
        decay: d, in [0, 1); 0: no average, the trained weights count.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
        self._update = get_ema_multi_avg_fn(decay)
        self.enabled = decay > 0
        """Whether there is an average."""
        self._average: dict[str, Tensor] = {}

    @torch.no_grad()
    def update(self) -> None:
        """Add the weights of one more step."""
        if not self.enabled:
            return
        if not self._average:
            self._average = {name: value.detach().clone() for name, value in self._trained.items()}
            return
        self._update(list(self._average.values()), list(self._trained.values()), None)

    @contextlib.contextmanager
    def in_use(self) -> Iterator[None]:
        """Give the model the averaged weights, and the trained ones back, bit by bit the same."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        # One weight at a time: a further copy of the model would be the training's peak of memory.
        for name, average in self._average.items():
            trained = self._trained[name].clone()
            self._trained[name].copy_(average)
            average.copy_(trained)

    def save(self, file: Path) -> None:
        """Write the average to a file, if there is one."""
        if self._average:
            save_file(self._average, str(file))

    def load(self, file: Path) -> None:
        """Read the average from a file, if it exists."""
        if self.enabled and file.exists():
            read = load_file(str(file))
            self._average = {n: read[n].to(value.device) for n, value in self._trained.items()}
