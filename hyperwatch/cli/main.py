"""The program: its commands, its configuration file, and how it ends.

A setting comes from the first of: the command line, HYPERWATCH_<OPTION>, the TOML file, the default.
"""

from __future__ import annotations

import errno
import os
import sys
import tomllib
from collections.abc import Sequence
from datetime import date, time
from pathlib import Path
from typing import Any

import click

from hyperwatch import __version__
from hyperwatch.cli import config as config_command
from hyperwatch.cli import demo, gaps, healthcheck, replay, run, simulate, watch
from hyperwatch.cli.doctor.command import command as doctor
from hyperwatch.cli.paths import UserPath
from hyperwatch.errors import HyperwatchError, UsageError
from hyperwatch.runtime import logs

__all__ = ["main", "program"]

_DEADLY = "hl-node"
_INT_BITS = 64  # Python writes no number of any length
_REMEDIES = {
    errno.ENOSPC: "make room, or send it elsewhere",
    errno.EDQUOT: "make room, or send it elsewhere",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.ENFILE: "the whole system has no more open files: raise fs.file-max",
}


@click.group("hyperwatch", context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, message="%(version)s")
@click.option(
    "--config",
    metavar="FILE",
    type=UserPath(exists=True, dir_okay=False),
    envvar="HYPERWATCH_CONFIG",
    show_envvar=True,
    help="A TOML file of settings, named as the options are: at the top for every command, in [COMMAND] for one.",
)
@click.pass_context
def program(context: click.Context, config: Path | None) -> None:
    """A live, lossless WebSocket feed of a Hyperliquid node's order events."""
    if config is not None:
        context.default_map = _settings(config)


for _command in (
    run.command,
    replay.command,
    watch.command,
    simulate.command,
    demo.command,
    gaps.gaps,
    gaps.quarantine,
    healthcheck.command,
    doctor,
    config_command.command,
):
    program.add_command(_command)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs a command and ends the process: 0 done, 1 a fault, 2 bad input, 130 interrupted."""
    logs.own_process()
    try:
        code = _exit_code(arguments) or _last_output()
    finally:
        logs.flush()
    sys.exit(code)


def _exit_code(arguments: Sequence[str] | None) -> int:
    try:
        _refuse_deadly(sys.argv if arguments is None else arguments)
        code = program.main(arguments, standalone_mode=False)
    except (click.ClickException, click.Abort, HyperwatchError) as error:
        return _fail(error)
    except OSError as error:
        return _fail(_refused(error))
    except BaseExceptionGroup as group:
        if group.subgroup(KeyboardInterrupt) is not None:
            return _fail(click.Abort())  # it came before the service's own receiver was there
        known, other = group.split((HyperwatchError, OSError))
        if known is None or other is not None:
            raise
        return _fail(_first(known))
    return code if isinstance(code, int) else 0


def _last_output() -> int:
    """Writes what is left for standard output, and returns the exit code: Python would show a traceback, later."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # where Python's own last flush goes
        return 1 if isinstance(error, BrokenPipeError) else _fail(_refused(error))
    return 0


def _refused(error: Exception) -> HyperwatchError:
    """What the system has refused, an OSError, where nobody nearer to it had a better word."""
    where = getattr(error, "filename", None) or "a file, a connection or standard output"
    what = f"{where} cannot be used ({getattr(error, 'strerror', None) or error})"
    usual = f"see that it is there, and that uid {os.getuid()} may use it"
    return HyperwatchError(what, _REMEDIES.get(getattr(error, "errno", 0), usual))


def _refuse_deadly(arguments: Sequence[str]) -> None:
    """Raises UsageError where the node's supervisor might end this process for what its arguments say."""
    for argument in arguments:
        if _DEADLY in argument:
            what = f"the argument {argument!r} has {_DEADLY!r} in it, and the node's supervisor may end such a process"
            raise UsageError(what, "give it by its environment variable, HYPERWATCH_<OPTION>")


def _first(group: BaseExceptionGroup[Exception]) -> HyperwatchError:
    error = group.exceptions[0]
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error if isinstance(error, HyperwatchError) else _refused(error)


