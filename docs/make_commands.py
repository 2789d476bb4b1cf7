"""Writes commands.md from the program's own parser. `tests/promises/test_docs.py` fails where the two differ."""

from __future__ import annotations

import inspect
from pathlib import Path

import click

from hyperwatch.cli.main import program

__all__ = ["PAGE", "cells", "page"]

PAGE = Path(__file__).with_name("commands.md")

_HEAD = """# Commands

This page is made from the program itself by `docs/make_commands.py`.

A setting is taken from the first of these that has it: the command line, the environment variable, the TOML file that
`hyperwatch --config FILE` (or `HYPERWATCH_CONFIG`) names, the default. In the file, options have their names without the
dashes in front; at the top they hold for every command that has them, in a table `[COMMAND]` for that one:

```toml
log-level = "DEBUG"

[run]
listen = "127.0.0.1:9000"
```

A variable counts for every command that has the option: `HYPERWATCH_LISTEN` is read by `run`, `replay` and `demo`. An option that
may be repeated takes several values from its variable with blanks between, and a list from the file.

## Exit codes

| code | means |
|---|---|
| 0 | done; of `run`, an orderly end by a signal |
| 1 | a fault, such as a connection that broke. `doctor` and `healthcheck`: not good |
| 2 | bad input: one line on standard error names the option, the value and the remedy |
| 3 | the node writes a format that this version cannot read |
| 70 | a thread did not return, and the process ended itself so that its supervisor starts it again |
| 130 | interrupted by SIGINT (`replay`: by SIGTERM too, `run`: by a second one) |
| 143 | ended by SIGTERM (`watch`, `demo`, and `run` by a second one) |
"""


def page() -> str:
    """The whole page."""
    with click.Context(program, info_name="hyperwatch") as context:
        return "\n".join([_HEAD, *_section(program, context), *_sections(program, context)]) + "\n"


def _sections(group: click.Group, context: click.Context) -> list[str]:
    sections = []
    for name in group.list_commands(context):
        command = group.commands[name]
        with click.Context(command, info_name=name, parent=context) as inner:
            sections += _section(command, inner)
            if isinstance(command, click.Group):
                sections += _sections(command, inner)
    return sections


def _section(command: click.Command, context: click.Context) -> list[str]:
    usage = " ".join(context.get_usage().removeprefix("Usage:").split())
    parts = [f"## {context.command_path}", "", inspect.cleandoc(command.help or ""), "", f"```text\n{usage}\n```", ""]
    options = [each for each in command.params if isinstance(each, click.Option)]
    if options:
        parts += ["| option | variable | default | meaning |", "|---|---|---|---|"]
        parts += [_row(option, context) for option in options]
        parts += [""]
    return parts


def cells(option: click.Option, context: click.Context) -> tuple[str, str, str, str]:
    """(option, variable, default, meaning)."""
    default = option.show_default if isinstance(option.show_default, str) else option.get_default(context, call=False)
    plain = str(default).replace(str(Path.home()), "~") if default not in (None, False, (), "") else ""
    if "Sentinel" in plain or "UNSET" in plain:
        plain = ""
    metavar = "" if option.is_flag else f" {option.make_metavar(context)}"
    variable = f"`{option.envvar}`" if option.envvar else ""
    meaning = " ".join([*(option.help or "").split(), *_range(option)])
    return f"`{option.opts[0]}{metavar}`", variable, plain, meaning


def _row(option: click.Option, context: click.Context) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells(option, context)) + " |"


def _range(option: click.Option) -> list[str]:
    """What a number may be."""
    kind = option.type
    if not isinstance(kind, click.IntRange | click.FloatRange) or kind.min is None:
        return []
    return [f"From {kind.min:,} to {kind.max:,}." if kind.max is not None else f"At least {kind.min:,}."]


if __name__ == "__main__":
    PAGE.write_text(page())
