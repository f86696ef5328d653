"""Dropout with cheap random numbers on CPUs; the attention and the objective use it.

Torch draws a double for every element. Here, 16 random bits decide on an element, so that one draw
of 64 bits serves four: dropout takes less than half the time.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

_LEVELS = 2**16
"""Values of the random number of an element."""


def dropout(values: Tensor, p: float) -> Tensor:
    """Set random elements to zero and scale the others, so that the mean stays.

    On a CPU, the share of zeros is `p` rounded to a multiple of 1 / 65,536, and the others are
    scaled by its complement, rounded as the values are. Random numbers come from torch's global
    generator.

    Args:
        values: Any shape.
        p: Probability of a zero, in [0, 1].
    """
    kept = round((1 - p) * _LEVELS)
    if values.device.type != "cpu" or kept in (0, _LEVELS):
        return nn.functional.dropout(values, p)
    dropped: Tensor = _Dropout.apply(values, kept)
    return dropped


class FastDropout(nn.Dropout):
    """`nn.Dropout` by :func:`dropout`."""

    def forward(self, input: Tensor) -> Tensor:
        """Drop elements in training; return the input in evaluation."""
        return dropout(input, self.p) if self.training and self.p else input


def use_fast_dropout(model: nn.Module) -> None:
    """Make every `nn.Dropout` of a model a :class:`FastDropout`, in place."""
    for module in model.modules():
        if type(module) is nn.Dropout and not module.inplace:
            module.__class__ = FastDropout


class _Dropout(torch.autograd.Function):
    """Multiplication by a random mask, which the gradient is multiplied by as well."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, kept: int) -> Tensor:
        count = values.numel()
        # Of all 64 bits: without bounds, random_ leaves the sign out.
        bits = torch.empty((count + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
        numbers = bits.view(torch.int16)[:count]
        mask = (numbers < kept - _LEVELS // 2).view(values.shape).to(values.dtype)
        mask.mul_(_LEVELS / kept)
        ctx.save_for_backward(mask)
        return values * mask

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (mask,) = ctx.saved_tensors
        return gradient * mask, None