def _fail(error: click.ClickException | click.Abort | HyperwatchError) -> int:
    """Says in one line on standard error what was wrong, and returns the exit code for it."""
    code = 130 if isinstance(error, click.Abort) else error.exit_code
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        message = error.format_message()
    elif isinstance(error, click.UsageError):
        path = error.ctx.command_path if error.ctx else "hyperwatch"
        message = f"hyperwatch: {_line(error.format_message()).rstrip('.')}; see {path} --help"
    elif isinstance(error, click.ClickException):
        message = f"hyperwatch: {_line(error.format_message())}"
    else:
        message = f"hyperwatch: {_line(str(error)) or 'interrupted'}"
    logs.say(message)
    return code


def _line(text: str) -> str:
    return " ".join(text.split())


def _settings(path: Path) -> dict[str, Any]:
    """The default map, as click has it: for each command what the file says of it, and what it says of all.

    Raises:
        click.BadParameter: where the file is no TOML, or names an option that no command has.
    """
    try:
        document = tomllib.loads(path.read_text())
    except OSError as error:
        msg = f"{path} cannot be read ({error.strerror or error})"
        raise click.BadParameter(msg, param_hint="--config") from error
    except (ValueError, RecursionError) as error:  # ValueErrors are wrong TOML, wrong UTF-8, and numbers without end
        msg = f"{path} is no TOML ({error})"
        raise click.BadParameter(msg, param_hint="--config") from error
    shared = {key: value for key, value in document.items() if not isinstance(value, dict)}
    _refuse_unknown(path, document, {name: set(_options(command)) for name, command in program.commands.items()})
    return {name: _chosen(path, command, shared | document.get(name, {})) for name, command in program.commands.items()}


def _chosen(path: Path, command: click.Command, values: dict[str, Any]) -> dict[str, Any]:
    """What of these values a command has options for; of a group, what each of its commands has."""
    if isinstance(command, click.Group):
        return {name: _chosen(path, each, values) for name, each in command.commands.items()}
    names = _options(command)
    params = {str(param.name): param for param in command.params}
    found = {names[_word(key)]: (key, value) for key, value in values.items() if _word(key) in names}
    return {name: _typed(path, key, value, params[name]) for name, (key, value) in found.items()}


def _typed(path: Path, key: str, value: object, param: click.Parameter) -> object:
    """A value of the file as it would be typed: an option's type judges it then.

    Raises:
        click.BadParameter: where it is a table, or a list for an option that takes one value.
    """
    if isinstance(value, list) and isinstance(param, click.Option) and param.multiple:
        return [_typed(path, key, each, click.Argument([key])) for each in value]
    match value:
        case bool() if isinstance(param, click.Option) and param.is_flag:
            return value
        case str() | float():
            text = str(value)
        case int() if value.bit_length() <= _INT_BITS:
            text = str(value)
        case date() | time():
            text = value.isoformat()
        case _:
            msg = f"{path} sets {key!r} to what is no value for it; write a text or a number"
            raise click.BadParameter(msg, param_hint="--config")
    return [text] if isinstance(param, click.Option) and param.multiple else text


def _options(command: click.Command) -> dict[str, str]:
    """What click calls an option, by each word for it: the option's own (`coin` of `--coin`) and click's (`coins`)."""
    found = {str(param.name): str(param.name) for param in command.params}
    found |= {_word(name): str(param.name) for param in command.params for name in param.opts if name.startswith("--")}
    for each in command.commands.values() if isinstance(command, click.Group) else ():
        found |= _options(each)
    return found


def _word(key: str) -> str:
    return key.removeprefix("--").replace("-", "_")


def _refuse_unknown(path: Path, document: dict[str, Any], every: dict[str, set[str]]) -> None:
    anywhere = set().union(*every.values())
    for key, value in document.items():
        known = every.get(key) if isinstance(value, dict) else anywhere
        names = value if isinstance(value, dict) else [key]
        for name in names:
            if known is None or _word(name) not in known:
                msg = f"{path} sets {name!r}" + (f" in [{key}]" if isinstance(value, dict) else "") + ", no such option"
                raise click.BadParameter(msg, param_hint="--config")
