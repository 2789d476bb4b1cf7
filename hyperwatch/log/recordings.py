"""Finding recorded files: what each holds, which of them make one recording, and in which order. Blocking I/O.

A path may be a file, a node's data directory, one stream's directory, `hourly`, a day, or any folder of files. Where a
directory's name tells stream and layout it is believed; everything else is told by its first lines.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import attrs
from loguru import logger

from hyperwatch.errors import DataError
from hyperwatch.log.compressed import open_source
from hyperwatch.log.files import OversizedLineError, Recording, Tree, find_trees, read_lines
from hyperwatch.node.events import Decoder
from hyperwatch.node.streams import ORDERS, STREAMS, Layout, Stream, hour_name, hour_rank, sniff

__all__ = ["find_recording", "find_tree", "hour_of"]

_PACKED = (".gz", ".lz4", ".zst")
_TEXT = (".jsonl", ".json")
_DIRECTORIES = {stream.directory(layout): (stream, layout) for stream in STREAMS.values() for layout in Layout}
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
_QUIET_BYTES = 64 * 1024 * 1024  # of blocks without events before a file's stream is given up: ten quiet hours


@attrs.frozen
class _Found:
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


def find_recording(paths: Sequence[Path], stream: Stream | None = None, layout: Layout | None = None) -> Recording:
    """The files under `paths` of one stream in one layout, in time order.

    What is left out is said in the log: another stream or layout, and an hour that is there twice.

    Args:
        paths: files and directories.
        stream: which stream; by default order statuses, else the only one there is. Files that do not tell are of it.
        layout: which layout; by default the one with the newest data.

    Raises:
        DataError: where a path is missing, unreadable or no node output, or nothing is found that was asked for.
    """
    found = list(_unique(file for path in paths for file in _scan(path)))
    if not found:
        what = f"no node output in {', '.join(map(str, paths))}"
        raise DataError(what, "give a recorded file, or a directory that holds node_order_statuses or hour files")
    stream = _choose_stream(found, stream)
    chosen = [file for file in found if file.stream in (stream, None)]
    layout = _choose_layout(chosen, stream, layout)
    chosen = _each_hour_once([file for file in chosen if file.layout is layout])
    return Recording([file.path for file in _in_order(chosen, stream)], stream, layout)


def find_tree(path: Path, stream: Stream | None = None, layout: Layout | None = None) -> Tree:
    """The files that a node is writing in a data directory, in one stream's directory or in its `hourly`.

    Raises:
        DataError: where there is none, or several streams and none is order statuses.
    """
    top = Path(os.path.abspath(path))  # noqa: PTH100  resolve() would follow links, and names are what counts
    if top.name == "hourly":
        top = top.parent
    if top.name in _DIRECTORIES:
        own_stream, own_layout = _DIRECTORIES[top.name]
        stream, layout, top = stream or own_stream, layout or own_layout, top.parent
    there = [tree for each in STREAMS.values() for tree in find_trees(top, each)]
    names = {tree.stream.name for tree in there}
    stream = stream or _default_stream(names, path)
    trees = [tree for tree in there if tree.stream is stream and layout in (tree.layout, None)]
    if not trees:
        wanted = stream.name if layout is None else stream.directory(layout)
        raise _not_there(path, wanted, [tree.stream.directory(tree.layout) for tree in there])
    return max(trees, key=_newest_ns)


def hour_of(path: Path) -> str | None:
    """`20260505/17` for a file called so, also with an ending such as `.lz4`; else None."""
    stem = path.name
    for suffix in (*_PACKED, *_TEXT):
        stem = stem.removesuffix(suffix)
    return hour_name(path.parent.name, stem)


# What is there.


def _scan(path: Path) -> Iterator[_Found]:
    try:
        if path.is_dir():
            for file in _files(path):
                if found := _in_directory(file):
                    yield found
        else:
            yield _given(path)
    except OSError as error:
        what = f"{error.filename or path} cannot be read ({error.strerror or error})"
        raise DataError(what, "give a path that this user can read") from error


def _files(top: Path) -> Iterator[Path]:
    """Every regular file below a directory, in the order of names. Links are followed, each directory once."""
    seen: set[str] = set()

    def fail(error: OSError) -> None:
        raise error  # an hour that is missing without a word would look like an hour without events

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


def _in_directory(path: Path) -> _Found | None:
    own = Path(os.path.abspath(path))  # noqa: PTH100
    named, hour = _named(own), hour_of(own)
    if named and hour:
        return _Found(path, *named, hour, named=True)
    told = None
    try:
        if not (named and own.parent.parent.name == "hourly"):  # there `17.part` is a copy, not an hour
            told = _identify(path)
    except DataError as error:
        logger.warning("passed over: {}", error)
        return None
    if told is None:
        logger.debug("passed over: {} is no node output", path)
        return None
    return _Found(path, *(named or told), hour, named=False)


def _given(path: Path) -> _Found:
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
    return _Found(path, *(named or told), hour, named=bool(named and hour))


def _named(path: Path) -> tuple[Stream, Layout] | None:
    return next((_DIRECTORIES[parent.name] for parent in path.parents if parent.name in _DIRECTORIES), None)


def _identify(path: Path) -> tuple[Stream | None, Layout] | None:
    """What the first lines say; those that cannot be read say nothing. Raises OSError, DataError."""
    told = None
    for lines in _blocks(path):
        known = sniff([line for line in lines if sniff([line])])
        told = told or known
        if known is None or known[0]:
            return known or told
    return told


def _blocks(path: Path) -> Iterator[list[bytes]]:
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


def _unique(files: Iterable[_Found]) -> Iterator[_Found]:
    seen = set()
    for file in files:
        real = os.path.realpath(file.path)
        if real not in seen:
            seen.add(real)
            yield file


# Which of it.


def _choose_stream(found: list[_Found], stream: Stream | None) -> Stream:
    names = {file.stream.name for file in found if file.stream}
    untold = [file for file in found if file.stream is None]
    if stream is None:
        if not names:
            what = f"{untold[0].path} holds no event that would tell its stream"
            raise DataError(what, f"name it with --stream ({', '.join(STREAMS)})")
        stream = _default_stream(names, found[0].path.parent)
    elif stream.name not in names and not untold:
        raise _not_there(found[0].path.parent, stream.name, names)
    for name in sorted(names - {stream.name}):
        count = sum(file.stream is STREAMS[name] for file in found)
        logger.info("not read: {} files of {}; --stream {} reads them", count, name, name)
    return stream


def _default_stream(names: set[str], where: Path) -> Stream:
    if not names:
        raise _not_there(where, ORDERS.name, [])
    if ORDERS.name in names:
        return ORDERS
    if len(names) > 1:
        what = f"{where} holds {' and '.join(sorted(names))}"
        raise DataError(what, "choose one with --stream")
    return STREAMS[names.pop()]


def _choose_layout(files: list[_Found], stream: Stream, layout: Layout | None) -> Layout:
    there = {file.layout for file in files}
    if layout is None:
        layout = max(there, key=lambda each: max(_mtime_ns(file.path) for file in files if file.layout is each))
    elif layout not in there:
        raise _not_there(files[0].path.parent, f"{layout.label} {stream.name}", [each.label for each in there])
    for other in sorted(there - {layout}, key=lambda each: each.label):
        count = sum(file.layout is other for file in files)
        logger.warning("not read: {} files of the layout {}; --layout {} reads them", count, other.label, other.label)
    return layout


def _each_hour_once(files: list[_Found]) -> list[_Found]:
    """A node's own hour files are whole hours, wherever they lie; others only stand for each other in one folder."""
    hours: dict[object, _Found] = {}
    for number, file in enumerate(files):
        key: object = (None if file.named else file.path.parent, file.hour) if file.hour else number
        known = hours.setdefault(key, file)
        if known is not file:
            kept, dropped = (file, known) if known.packed and not file.packed else (known, file)
            hours[key] = kept
            logger.warning("hour {} is there twice: {} is read, {} is not", file.hour, kept.path, dropped.path)
    return list(hours.values())


