"""Inference with exported models; :class:`Classifier` is imported on first use."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xlt_ray.inference.classifier import Classifier as Classifier


def __getattr__(name: str) -> Any:
    if name == "Classifier":
        from xlt_ray.inference.classifier import Classifier

        return Classifier
    raise AttributeError(f"module {__name__} has no attribute {name}")
