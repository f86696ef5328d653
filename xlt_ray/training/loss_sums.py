"""Sums of the loss terms between two evaluations; the trainer adds to them in every step."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from xlt_ray.distributed import Workers
from xlt_ray.training.faults import NonFiniteLoss


@dataclass
class LossSums:
    """Sums of the loss terms since the last report, kept on the device."""

    terms: dict[str, Tensor] = field(default_factory=dict)
    """Sum of each term."""
    broken: dict[str, Tensor] = field(default_factory=dict)
    """The first step, counted from 1, in which each term was not finite; infinity: none."""
    examples: int = 0
    """Examples of all workers."""
    step: int = 0
    """The current step, counted from 1."""

    def copy(self) -> LossSums:
        """Return sums that can be added to without changing these."""
        return replace(self, terms=dict(self.terms), broken=dict(self.broken))

    def add(self, terms: Mapping[str, Tensor]) -> None:
        """Add the terms of some examples, without waiting for the device to compute them.

        Args:
            terms: Losses of the examples (examples,), by term.
        """
        for name, value in terms.items():
            total = value.detach().sum().double()
            step = torch.where(total.isfinite(), math.inf, self.step)
            if name in self.terms:
                total, step = self.terms[name] + total, torch.minimum(self.broken[name], step)
            self.terms[name], self.broken[name] = total, step

    def means(self, workers: Workers) -> dict[str, float]:
        """Return the means over all workers' examples, as metrics.

        Args:
            workers: This worker and its peers; each calls it.

        Raises:
            NonFiniteLoss: If a mean is not finite.
        """
        sums = workers.sum(torch.stack(list(self.terms.values()))).tolist()
        means = {name: value / self.examples for name, value in zip(self.terms, sums, strict=True)}
        if not all(map(math.isfinite, means.values())):
            raise self._non_finite(means, workers)
        distance = means.pop("distance", None)
        metrics = {f"train/loss/{name}": value for name, value in means.items()}
        if distance is not None:
            metrics["train/embedding_distance"] = distance
        return metrics

    def _non_finite(self, means: Mapping[str, float], workers: Workers) -> NonFiniteLoss:
        """Return the error, which names the term that broke first: it breaks the weights, and the
        weights break every later term."""
        first = -workers.maximum(-torch.stack(list(self.broken.values())))
        steps = dict(zip(self.terms, first.tolist(), strict=True))
        name = min(steps, key=steps.__getitem__)
        return NonFiniteLoss(
            f"the loss term '{name}' is {means[name]}, first in step {steps[name]:.0f}"
        )
