"""Which files there are below a path, and what each of them holds. Blocking I/O.

Where a directory's name tells stream and layout it is believed; everything else is told by its first lines.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import attrs
from loguru import logger

from hyperwatch.errors import DataError
from hyperwatch.log.compressed import open_source
from hyperwatch.log.files import OversizedLineError, read_lines
from hyperwatch.node.streams import STREAMS, Layout, Stream, hour_name, sniff

__all__ = ["DIRECTORIES", "Found", "first_blocks", "hour_of", "scan"]

_PACKED = (".gz", ".lz4", ".zst")
_TEXT = (".jsonl", ".json")
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

    @property
    def packed(self) -> bool:
        return self.path.name.endswith(_PACKED)


def scan(path: Path) -> Iterator[Found]:
    """The node's files at or below a path, in the order of names; what is none is passed over. Raises DataError."""
    try:
        if path.is_dir():
            left: list[str] = []
            for file in _files(path):
                found = _in_directory(file)
                if isinstance(found, Found):
                    yield found
                else:
                    left.append(f"{file} ({found})")
            if left:
                more = f", and {len(left) - _LEFT_SAID} more" if len(left) > _LEFT_SAID else ""
                logger.warning("{} files in {} are left out: {}{}", len(left), path, "; ".join(left[:_LEFT_SAID]), more)
        else:
            yield _given(path)
    except OSError as error:
        what = f"{error.filename or path} cannot be read ({error.strerror or error})"
        raise DataError(what, "give a path that this user can read") from error


def _files(top: Path) -> Iterator[Path]:
    """Every regular file below a directory, in the order of names. Links are followed, each directory once."""
    seen: set[str] = set()

    def fail(error: OSError) -> None:
        # An hour that is missing without a word would look like an hour without events.
        where = Path(os.path.abspath(error.filename))  # noqa: PTH100  names are what counts
        if where == Path(os.path.abspath(top)) or _may_hold_hours(where):  # noqa: PTH100  as above
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
            if path.is_file():  # opening a FIFO could wait for ever
                yield path


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
        return Found(path, *named, hour, named=True)
    if named and own.parent.parent.name == "hourly":
        return "not called by an hour"  # `17.part` is a copy
    try:
        told = _identify(path)
    except DataError as error:
        return error.what
    if told is None:
        return "no node output"
    return Found(path, *(named or told), hour, named=False)


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
    return Found(path, *(named or told), hour, named=bool(named and hour))


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
    stem = path.name
    for suffix in (*_PACKED, *_TEXT):
        stem = stem.removesuffix(suffix)
    if (both := _BOTH.fullmatch(stem)) is not None:
        return hour_name("".join(both.groups()[:3]), str(int(both[4])))
    places = [(path.parent.name, stem), (path.parent.parent.name, path.parent.name)]
    for day, hour in places:
        days, hours = _DAY.fullmatch(day), _HOUR.fullmatch(hour)
        if days is not None and hours is not None and (hour.startswith("hour=") or (day, hour) == places[0]):
            return hour_name("".join(days.groups()), str(int(hours[1])))
    return None


_DAY = re.compile(r"(?:date=|day=|dt=)?(\d{4})-?(\d\d)-?(\d\d)")
_HOUR = re.compile(r"(?:hour=|h=)?(\d{1,2})")
_BOTH = re.compile(r"(\d{4})-?(\d\d)-?(\d\d)[T_.-]?(\d\d)")
