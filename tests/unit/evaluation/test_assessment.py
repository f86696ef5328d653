"""Assessment of a pretrained toy encoder: what it measures, and what it refuses."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support.core_toy import Toy, make_toy
from xlt_ray.errors import UserError
from xlt_ray.evaluation.assessment import assess

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Toy]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XLT_RAY_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield make_toy(tmp_path_factory.mktemp("toy"))


def test_picture_is_centred_and_has_the_rows_of_the_alignment(toy: Toy) -> None:
    found = assess(toy.spec({}), None, CPU, alignment_rows=4, generalized_rows=None)
    assert found.matrix is None
    assert found.projection.shape == (len(found.language), 2)
    assert np.bincount(found.language).max() <= 4
    assert np.allclose(found.projection.mean(0), 0, atol=1e-5)


def test_without_alignment_there_is_a_picture_only(toy: Toy) -> None:
    found = assess(toy.spec({}), None, CPU, alignment_rows=0, generalized_rows=None)
    assert found.alignment == {} and len(found.projection) > 0


def test_single_texts_have_no_pairs_of_languages(toy: Toy) -> None:
    with pytest.raises(UserError, match="generalized evaluation needs"):
        assess(toy.spec({}), None, CPU, alignment_rows=4, generalized_rows=4)


def test_assessment_imports_neither_ray_nor_mlflow() -> None:
    code = "import sys, xlt_ray.evaluation.assessment; print({'ray', 'mlflow'} & set(sys.modules))"
    root = Path(__file__).parents[3]
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "set()"