def _in_order(files: list[_Found], stream: Stream) -> list[_Found]:
    if all(file.hour for file in files):
        return sorted(files, key=lambda file: hour_rank(file.hour or ""))
    if len(files) == 1:
        return files
    times = [_first_ms(file, stream) for file in files]
    if None in times:
        logger.warning("not every file says when it begins: they are read in the order given")
        return files
    return [file for _, file in sorted(zip(times, files, strict=True), key=lambda pair: pair[0] or 0)]


def _first_ms(file: _Found, stream: Stream) -> int | None:
    """The time of the first line that can be read, UTC ms; None where there is none. Raises DataError."""
    try:
        for lines in _blocks(file.path):
            decoder = Decoder(stream, file.layout, 0)
            decoder.feed(b"".join(line + b"\n" for line in lines))
            if decoder.runs:
                return decoder.runs[0].time_ms
    except OSError as error:
        what = f"{file.path} cannot be read ({error.strerror or error})"
        raise DataError(what, "let this user read it, or leave it out") from error
    return None


def _mtime_ns(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def _newest_ns(tree: Tree) -> int:
    return max((_mtime_ns(tree.hourly / name) for name in tree.names()[-1:]), default=0)


def _not_there(where: Path, wanted: str, there: Iterable[str]) -> DataError:
    names = ", ".join(sorted(there))
    remedy = f"what is there: {names}" if names else "give a node's data directory or a recorded file"
    return DataError(f"{where} holds no {wanted}", remedy)
