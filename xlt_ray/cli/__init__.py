"""The command line; :func:`main` is loaded when it is first asked for."""

from typing import Any


def __getattr__(name: str) -> Any:
    if name == "main":
        from xlt_ray.cli.app import main

        return main
    raise AttributeError(f"module {__name__} has no attribute {name}")
