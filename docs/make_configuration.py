"""Writes configuration.md from the program's own parser. `tests/cli/test_config.py` fails where the two differ."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import click
from make_commands import cells

from hyperwatch.cli.main import program

__all__ = ["PAGE", "page"]

PAGE = Path(__file__).with_name("configuration.md")

_HEAD = """# Configuration

This page is made from the program itself by `docs/make_configuration.py`.

A setting is taken from the first of these that has it: the command line, the environment variable, the TOML file that
`hyperwatch --config FILE` (or `HYPERWATCH_CONFIG`) names, the default. A key at the top of the file holds for every command that has
the option; in a table `[COMMAND]` it holds for that one. What is misspelled in the file is an error; a variable that no option
has is not seen, and named where it is nearly one that is.

```toml
data-dir = "/var/lib/hl/data"

[run]
listen = "127.0.0.1:8000"
allow-origin = ["https://desk.example.com"]
```

`hyperwatch config` shows what is in force, and where each value comes from. It takes the options of `run`, refuses what
`run` would, and shows neither tokens nor passwords:

```sh
hyperwatch config
```

```text
--data-dir     /var/lib/hl/data  hyperwatch.toml
--listen       127.0.0.1:9000    HYPERWATCH_LISTEN
--workers      1                 default
```

Tokens have a variable and a file, and no option that holds one: `HYPERWATCH_TOKENS`, with blanks between, and `--tokens-file`.
See [security](security.md).
"""


def page() -> str:
    """The whole page."""
    used: defaultdict[tuple[str, ...], list[str]] = defaultdict(list)
    with click.Context(program, info_name="hyperwatch") as context:
        for name, command, inner in _walk(program, context):
            for option in command.params:
                if isinstance(option, click.Option):
                    option_, variable, default, meaning = cells(option, inner)
                    key = f"`{max(option.opts, key=len).removeprefix('--')}`" if variable else ""
                    used[option_, variable, key, default, meaning].append(f"`{name}`")
    rows = ["| option | variable | TOML key | default | meaning | commands |", "|---|---|---|---|---|---|"]
    for row, names in used.items():
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in (*row, ", ".join(names))) + " |")
    return "\n".join([_HEAD, *rows]) + "\n"


def _walk(group: click.Group, context: click.Context) -> list[tuple[str, click.Command, click.Context]]:
    """Every command, `run` first, with its name."""
    found = []
    for name in sorted(group.list_commands(context), key=lambda name: name != "run"):
        command = group.commands[name]
        inner = click.Context(command, info_name=name, parent=context)
        whole = inner.command_path.removeprefix("hyperwatch ")
        found += _walk(command, inner) if isinstance(command, click.Group) else [(whole, command, inner)]
    return found


if __name__ == "__main__":
    PAGE.write_text(page())
