"""Addresses of Ray clusters are checked before anything starts."""

from __future__ import annotations

import pytest

from xlt_ray.errors import UserError
from xlt_ray.pipeline.settings import check_address


@pytest.mark.parametrize(
    "address",
    [None, "", "auto", "local", "10.0.0.1:6379", "ray://head:10001", "[::1]:6379", "head:65535"],
)
def test_valid_addresses(address: str | None) -> None:
    check_address(address)


@pytest.mark.parametrize(
    "address", ["head", "head:0", "head:65536", "a b:6379", "http://head:8265", "head:"]
)
def test_invalid_addresses(address: str) -> None:
    with pytest.raises(UserError, match="--address"):
        check_address(address)
