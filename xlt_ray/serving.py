"""The loader module that models in MLflow's registry name; its path stays."""

from xlt_ray.inference.serving import ServedClassifier, _load_pyfunc

__all__ = ["ServedClassifier", "_load_pyfunc"]
