"""Which files there are below a path, and what each of them holds. Blocking I/O.

Where a directory's name tells stream and layout it is believed; everything else is told by its first lines.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

import attrs
from loguru import logger

from hyperwatch.errors import DataError
from hyperwatch.log.packed_file import open_source
from hyperwatch.log.tree import OversizedLineError, Tree, read_lines
from hyperwatch.node.streams import STREAMS, Layout, Stream, hour_name, sniff

__all__ = ["DIRECTORIES", "Found", "first_blocks", "hour_of", "name_unserved", "scan"]

_PACKED = (".gz", ".lz4", ".zst", ".zstd")
_TEXT = (".jsonl", ".json", ".ndjson", ".log", ".txt")
DIRECTORIES = {stream.directory(layout): (stream, layout) for stream in STREAMS.values() for layout in Layout}
# What else a node writes: nothing of it is read, and a state of 1 GB is not even opened.
_FOREIGN = {"replica_cmds", "periodic_abci_states", "mempool_txs"} | {
    name + layout.value
    for name in (
        "node_trades",
        "node_twap_statuses",
        "hip3_oracle_updates",
        "misc_events",
        "system_and_core_writer_actions",
    )
    for layout in Layout
}
_SAMPLE_BYTES = 256 * 1024
_LEFT_SAID = 5  # files that are left out, by name
_QUIET_BYTES = 64 * 1024 * 1024  # of blocks without events before a file's stream is given up: ten quiet hours


@attrs.frozen
class Found:
    """A recorded file and what it holds."""

    path: Path
    stream: Stream | None
    """None where nothing tells: by-block files without any event."""
    layout: Layout
    hour: str | None
    """`20260505/17`, where it is called so."""
    named: bool
    """Whether it is known by its directory's name to be a node's own hour file."""
    part: str
    """Which part of the hour, where that is a directory; else ""."""

    @property
    def packed(self) -> bool:
        return self.path.name.endswith(_PACKED)


def scan(path: Path) -> Iterator[Found]:
    """The node's files at or below a path, in the order of names; what is none is passed over. Raises DataError."""
    try:
        if path.is_dir():
            left, first_left = 0, list[str]()
            for file, odd in _files(path):
                found = odd or _in_directory(file)
                if isinstance(found, Found):
                    yield found
                else:
                    left += 1
                    if left <= _LEFT_SAID:
                        first_left.append(f"{file} ({found})")
            if left:
                more = f", and {left - _LEFT_SAID} more" if left > _LEFT_SAID else ""
                logger.warning("{} files in {} are left out: {}{}", left, path, "; ".join(first_left), more)
        else:
            yield _given(path)
    except OSError as error:
        what = f"{error.filename or path} cannot be read ({error.strerror or error})"
        raise DataError(what, "give a path that this user can read") from error


