"""The command line `xlt-ray`; :func:`main` is imported on first use."""

from typing import Any


def __getattr__(name: str) -> Any:
    if name == "main":
        from xlt_ray.cli.app import main

        return main
    raise AttributeError(f"module {__name__} has no attribute {name}")
