"""Models of the inference tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.support.fine_tuned import write_model


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module", params=["bert", "xlm-roberta"])
def single(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model of a task over single texts."""
    return write_model(tmp_path_factory.mktemp("single"), request.param, ["review"])


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model of a task over pairs of texts; BERT's tells the two apart."""
    return write_model(tmp_path_factory.mktemp("pair"), "bert", ["premise", "hypothesis"])
