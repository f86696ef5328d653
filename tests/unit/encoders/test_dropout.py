"""Dropout by cheap random numbers: the same distribution as torch's, and its gradient."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from xlt_ray.encoders.dropout import FastDropout, dropout, use_fast_dropout


@pytest.mark.parametrize("p", [0.1, 0.5, 0.999])
def test_a_share_of_p_is_zero_at_every_place_and_the_mean_stays(p: float) -> None:
    """Within five standard deviations of a binomial; four elements share a draw."""
    torch.manual_seed(0)
    count = 400_003
    dropped = dropout(torch.ones(count), p)
    for first in range(4):
        zeros = (dropped[first::4] == 0).double().mean().item()
        assert abs(zeros - p) < 5 * (p * (1 - p) / (count / 4)) ** 0.5
    assert dropped.mean().item() == pytest.approx(1, abs=5 * (p / (1 - p) / count) ** 0.5)
    (scale,) = dropped[dropped != 0].unique()
    assert scale.item() == pytest.approx(1 / (1 - p), rel=0.01)


def test_neighbours_and_draws_are_independent() -> None:
    torch.manual_seed(1)
    first, second = (dropout(torch.ones(200_000), 0.5) != 0 for _ in range(2))
    pairs = [(first[:-step], first[step:]) for step in (1, 2, 3, 4)]
    for one, other in [*pairs, (first, second)]:
        both = (one & other).double().mean().item()
        assert abs(both - 0.25) < 5 * (0.25 * 0.75 / len(one)) ** 0.5


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(3, 5, 7), (1,), (0, 4)])
def test_the_gradient_is_the_mask(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    torch.manual_seed(2)
    values = torch.randn(shape, dtype=dtype).add(3).requires_grad_()
    dropped = dropout(values, 0.25)
    assert dropped.shape == values.shape and dropped.dtype == dtype
    dropped.sum().backward()
    assert values.grad is not None
    torch.testing.assert_close(dropped, values.grad * values.detach())


def test_the_seed_decides() -> None:
    torch.manual_seed(3)
    first = dropout(torch.ones(100), 0.5)
    torch.manual_seed(3)
    assert torch.equal(dropout(torch.ones(100), 0.5), first)
    assert not torch.equal(dropout(torch.ones(100), 0.5), first)


def test_nothing_and_everything() -> None:
    values = torch.randn(10)
    assert torch.equal(dropout(values, 0.0), values)
    assert torch.equal(dropout(values, 1.0), torch.zeros(10))


def test_only_plain_dropout_is_replaced_and_evaluation_drops_nothing() -> None:
    model = nn.Sequential(nn.Dropout(0.5), nn.Dropout1d(0.5), nn.Dropout(0.5, inplace=True))
    use_fast_dropout(model)
    assert [type(module) for module in model] == [FastDropout, nn.Dropout1d, nn.Dropout]
    values = torch.ones(1000)
    assert (model[0](values) == 0).any()
    assert torch.equal(model.eval()[0](values), values)
