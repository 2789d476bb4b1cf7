"""What several commands ask in the same words."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import click
import platformdirs

from hyperwatch.errors import UsageError
from hyperwatch.logs import LEVELS
from hyperwatch.node.streams import Layout

__all__ = ["DATA_DIR", "LAYOUT", "default_state_dir", "log_options", "option"]

F = TypeVar("F", bound=Callable[..., object])

DATA_DIR = Path("~/hl/data")
LAYOUT = click.Choice([layout.label for layout in Layout])


def default_state_dir() -> Path:
    """The user's.

    Raises:
        UsageError: where the user has no home, as a container's may not.
    """
    try:
        return platformdirs.user_state_path("hyperwatch")
    except RuntimeError as error:
        what = f"--state-dir is not given, and there is no home directory to keep state in ({error})"
        raise UsageError(what, "name a directory with --state-dir") from error


def option(*names: str, **settings: object) -> Callable[[F], F]:
    """A click option that shows its default and also reads HYPERWATCH_<OPTION>."""
    word = names[0].removeprefix("--").replace("-", "_").upper()
    settings = {"show_default": True, "show_envvar": True, "envvar": f"HYPERWATCH_{word}"} | settings
    return click.option(*names, **settings)  # type: ignore[arg-type]  # click types each setting on its own


def log_options(command: F) -> F:
    """--log-level and --log-format."""
    level = option("--log-level", type=click.Choice(LEVELS, case_sensitive=False), default="INFO", help="Least to log.")
    style = option("--log-format", type=click.Choice(["text", "json"]), default="text", help="How to log.")
    return level(style(command))
