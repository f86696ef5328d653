"""A toy task for the tests of every package."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.core_toy import Toy, make_toy


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Toy]:
    folder = tmp_path_factory.mktemp("toy")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XLT_RAY_CACHE", str(folder / "cache"))
        yield make_toy(folder)