def _files(top: Path) -> Iterator[tuple[Path, str | None]]:
    """Every file below a directory, in the order of names, and why it is none that can be read, where it is not.

    Links are followed, each directory once.
    """
    seen: set[str] = set()

    def fail(error: OSError) -> None:
        # An hour that is missing without a word would look like an hour without events.
        where = Path(os.path.abspath(error.filename))  # noqa: PTH100  names are what counts
        pruned = isinstance(error, FileNotFoundError)
        if where == Path(os.path.abspath(top)) or (_may_hold_hours(where) and not pruned):  # noqa: PTH100  as above
            raise error
        logger.warning("passed over: the directory {} cannot be listed ({})", where, error.strerror or error)

    for folder, folders, names in os.walk(top, onerror=fail, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(set(folders) - _FOREIGN)
        for name in sorted(names):
            path = Path(folder, name)
            yield path, _odd(path)


def _odd(path: Path) -> str | None:
    """Why a name in a directory is none of a file that can be read; None where it is. Raises OSError."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return "a link to nowhere" if path.is_symlink() else "removed meanwhile"
    except PermissionError:
        if _may_hold_hours(Path(os.path.abspath(path.parent))):  # noqa: PTH100  names are what counts
            raise
        return "in a directory that may not be entered"
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        return "a link to itself"
    return None if stat.S_ISREG(mode) else "not a regular file"  # opening a FIFO could wait for ever


def _may_hold_hours(directory: Path) -> bool:
    """Whether a directory is called as one is in which hour files lie, or lies in a stream's."""
    return (
        _named(directory / "file") is not None
        or "hourly" in directory.parts
        or _DAY.fullmatch(directory.name) is not None
    )


def _in_directory(path: Path) -> Found | str:
    """What a file of a tree is; where it is left out, why."""
    own = Path(os.path.abspath(path))  # noqa: PTH100
    named, hour = _named(own), hour_of(own)
    if named and hour:
        return Found(path, *named, hour, named=True, part=_part_of(own))
    if named and own.parent.parent.name == "hourly":
        return "not called by an hour"  # `17.part` is a copy
    try:
        told = _identify(path)
    except DataError as error:
        return error.what
    if told is None:
        return "no node output"
    return Found(path, *(named or told), hour, named=False, part=_part_of(own))


def _given(path: Path) -> Found:
    remedy = "give a recorded file of a node, plain, .gz, .lz4 or .zst, or a directory of them"
    if not path.is_file():
        raise DataError(f"{path} is not a regular file" if path.exists() else f"{path} does not exist", remedy)
    own = Path(os.path.abspath(path))  # noqa: PTH100
    told = _identify(path)
    if told is None:
        source = open_source(path)
        empty = not source.read(0, 1)
        source.close()
        raise DataError(f"{path} is empty" if empty else f"{path} is no output of a node that is known", remedy)
    named, hour = _named(own), hour_of(own)
    return Found(path, *(named or told), hour, named=bool(named and hour), part=_part_of(own))


def _named(path: Path) -> tuple[Stream, Layout] | None:
    return next((DIRECTORIES[parent.name] for parent in path.parents if parent.name in DIRECTORIES), None)


def _identify(path: Path) -> tuple[Stream | None, Layout] | None:
    """What the first lines say; those that cannot be read say nothing. Raises OSError, DataError."""
    told = None
    for lines in first_blocks(path):
        known = sniff([line for line in lines if sniff([line])])
        told = told or known
        if known is None or known[0]:
            return known or told
    return told


def first_blocks(path: Path) -> Iterator[list[bytes]]:
    """A file's lines, about 256 KiB at a time, up to _QUIET_BYTES. Raises OSError, DataError."""
    source = open_source(path)
    try:
        offset = 0
        while offset < _QUIET_BYTES and (data := read_lines(source, offset, _SAMPLE_BYTES)):
            yield data.split(b"\n")[:-1]
            offset += len(data)
    except OversizedLineError:
        return  # one document of 64 MiB: a snapshot, say
    finally:
        source.close()


def hour_of(path: Path) -> str | None:
    """`20260505/17` for a file that is called by a day and an hour in any way that people call them; else None.

    As a node does, with zeros before (`20260505/09`), with endings (`.jsonl.zst`), with dashes (`2026-05-05/9`), as keys
    (`date=2026-05-05/hour=09/part-0.jsonl`), or with both in the file's name (`2026-05-05T09.lz4`).
    """
    stem = _stem(path)
    if (both := _BOTH.fullmatch(stem)) is not None:
        return hour_name("".join(both.groups()[:3]), str(int(both[4])))
    places = [(path.parent.name, stem), (path.parent.parent.name, path.parent.name)]
    for day, hour in places:
        days, hours = _DAY.fullmatch(day), _HOUR.fullmatch(hour)
        if days is not None and hours is not None and (hour.startswith("hour=") or (day, hour) == places[0]):
            return hour_name("".join(days.groups()), str(int(hours[1])))
    return None


def _part_of(path: Path) -> str:
    return _stem(path) if path.parent.name.startswith("hour=") else ""


def _stem(path: Path) -> str:
    stem = path.name
    for suffix in (*_PACKED, *_TEXT):
        stem = stem.removesuffix(suffix)
    return stem


def name_unserved(tree: Tree) -> None:
    """Says in the log, for who follows a live tree, which of its hour files have names that no node gives them."""
    other = [
        f"{day}/{hour}"
        for day in _names_in(tree.hourly)
        for hour in _names_in(tree.hourly / day)
        if hour_of(tree.hourly / day / hour) and not hour_name(day, hour)
    ]
    if other:
        more = ", ..." if len(other) > _LEFT_SAID else ""
        logger.warning(
            "{} hour files in {} are called as no node calls them ({}{}): they are not served; hyperwatch replay reads them",
            len(other), tree.hourly, ", ".join(other[:_LEFT_SAID]), more,
        )  # fmt: skip


def _names_in(directory: Path) -> list[str]:
    try:
        return sorted(os.listdir(directory))  # noqa: PTH208  names are all that is wanted
    except OSError:
        return []  # what cannot be listed is said by who reads there


_DAY = re.compile(r"(?:date=|day=|dt=)?(\d{4})-?(\d\d)-?(\d\d)")
_HOUR = re.compile(r"(?:hour=|h=)?(\d{1,2})")
_BOTH = re.compile(r"(\d{4})-?(\d\d)-?(\d\d)[T_.-]?(\d\d)")
