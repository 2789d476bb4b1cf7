"""Environment variables that look like settings and are none: nobody else would say so."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from difflib import get_close_matches

import click

from hyperwatch.server.tokens import VARIABLE

__all__ = ["TOKEN", "misspelled"]

TOKEN = "HYPERWATCH_TOKEN"  # noqa: S105  its name
"""What clients give a service that asks for a token. No option: anybody on the machine can read a process's arguments."""

_PREFIX = "HYPERWATCH_"


def misspelled(program: click.Command, names: Iterable[str]) -> Iterator[str]:
    """A sentence for each variable that is nearly one of the program's.

    Others may have the prefix for reasons of their own: Kubernetes sets some for every service.
    """
    known = {name.removeprefix(_PREFIX) for name in (*_variables(program), VARIABLE, TOKEN)}
    for name in sorted(names):
        word = name.removeprefix(_PREFIX)
        if word != name and word not in known and (near := get_close_matches(word, known, 1, 0.8)):
            yield f"{name} is no setting, and is not seen: did you mean {_PREFIX}{near[0]}?"


def _variables(command: click.Command) -> Iterator[str]:
    yield from (str(param.envvar) for param in command.params if param.envvar)
    if isinstance(command, click.Group):
        for each in command.commands.values():
            yield from _variables(each)
