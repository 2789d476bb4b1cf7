"""What several commands ask in the same words."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
import platformdirs

from hyperwatch.errors import UsageError
from hyperwatch.node.streams import Layout
from hyperwatch.runtime.logs import LEVELS

__all__ = [
    "DATA_DIR",
    "DETAILS",
    "LAYOUT",
    "NumberRange",
    "default_state_dir",
    "detail_options",
    "log_options",
    "option",
]

F = TypeVar("F", bound=Callable[..., object])

DATA_DIR = Path("~/hl/data")
LAYOUT = click.Choice([layout.label for layout in Layout])

DETAILS = {
    "min_notional": "minNotional",
    "min_px": "minPx",
    "max_px": "maxPx",
    "tif": "tifs",
    "order_type": "orderTypes",
    "oid": "oids",
    "cloid": "cloids",
    "builder": "builders",
}
"""What `detail_options` calls its parameters, and what `orders` calls the same."""


class _Phrase(click.types.StringParamType):
    """Text that may have blanks in it: several of them stand in the environment with commas between."""

    envvar_list_splitter = ","


class NumberRange(click.FloatRange):
    """A click.FloatRange of numbers: nan is none, and lies in every range."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:  # noqa: ANN401  click's own
        number = super().convert(value, param, ctx)
        if math.isnan(number):
            self.fail(f"{value!r} is no number", param, ctx)
        return number


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


def detail_options(command: F) -> F:
    """--min-notional and the other filters on what an order says of itself, by the names in DETAILS."""
    for each in reversed((
        option("--min-notional", metavar="DECIMAL", help="Only orders of at least so much: limit price times size."),
        option("--min-px", metavar="DECIMAL", help="Only orders with at least this limit price."),
        option("--max-px", metavar="DECIMAL", help="Only orders with at most this limit price."),
        option("--tif", multiple=True, metavar="TIF", help="Only these times in force, as Alo, Gtc, Ioc. Repeatable."),
        option("--order-type", multiple=True, metavar="TYPE", type=_Phrase(),
               help='Only these types, as "Stop Market". Repeatable; in the environment with commas between.'),
        option("--oid", multiple=True, metavar="OID", type=int, help="Only the orders of these ids. Repeatable."),
        option("--cloid", multiple=True, metavar="CLOID", help="Only the orders that clients call so. Repeatable."),
        option("--builder", multiple=True, metavar="ADDRESS", help="Only orders by these builders. Repeatable."),
    )):  # fmt: skip
        command = each(command)
    return command
