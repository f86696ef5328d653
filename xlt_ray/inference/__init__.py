"""Trained models at work; :class:`Classifier` is loaded when it is first asked for."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xlt_ray.inference.classifier import Classifier as Classifier


def __getattr__(name: str) -> Any:
    if name == "Classifier":
        from xlt_ray.inference.classifier import Classifier

        return Classifier
    raise AttributeError(f"module {__name__} has no attribute {name}")
