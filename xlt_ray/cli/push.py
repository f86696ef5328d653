"""`xlt-ray push`: send a model to the Hugging Face hub."""

from __future__ import annotations

from typing import Annotated

import typer

from xlt_ray.cli import flags


def push(
    model: flags.FineTuned,
    repo: Annotated[str, typer.Option(metavar="OWNER/NAME", help="The repository on the hub.")],
    public: Annotated[
        bool, typer.Option("--public", help="Make a new repository public; default: private.")
    ] = False,
) -> None:
    """Send a model with its card to the Hugging Face hub.

    The hub's token comes from `hf auth login` or HF_TOKEN. A repository that exists gets a new
    commit and stays as visible as it is.
    """
    from xlt_ray.inference.push import push_model

    print(push_model(model, repo, public))
