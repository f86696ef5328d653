"""Reductions over workers, and the precision of forward passes."""

from __future__ import annotations

import pytest
import torch

from tests.support.core_workers import run_workers
from xlt_ray.distributed import Workers, computes_in_bf16

CPU = torch.device("cpu")


def reduced(workers: Workers) -> tuple[list[float], list[float]]:
    values = torch.tensor([1.0, -2.0]) * (workers.rank + 1)
    return workers.sum(values.clone()).tolist(), workers.maximum(values.clone()).tolist()


def test_reductions_are_element_wise_and_equal_on_every_worker() -> None:
    assert reduced(Workers()) == ([1.0, -2.0], [1.0, -2.0])
    assert run_workers(3, reduced) == [([6.0, -12.0], [3.0, -2.0])] * 3


@pytest.mark.parametrize("bf16", [False, True])
def test_forward_passes_have_the_workers_precision(bf16: bool) -> None:
    with Workers(bf16=bf16).autocast():
        product = torch.ones(2, 2) @ torch.ones(2, 2)
    assert product.dtype == (torch.bfloat16 if bf16 else torch.float32)


def test_a_precision_that_the_spec_names_needs_no_hardware() -> None:
    for device in (CPU, torch.device("cuda"), torch.device("meta")):
        assert computes_in_bf16(device, "bf16")
        assert not computes_in_bf16(device, "fp32")


def test_auto_is_fp32_on_a_device_without_bf16_arithmetic() -> None:
    assert not computes_in_bf16(torch.device("meta"), "auto")
    assert computes_in_bf16(CPU, "auto") == torch.cpu._is_avx512_bf16_supported()
