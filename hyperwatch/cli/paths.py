"""Paths that people name: with the home directory that ~ stands for, as far as there is one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

__all__ = ["UserPath"]


class UserPath(click.Path):
    """A click.Path that makes pathlib's, expands ~, and refuses what no system has for a path.

    Args:
        settings: as click.Path has them.
    """

    def __init__(self, **settings: Any) -> None:  # noqa: ANN401  click's own
        super().__init__(path_type=Path, **settings)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:  # noqa: ANN401  as above
        if not isinstance(value, (str, os.PathLike)):
            self.fail(f"{value!r} is no path; write it as text", param, ctx)
        if "\0" in str(value):
            self.fail(f"{str(value)!r} has a zero byte in it, which no path has", param, ctx)
        try:
            path = Path(value).expanduser()
        except RuntimeError:
            self.fail(f"{str(value)!r}: there is no home directory for its ~; write the whole path", param, ctx)
        return super().convert(path, param, ctx)
