"""The optimiser of a trial: which parameters train, and at which learning rate at each step.

:class:`xlt_ray.training.trainer.Trainer` uses it.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator

import torch
from torch import nn
from transformers import PreTrainedModel

from xlt_ray.config.spec import TrainingSpec
from xlt_ray.encoders.depth import parameter_depths


def make_optimizer(classifier: PreTrainedModel, recipe: TrainingSpec) -> torch.optim.Optimizer:
    """Return AdamW over the trainable parameters, in one fused pass.

    The parameters of a depth are a group with a learning rate of its own: `learning_rate` for the
    head, and `layer_decay` times that of the depth above for everything below it (Howard & Ruder,
    ACL 2018; Clark et al., ICLR 2020). Without decay all parameters are one group.

    Args:
        classifier: The model; parameters that the recipe freezes stop training.
        recipe: The fine-tuning recipe.
    """
    depths = parameter_depths(classifier)
    head = max(depths.values())
    groups: dict[float, list[nn.Parameter]] = defaultdict(list)
    for name, parameter in classifier.named_parameters():
        depth = depths[name]
        # The head always trains: layers that share their weights are one, so it lies right above.
        if recipe.frozen_embeddings if depth == 0 else depth <= min(recipe.frozen_layers, head - 1):
            parameter.requires_grad_(False)
        if parameter.requires_grad:
            groups[recipe.layer_decay ** (head - depth)].append(parameter)
    return torch.optim.AdamW(
        [
            {"params": parameters, "lr": recipe.learning_rate * factor}
            for factor, parameters in groups.items()
        ],
        eps=recipe.adam_epsilon,
        weight_decay=recipe.weight_decay,
        fused=True,
    )


class LearningRates:
    """Sets the optimiser's learning rates: a linear rise to their peaks, then a linear fall to 0.

    This is transformers' linear schedule; without warm-up the first step has the peak.

    Args:
        optimizer: A new optimiser; its groups have their peak learning rates.
        steps: Steps of the whole training.
        warmup_share: Share of the steps that warm up, in [0, 1); the steps are rounded up.
    """

    def __init__(
        self, optimizer: torch.optim.Optimizer, steps: int, warmup_share: float = 0.0
    ) -> None:
        self._optimizer = optimizer
        self._peaks = [group["lr"] for group in optimizer.param_groups]
        self._steps = steps
        self._warmup = math.ceil(warmup_share * steps)

    def set(self, step: int) -> None:
        """Set the learning rates of a step, counted from 0."""
        for group, rate in zip(self._optimizer.param_groups, self._at(step), strict=True):
            group["lr"] = rate

    def _at(self, step: int) -> Iterator[float]:
        if step < self._warmup:
            share = step / self._warmup
        else:
            share = 1 - (step - self._warmup) / (self._steps - self._warmup)
        return (peak * share for peak in self._peaks)
