"""The loader module that registered models name."""

from __future__ import annotations

from xlt_ray import serving
from xlt_ray.inference import serving as moved


def test_models_registered_under_the_old_path_load_the_same_code() -> None:
    assert serving._load_pyfunc is moved._load_pyfunc
    assert serving.ServedClassifier is moved.ServedClassifier
