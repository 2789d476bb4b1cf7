"""Finding recorded files: which of them make one recording, and in which order. Blocking I/O.

A path may be a file, a node's data directory, one stream's directory, `hourly`, a day, or any folder of files.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from loguru import logger

from hyperwatch.errors import DataError
from hyperwatch.log.identify import DIRECTORIES, Found, first_blocks, name_unserved, scan
from hyperwatch.log.tree import Recording, Tree, find_trees
from hyperwatch.node.decoder import Decoder
from hyperwatch.node.streams import ORDERS, STREAMS, Layout, Stream, hour_rank

__all__ = ["find_recording", "find_tree"]


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
    found = list(_unique(file for path in paths for file in scan(path)))
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
    if top.name in DIRECTORIES:
        own_stream, own_layout = DIRECTORIES[top.name]
        stream, layout, top = stream or own_stream, layout or own_layout, top.parent
    there = [tree for each in STREAMS.values() for tree in find_trees(top, each)]
    names = {tree.stream.name for tree in there}
    stream = stream or _default_stream(names, path)
    trees = [tree for tree in there if tree.stream is stream and layout in (tree.layout, None)]
    if not trees:
        wanted = stream.name if layout is None else stream.directory(layout)
        raise _not_there(path, wanted, [tree.stream.directory(tree.layout) for tree in there])
    tree = max(trees, key=_newest_ns)
    name_unserved(tree)
    return tree


def _unique(files: Iterable[Found]) -> Iterator[Found]:
    seen = set()
    for file in files:
        real = os.path.realpath(file.path)
        if real not in seen:
            seen.add(real)
            yield file


def _choose_stream(found: list[Found], stream: Stream | None) -> Stream:
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


def _choose_layout(files: list[Found], stream: Stream, layout: Layout | None) -> Layout:
    there = {file.layout for file in files}
    if layout is None:
        layout = max(there, key=lambda each: max(_mtime_ns(file.path) for file in files if file.layout is each))
    elif layout not in there:
        raise _not_there(files[0].path.parent, f"{layout.label} {stream.name}", [each.label for each in there])
    for other in sorted(there - {layout}, key=lambda each: each.label):
        count = sum(file.layout is other for file in files)
        logger.warning("not read: {} files of the layout {}; --layout {} reads them", count, other.label, other.label)
    return layout


def _each_hour_once(files: list[Found]) -> list[Found]:
    """A node's own hour files are whole hours, wherever they lie; others only stand for each other in one folder."""
    hours: dict[object, Found] = {}
    for number, file in enumerate(files):
        key: object = (None if file.named else file.path.parent, file.hour, file.part) if file.hour else number
        known = hours.setdefault(key, file)
        if known is not file:
            kept, dropped = (file, known) if known.packed and not file.packed else (known, file)
            hours[key] = kept
            logger.warning("hour {} is there twice: {} is read, {} is not", file.hour, kept.path, dropped.path)
    return list(hours.values())


def _in_order(files: list[Found], stream: Stream) -> list[Found]:
    if all(file.hour for file in files):
        return sorted(files, key=lambda file: (hour_rank(file.hour or ""), _part_ms(file, stream)))
    if len(files) == 1:
        return files
    times = [_first_ms(file, stream) for file in files]
    if None in times:
        logger.warning("not every file says when it begins: they are read in the order given")
        return files
    return [file for _, file in sorted(zip(times, files, strict=True), key=lambda pair: pair[0] or 0)]


def _part_ms(file: Found, stream: Stream) -> int:
    """What orders the parts of an hour: `part-10` does not sort behind `part-2`. Raises DataError."""
    return (_first_ms(file, stream) or 0) if file.part else 0


def _first_ms(file: Found, stream: Stream) -> int | None:
    """The time of the first line that can be read, UTC ms; None where there is none. Raises DataError."""
    try:
        for lines in first_blocks(file.path):
            decoder = Decoder(stream, file.layout, 0)
            decoder.feed(b"".join(line + b"\n" for line in lines))
            if decoder.slices:
                return decoder.slices[0].time_ms
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
