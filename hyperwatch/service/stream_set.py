"""The streams that are served together: the order statuses, which everything begins and ends with, and those beside."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator

import attrs
import trio
from loguru import logger

from hyperwatch.config import Config
from hyperwatch.errors import DataError
from hyperwatch.feed.registry import StreamSource
from hyperwatch.ingest.pipeline import Changes, Gate
from hyperwatch.ingest.ring import Ring
from hyperwatch.ingest.watcher import DirectoryWatcher
from hyperwatch.ingest.yielding import Yielder
from hyperwatch.ledger.ledger import Ledger
from hyperwatch.log.positions import Cursor
from hyperwatch.log.tree import Log, Tree, find_trees
from hyperwatch.monitor.stalls import another_layout
from hyperwatch.node.streams import ORDERS, STREAMS, Stream
from hyperwatch.runtime.rate_limit import RateLimiter
from hyperwatch.server.connection import Connection
from hyperwatch.server.server import Server
from hyperwatch.service.assembly import ServedStream, place_to_begin
from hyperwatch.service.frontend import Frontend

__all__ = ["OtherStreams", "StreamSet"]

LOOK_S = 2.0  # between looks for a stream that is not there: a node that is given its flag takes minutes to restart
_RING_SHARE = 4  # of --ring-bytes, for each of them: book diffs are a third of the order statuses' bytes, fills 1 %
_RING_BYTES = 1024 * 1024  # at least
_WORKERS = 1  # decodes ten times what a node writes of book diffs


@attrs.frozen
class StreamSet:
    """A log and everything that serves it, with the node's other streams beside it."""

    main: ServedStream
    server: Server
    streams: dict[str, StreamSource]
    """What clients can subscribe to."""
    rate_limiter: RateLimiter
    """Of the readers of the past, of every stream together."""
    yielder: Yielder
    """Of every thread that decodes."""
    beside: OtherStreams | None = None

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
        ledger: Ledger | None = None,
        frontend: Frontend | None = None,
    ) -> StreamSet:
        """Builds one that begins at `start`. Nothing runs yet."""
        streams: dict[str, StreamSource] = {}
        frontend = frontend or Frontend()
        server = Server(streams, frontend.admission, frontend.routes)
        rate_limiter = frontend.admission.limits.catch_up()
        yielder = Yielder(lambda: len(server.connections))
        main = ServedStream.of(
            log,
            start,
            ring_bytes=ring_bytes,
            workers=workers,
            deadline_s=deadline_s,
            changes=changes,
            yielder=yielder,
            gate=gate,
            ledger=ledger or Ledger(None),
            rate_limiter=rate_limiter,
        )
        streams[log.stream.name] = main.source
        return cls(main, server, streams, rate_limiter, yielder)

    async def with_others(self, config: Config, ledger: Ledger, since: dict[str, Cursor]) -> StreamSet:
        """The same, and beside it the node's other streams, in another layout since these cursors."""
        shared, leave = (self.rate_limiter, self.yielder), self.main.head.finish
        beside = OtherStreams(config, ledger, self.streams, *shared, since=since, leave=leave)
        await beside.look()
        feed = attrs.evolve(self, beside=beside)
        self.server.admission.turnstile.busy = self.yielder.busy = (
            feed.busy
        )  # not of a recording: what waits there for its time is no work
        return feed

    def busy(self) -> bool:
        """Whether anything is on its way from the files to the clients at the head."""
        return any(pipeline.head.in_flight_bytes for pipeline in self.pipelines)

    @property
    def pipelines(self) -> list[ServedStream]:
        """One for each stream that is followed."""
        return [self.main, *(self.beside or ())]

    @property
    def probes(self) -> list[ServedStream]:
        """What the operator's views see of them."""
        return self.pipelines

    @property
    def connections(self) -> Collection[Connection]:
        """The clients."""
        return self.server.connections

    async def run(self) -> None:
        """Reads and delivers until the main head ends, and with it the others. Raises as IngestPipeline.run does."""
        async with trio.open_nursery() as nursery:
            if self.beside is not None:
                nursery.start_soon(self.beside.run)
            await self.main.head.run()
            if self.beside is not None:
                self.beside.stop()


class OtherStreams:
    """The node's other streams, each followed from when it is there.

    Args:
        config: the settings.
        ledger: keeps what they lack.
        streams: where clients look for them; is added to.
        rate_limiter: of the readers of the past.
        yielder: of the threads that decode.
        since: where reading ended of each stream that was read before, in another layout.
        leave: called when the node writes one of them in another layout.
    """

    def __init__(
        self,
        config: Config,
        ledger: Ledger,
        streams: dict[str, StreamSource],
        rate_limiter: RateLimiter,
        yielder: Yielder,
        *,
        since: dict[str, Cursor],
        leave: Callable[[], None],
    ) -> None:
        self._config = config
        self._ledger = ledger
        self._streams = streams
        self._rate_limiter = rate_limiter
        self._yielder = yielder
        self._since = since
        self._leave = leave
        self._looking = trio.CancelScope()
        self._trouble: dict[str, str] = {}
        self._missing = [stream for stream in STREAMS.values() if stream is not ORDERS]
        self._pipelines: list[ServedStream] = []
        self._fresh: list[tuple[Tree, ServedStream, DirectoryWatcher]] = []  # of these, those that do not run yet

    def __iter__(self) -> Iterator[ServedStream]:
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
        """Follows every stream that is there, and looks for those that are not. Raises as IngestPipeline.run does."""
        async with trio.open_nursery() as nursery:
            with self._looking:
                while True:
                    while self._fresh:
                        nursery.start_soon(self._follow, *self._fresh.pop())
                    await trio.sleep(LOOK_S)
                    await self.look()

    def _open(self, tree: Tree, start: Cursor) -> None:
        watch = DirectoryWatcher()
        pipeline = ServedStream.of(
            tree,
            start,
            ring_bytes=max(_RING_BYTES, self._config.ring_bytes // _RING_SHARE),
            workers=_WORKERS,
            deadline_s=self._config.deadline_s,
            changes=watch,
            yielder=self._yielder,
            ledger=self._ledger,
            rate_limiter=self._rate_limiter,
        )
        self._pipelines.append(pipeline)
        self._fresh.append((tree, pipeline, watch))
        self._streams[tree.stream.name] = pipeline.source

    async def _follow(self, tree: Tree, pipeline: ServedStream, watch: DirectoryWatcher) -> None:
        with watch:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(pipeline.hub.tell_positions)
                nursery.start_soon(self._ledger.save_places, tree.stream, pipeline.ring)
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
                    return tree, place_to_begin(tree, self._since.get(stream.name), self._ledger)
        except (OSError, DataError) as error:
            if self._trouble.get(stream.name) != str(error):
                self._trouble[stream.name] = str(error)
                logger.error("{} waits: {}; it is served as soon as its files can be read", stream.name, error)
        return None
