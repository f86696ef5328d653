"""Virtual views made in the embedding space: random and adversarial noise around each word."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from xlt_ray.config.method import MethodSpec

Loss = Callable[[Tensor], Tensor]
"""Maps noise (batch, tokens, hidden) to the classification loss of each example (batch,)."""


@dataclass(frozen=True)
class RandomView:
    """Uniform noise in the L2 ball around each word embedding: randomised smoothing.

    RS-RP of Huang et al. (EMNLP 2021), section 3.
    """

    radius: float
    """Radius of the ball, in the units of the embeddings (>= 0)."""

    def noise(
        self,
        words: Tensor,
        hidden: int,
        seeds: Tensor,
        loss: Loss,
        device: torch.device | None = None,
    ) -> Tensor:
        """Draw the noise of one batch.

        Args:
            words: Whether a position holds a token of the text, neither padding nor special
                (batch, tokens); the others stay as they are.
            hidden: Dimensions of a word embedding.
            seeds: Seed of each example (batch,), so its noise depends neither on the batch nor on
                the workers.
            loss: Not used here.
            device: Where to draw; None: where `words` is. Words and seeds on the CPU avoid
                waiting for a GPU.

        Returns:
            Noise (batch, tokens, hidden) whose L2 norm is at most the radius at every position.
        """
        return uniform_in_ball(words, hidden, seeds, self.radius, device)


@dataclass(frozen=True)
class AdversarialView(RandomView):
    """Noise in the same ball along which the classification loss rises.

    Projected gradient ascent from a random start (Madry et al., ICLR 2018), as the adversarial
    training of Huang et al. (EMNLP 2021), section 3.
    """

    steps: int
    """Gradient steps (>= 1), each 2.5 * radius / steps long."""

    def noise(
        self,
        words: Tensor,
        hidden: int,
        seeds: Tensor,
        loss: Loss,
        device: torch.device | None = None,
    ) -> Tensor:
        """Return the noise of one batch that raises the loss; see :meth:`RandomView.noise`."""
        noise = super().noise(words, hidden, seeds, loss, device)
        words = words.to(noise.device, non_blocking=True)
        step = 2.5 * self.radius / self.steps
        for _ in range(self.steps):
            noise = noise.detach().requires_grad_()
            # Summed, so that an example's gradient does not depend on the size of the batch.
            (gradient,) = torch.autograd.grad(loss(noise).sum(), noise)
            direction = gradient / gradient.norm(dim=-1, keepdim=True).clamp_min(1e-30)
            with torch.no_grad():
                noise = project(noise + step * direction * words.unsqueeze(-1), self.radius)
        return noise.detach()


def embedding_view(method: MethodSpec, mean_norm: float) -> RandomView | None:
    """Build the method's view if it is one of embeddings.

    Args:
        method: The method.
        mean_norm: Mean L2 norm of a word embedding, the unit of `method.view.noise_radius`.
    """
    radius = method.view.noise_radius * mean_norm
    if method.view_kind == "random":
        return RandomView(radius)
    if method.view_kind == "adversarial":
        return AdversarialView(radius, method.view.ascent_steps)
    return None


def uniform_in_ball(
    words: Tensor, hidden: int, seeds: Tensor, radius: float, device: torch.device | None = None
) -> Tensor:
    """Draw points uniformly from the L2 ball, one for each word position.

    Args:
        words: Positions to draw for (batch, tokens).
        hidden: Dimensions.
        seeds: Seed of each example (batch,), integers.
        radius: Of the ball.
        device: Where to draw; None: where `words` is.

    Returns:
        Noise (batch, tokens, hidden), float32, 0 where there is no word. An example's draw depends
        only on its seed and its words, not on the padding of its batch.
    """
    device = device or words.device
    generator = torch.Generator(device)
    drawn = []
    for seed, count in zip(seeds.tolist(), words.sum(1).tolist(), strict=True):
        generator.manual_seed(seed)
        # Per example: sums over a batch would round differently for each shape.
        points = torch.randn(count, hidden + 1, generator=generator, device=device)
        directions = points[:, :-1].contiguous()
        # The last column gives the length: a normal number's distribution function is uniform,
        # and the volume within r grows with r ** hidden.
        length = torch.special.ndtr(points[:, -1:]) ** (1 / hidden)
        norms = directions.norm(dim=-1, keepdim=True).clamp_min(1e-30)
        drawn.append(project(directions / norms * radius * length, radius))
    positions = words.flatten().nonzero().squeeze(1).to(device, non_blocking=True)
    noise = torch.zeros(words.numel(), hidden, device=device)
    return noise.index_copy_(0, positions, torch.cat(drawn)).unflatten(0, words.shape)


def project(noise: Tensor, radius: float) -> Tensor:
    """Project each position's noise (..., hidden) into the L2 ball."""
    norms = noise.norm(dim=-1, keepdim=True)
    # Rounding must not leave the ball either.
    inside = radius * (1 - 1e-6)
    return noise * (inside / norms.clamp_min(1e-30)).clamp_max(1.0)


def mean_norm(table: Tensor, counts: Tensor) -> float:
    """Return the mean L2 norm of word embeddings over their occurrences.

    The mean is over occurrences and not over rows, because trimming changes the rows of a table.

    Args:
        table: Word embeddings (rows, hidden).
        counts: How often each row occurs in the training texts (rows,).
    """
    norms = table.detach().double().norm(dim=-1)
    return float((norms * counts).sum() / counts.sum())
