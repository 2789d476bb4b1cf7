"""Where the head begins: at the newest complete line. Blocking I/O."""

from __future__ import annotations

from hyperwatch.log.cursor import Cursor, FilePlace
from hyperwatch.log.files import PlainFile, Tree
from hyperwatch.log.places import Places
from hyperwatch.node.events import Decoder
from hyperwatch.node.lines import LINE_BYTES

__all__ = ["at_head"]

_WINDOW_BYTES = 8 * 1024 * 1024  # three times the largest block measured (3,886 events of 603 bytes)


def at_head(tree: Tree) -> Cursor:
    """The cursor after the newest complete line, with that line's block and how many of its events lie before.

    Reads the last 8 MiB: in the streaming and plain layouts a place in a block is found by counting.

    Raises:
        OSError: from the files.
        DataError: where a directory cannot be read.
    """
    names = tree.names()[-2:]
    counted = Places(Cursor(tree.stream.directory(tree.layout)))
    places = []
    for name in names:
        source = PlainFile(tree.hourly / name)
        try:
            start, data = _last_lines(source)
            if name == names[-1] or source.idle_s() <= tree.grace_s:
                places.append(FilePlace(name, start + len(data)))
        finally:
            source.close()
        decoder = Decoder(tree.stream, tree.layout, start)
        decoder.feed(data)
        for run in decoder.runs:
            counted.place(run)
    return Cursor(tree.stream.directory(tree.layout), tuple(places), counted.block, counted.count)


def _last_lines(source: PlainFile) -> tuple[int, bytes]:
    """(offset, the whole lines from there to the last line's end), about _WINDOW_BYTES of them."""
    size = source.size_bytes()
    window = _WINDOW_BYTES
    while True:
        start = max(0, size - window)
        data = source.read(start, size - start)
        first = data.find(b"\n") + 1 if start else 0
        end = data.rfind(b"\n") + 1
        if end > first or not start or window > LINE_BYTES:
            return start + first, data[first:end]
        window *= 2
