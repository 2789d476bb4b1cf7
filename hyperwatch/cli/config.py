"""`hyperwatch config`: the settings that are in force, and where each came from."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

import click
from click.core import ParameterSource

from hyperwatch.cli import run
from hyperwatch.cli.environment import misspelled
from hyperwatch.server.tokens import VARIABLE

__all__ = ["command"]

_STARS = "****"


@click.command("config", context_settings={"ignore_unknown_options": True})
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def command(context: click.Context, options: tuple[str, ...]) -> None:
    """Show the settings that `hyperwatch run` would have here, and where each comes from.

    Takes the options of `run`, and refuses what `run` would. Tokens and passwords are not shown.
    """
    with run.command.make_context("run", list(options), parent=context.parent) as inner:
        run.configured(inner.params)  # what it would refuse is refused here
        rows = [*_rows(inner), _tokens()]
    names, values = (max(len(row[column]) for row in rows) for column in (0, 1))
    for name, value, source in rows:
        click.echo(f"{name:{names}}  {value:{values}}  {source}")
    for stranger in misspelled(context.find_root().command, os.environ):
        click.echo(stranger, err=True)


def _rows(context: click.Context) -> Iterator[tuple[str, str, str]]:
    for option in context.command.params:
        if isinstance(option, click.Option) and option.name is not None and option.expose_value:
            yield option.opts[0], _shown(option, context.params[option.name]), _source(option, context)


def _shown(option: click.Option, value: object) -> str:
    if value in (None, (), ""):
        unset = option.show_default if isinstance(option.show_default, str) and value != "" else "none"
        return f"({unset})"
    if isinstance(value, tuple):
        return " ".join(map(str, value))
    return re.sub(r"//[^/@]*@", f"//{_STARS}@", str(value))


def _source(option: click.Option, context: click.Context) -> str:
    match context.get_parameter_source(str(option.name)):
        case ParameterSource.COMMANDLINE:
            return "the command line"
        case ParameterSource.ENVIRONMENT:
            return str(option.envvar)
        case ParameterSource.DEFAULT_MAP:
            return str(context.find_root().params["config"])
        case _ if callable(option.default) and os.environ.get(str(option.envvar)) == "":
            return str(option.envvar)  # set, and empty on purpose
        case _:
            return "default"


def _tokens() -> tuple[str, str, str]:
    """Tokens have no option: arguments are there for everybody to see."""
    found = os.environ.get(VARIABLE)
    if found is None:
        return VARIABLE, "(none)", "default"
    return VARIABLE, " ".join(_STARS for _ in found.split()), VARIABLE
