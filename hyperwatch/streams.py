"""The streams that are served together: the order statuses, which everything begins and ends with, and those beside."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import attrs
import trio
from loguru import logger

from hyperwatch.config import Config
from hyperwatch.doors import Doors
from hyperwatch.errors import DataError
from hyperwatch.feed.server import Server
from hyperwatch.feed.streams import Source
from hyperwatch.log.courtesy import Courtesy
from hyperwatch.log.cursor import Cursor
from hyperwatch.log.files import Log, Tree, find_trees
from hyperwatch.log.head import Changes, Gate
from hyperwatch.log.ring import Ring
from hyperwatch.log.throttle import Throttle
from hyperwatch.log.watch import Watch
from hyperwatch.lookout import another_layout
from hyperwatch.node.streams import ORDERS, STREAMS, Stream
from hyperwatch.pipeline import Pipeline, place_to_begin
from hyperwatch.records import Records

__all__ = ["Beside", "Feed"]

LOOK_S = 2.0  # between looks for a stream that is not there: a node that is given its flag takes minutes to restart
_RING_SHARE = 4  # of --ring-bytes, for each of them: book diffs are a third of the order statuses' bytes, fills 1 %
_RING_BYTES = 1024 * 1024  # at least
_WORKERS = 1  # decodes ten times what a node writes of book diffs


@attrs.frozen
class Feed:
    """A log and everything that serves it, with the node's other streams beside it."""

    main: Pipeline
    server: Server
    streams: dict[str, Source]
    """What clients can subscribe to."""
    throttle: Throttle
    """Of the readers of the past, of every stream together."""
    courtesy: Courtesy
    """Of every thread that decodes."""
    beside: Beside | None = None

    @classmethod
    def of(
        cls,
        log: Log,
        start: Cursor,
        *,
        ring_bytes: int,
        workers: int,
        deadline_s: float,
        changes: Changes | None,
        gate: Gate | None = None,
        records: Records | None = None,
        doors: Doors | None = None,
    ) -> Feed:
        """Builds one that begins at `start`. Nothing runs yet."""
        streams: dict[str, Source] = {}
        doors = doors or Doors()
        server = Server(streams, doors.guard, doors.routes)
        throttle = doors.guard.limits.past()
        courtesy = Courtesy(lambda: len(server.connections))
        main = Pipeline.of(
            log,
            start,
            ring_bytes=ring_bytes,
            workers=workers,
            deadline_s=deadline_s,
            changes=changes,
            courtesy=courtesy,
            gate=gate,
            records=records or Records(None),
            throttle=throttle,
        )
        streams[log.stream.name] = main.source
        return cls(main, server, streams, throttle, courtesy)

    async def with_others(self, config: Config, records: Records, since: dict[str, Cursor]) -> Feed:
        """The same, and beside it the node's other streams, in another layout since these cursors."""
        shared, leave = (self.throttle, self.courtesy), self.main.head.finish
        beside = Beside(config, records, self.streams, *shared, since=since, leave=leave)
        await beside.look()
        feed = attrs.evolve(self, beside=beside)
        self.server.guard.turnstile.busy = self.courtesy.busy = (
            feed.busy
        )  # not of a recording: what waits there for its time is no work
        return feed

    def busy(self) -> bool:
        """Whether anything is on its way from the files to the clients at the head."""
        return any(pipeline.head.pending_bytes for pipeline in self.pipelines)

    @property
    def pipelines(self) -> list[Pipeline]:
        """One for each stream that is followed."""
        return [self.main, *(self.beside or ())]

    async def run(self) -> None:
        """Reads and delivers until the main head ends, and with it the others. Raises as Head.run does."""
        async with trio.open_nursery() as nursery:
            if self.beside is not None:
                nursery.start_soon(self.beside.run)
            await self.main.head.run()
            if self.beside is not None:
                self.beside.stop()


