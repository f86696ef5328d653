"""Assembles the commands of `xlt-ray`; the console script and `launch.py` call :func:`main`."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperGroup

from xlt_ray.cli.command_line import run_command_line
from xlt_ray.cli.evaluate import evaluate
from xlt_ray.cli.export import export
from xlt_ray.cli.predict import predict
from xlt_ray.cli.push import push
from xlt_ray.cli.report import report
from xlt_ray.cli.search import search
from xlt_ray.cli.train import train
from xlt_ray.cli.ui import ui
from xlt_ray.errors import UserError, brief, nearest

_COMMANDS = """Commands, each with its own --help:

xlt-ray search: run a search; the default, so the word may be left out

xlt-ray train: run one configuration with one or several seeds

xlt-ray evaluate: score a model on a task in every language

xlt-ray predict: classify the texts of a file

xlt-ray export: write a model as ONNX

xlt-ray push: send a model to the Hugging Face hub

xlt-ray report: write the report of a search again

xlt-ray ui: open MLflow's pages for the recorded searches"""


class _SearchByDefault(TyperGroup):
    """Runs `search` where the command line starts with a flag or is empty."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args or not args[0] or args[0].startswith("-"):
            args = ["search", *args]
        return super().parse_args(ctx, args)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args[0] not in self.commands:
            raise UserError(f"no command '{brief(args[0])}'{nearest(args[0], self.commands)}")
        return super().resolve_command(ctx, args)


app = typer.Typer(cls=_SearchByDefault, add_completion=False, pretty_exceptions_enable=False)
app.command(epilog=_COMMANDS)(search)
app.command()(train)
app.command()(evaluate)
app.command()(predict)
app.command()(export)
app.command()(push)
app.command()(report)
app.command()(ui)


def main() -> None:
    """Run the command line: a command with its flags, or the flags of `search`."""
    run_command_line(app)