class Beside:
    """The node's other streams, each followed from when it is there.

    Args:
        config: the settings.
        records: keeps what they lack.
        streams: where clients look for them; is added to.
        throttle: of the readers of the past.
        courtesy: of the threads that decode.
        since: where reading ended of each stream that was read before, in another layout.
        leave: called when the node writes one of them in another layout.
    """

    def __init__(
        self,
        config: Config,
        records: Records,
        streams: dict[str, Source],
        throttle: Throttle,
        courtesy: Courtesy,
        *,
        since: dict[str, Cursor],
        leave: Callable[[], None],
    ) -> None:
        self._config = config
        self._records = records
        self._streams = streams
        self._throttle = throttle
        self._courtesy = courtesy
        self._since = since
        self._leave = leave
        self._looking = trio.CancelScope()
        self._trouble: dict[str, str] = {}
        self._missing = [stream for stream in STREAMS.values() if stream is not ORDERS]
        self._pipelines: list[Pipeline] = []
        self._fresh: list[tuple[Tree, Pipeline, Watch]] = []  # of these, those that do not run yet

    def __iter__(self) -> Iterator[Pipeline]:
        """Those that are followed."""
        return iter(self._pipelines)

    def stop(self) -> None:
        """Ends looking and reading. What was read is still delivered; then `run` returns."""
        self._looking.cancel("the service was told to stop")
        for pipeline in self._pipelines:
            pipeline.head.stop()

    async def look(self) -> None:
        """Looks once for the streams that were not there. Clients can subscribe to those that are."""
        for stream in list(self._missing):
            found = await trio.to_thread.run_sync(self._find, stream)
            if found is not None:
                self._missing.remove(stream)
                self._open(*found)

    async def run(self) -> None:
        """Follows every stream that is there, and looks for those that are not. Raises as Head.run does."""
        async with trio.open_nursery() as nursery:
            with self._looking:
                while True:
                    while self._fresh:
                        nursery.start_soon(self._follow, *self._fresh.pop())
                    await trio.sleep(LOOK_S)
                    await self.look()

    def _open(self, tree: Tree, start: Cursor) -> None:
        watch = Watch()
        pipeline = Pipeline.of(
            tree,
            start,
            ring_bytes=max(_RING_BYTES, self._config.ring_bytes // _RING_SHARE),
            workers=_WORKERS,
            deadline_s=self._config.deadline_s,
            changes=watch,
            courtesy=self._courtesy,
            records=self._records,
            throttle=self._throttle,
        )
        self._pipelines.append(pipeline)
        self._fresh.append((tree, pipeline, watch))
        self._streams[tree.stream.name] = pipeline.source

    async def _follow(self, tree: Tree, pipeline: Pipeline, watch: Watch) -> None:
        with watch:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(pipeline.hub.tell_positions)
                nursery.start_soon(self._records.save_places, tree.stream, pipeline.ring)
                if self._config.layout is None:
                    nursery.start_soon(self._leave_for_another_layout, tree, pipeline.ring)
                await pipeline.head.run()
                nursery.cancel_scope.cancel("its head has ended")

    async def _leave_for_another_layout(self, tree: Tree, ring: Ring) -> None:
        other = await another_layout(tree, ring)
        logger.warning("the node writes {} now: going on there by block", other.hourly)
        self._leave()

    def _find(self, stream: Stream) -> tuple[Tree, Cursor] | None:
        """Its files and where to begin; None where there are none, or they cannot be read yet. Blocking."""
        config = self._config
        try:
            for tree in find_trees(config.data_dir, stream, config.grace_s):
                if config.layout in (None, tree.layout):
                    return tree, place_to_begin(tree, self._since.get(stream.name), self._records)
        except (OSError, DataError) as error:
            if self._trouble.get(stream.name) != str(error):
                self._trouble[stream.name] = str(error)
                logger.error("{} waits: {}; it is served as soon as its files can be read", stream.name, error)
        return None
