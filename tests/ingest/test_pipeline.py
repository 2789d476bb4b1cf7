"""The head: tail, batcher, workers, ring. First the ten behaviours that broke the system before this one."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path

import attrs
import pytest
import trio
from loguru import logger

from hyperwatch.errors import FormatChangedError
from hyperwatch.ingest import tail, workers, yielding
from hyperwatch.ingest.pipeline import IngestPipeline
from hyperwatch.ingest.ring import Ring
from hyperwatch.log.batches import Batch
from hyperwatch.log.positions import Cursor
from hyperwatch.log.tree import Tree
from hyperwatch.node.decoder import Need
from hyperwatch.node.slices import BlockSlice
from hyperwatch.node.streams import ORDERS, Layout
from support import append, event, events_of, hour_file, line, lines_of, until

SHORT = b'{"user":"0x","status":"open","order":{"coin":"B"}}\n'
HOUR = "20260505/9"
DIRECTORY = "node_order_statuses_streaming"


@attrs.define
class Signal:
    """A fake of log.watch.Watch: the test says when something has changed."""

    changed: trio.Event = attrs.Factory(trio.Event)
    waiting: bool = False

    def follow(self, directories: Iterable[Path]) -> None:
        """Nothing to do: the test tells."""

    async def wait(self) -> bool:
        self.waiting = True
        await self.changed.wait()
        self.waiting = False
        self.changed = trio.Event()
        return True


@attrs.define
class Gate:
    """What workers do between pieces: pass while it is open, else wait, ready to be cancelled."""

    open: threading.Event = attrs.Factory(threading.Event)

    def __call__(self) -> None:
        trio.from_thread.check_cancelled()
        while not self.open.wait(0.001):
            trio.from_thread.check_cancelled()


@attrs.define
class Rig:
    """A head on a directory, and what it delivered."""

    root: Path
    layout: Layout = Layout.STREAMING
    batches: list[Batch] = attrs.Factory(list)
    signal: Signal = attrs.Factory(Signal)
    gate: Gate = attrs.Factory(Gate)

    @property
    def path(self) -> Path:
        return hour_file(self.root, HOUR, self.layout)

    before: Callable[[BlockSlice], object] = attrs.field(default=lambda _: None)
    """Sees every run as it is delivered."""

    def head(
        self,
        *,
        grows: bool = True,
        workers: int = 4,
        deadline_s: float = 60,
        needs_keys: Callable[[], bool] = lambda: True,
        before: Callable[[BlockSlice], object] = lambda _: None,
        pause: Callable[[], None] | None = None,
    ) -> IngestPipeline:
        self.before = before
        start = Cursor(ORDERS.directory(self.layout))
        changes = self.signal if grows else None
        return IngestPipeline(
            Tree(self.root, ORDERS, self.layout), start, Ring(start, 2**20), self.deliver,
            changes=changes, workers=workers, deadline_s=deadline_s, pause=pause or self.gate, needs_keys=needs_keys,
        )  # fmt: skip

    async def deliver(self, batch: Batch) -> int:
        self.batches.append(batch)
        for entry in batch.entries:
            self.before(entry.slice)
        await trio.lowlevel.checkpoint()
        return 0

    async def write(self, data: bytes) -> None:
        append(self.path, data)
        await until(lambda: self.signal.waiting)
        self.signal.changed.set()
        await until(lambda: not self.signal.waiting)

    def numbers(self) -> list[int | None]:
        return [block for block, _, _ in events_of(self.batches)]


@pytest.fixture
def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Rig:
    """Every batch goes to the workers, as large ones do."""
    monkeypatch.setattr(workers, "_AT_ONCE_BYTES", 0)
    rig = Rig(tmp_path)
    append(rig.path, b"")
    rig.gate.open.set()
    return rig


async def during(head: IngestPipeline, body: Callable[[], Awaitable[None]]) -> None:
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(head.run)
            await body()
            head.stop()


async def test_01_the_buffer_is_handed_over_before_it_is_processed(rig: Rig) -> None:
    head = rig.head()
    rig.gate.open.clear()

    async def body() -> None:
        await rig.write(line(1, [event(1)]))
        await until(lambda: head.workers.limiter.borrowed_tokens == 1)
        # The first batch is stuck in its worker, and the tail is already free to take the next.
        await rig.write(line(2, [event(2)]))
        await until(lambda: head.counters.batches == 2)
        assert rig.batches == []
        rig.gate.open.set()
        await until(lambda: len(rig.batches) == 2)

    await during(head, body)
    assert rig.numbers() == [1, 2]


async def test_02_reading_goes_on_during_processing_and_nothing_is_lost(rig: Rig) -> None:
    head = rig.head()
    rig.gate.open.clear()

    async def body() -> None:
        await rig.write(line(0, [event(0)]))
        for number in range(1, 200):
            append(rig.path, line(number, [event(number)]))
        rig.gate.open.set()
        await rig.write(line(200, [event(200)]))
        await until(lambda: len(rig.numbers()) == 201)

    await during(head, body)
    assert rig.numbers() == list(range(201))


async def test_03_a_batch_in_flight_is_independent_of_later_reads(rig: Rig) -> None:
    head = rig.head()
    rig.gate.open.clear()

    async def body() -> None:
        await rig.write(line(1, [event(1)]) + line(1, [event(2)]))
        await until(lambda: head.workers.limiter.borrowed_tokens == 1)
        await rig.write(line(2, [event(3)]))
        rig.gate.open.set()
        await until(lambda: len(rig.batches) == 2)

    await during(head, body)
    assert [events_of([batch]) for batch in rig.batches] == [
        [(1, 0, event(1)), (1, 1, event(2))],
        [(2, 0, event(3))],
    ]


async def test_04_two_batches_are_processed_at_once(rig: Rig) -> None:
    head = rig.head()
    rig.gate.open.clear()

    async def body() -> None:
        await rig.write(line(1, [event(1)]))
        await rig.write(line(2, [event(2)]))
        await until(lambda: head.workers.limiter.borrowed_tokens == 2)
        # and not three: the channel between batcher and collector bounds them
        await rig.write(line(3, [event(3)]))
        await trio.testing.wait_all_tasks_blocked()
        assert head.workers.limiter.borrowed_tokens == 2
        rig.gate.open.set()
        await until(lambda: len(rig.batches) == 3)

    await during(head, body)
    assert rig.numbers() == [1, 2, 3]


async def test_05_an_exception_leaves_no_residue(rig: Rig) -> None:
    head = rig.head()

    async def body() -> None:
        await rig.write(line(1, [event(1)]) + b"no JSON\n" + line(1, [event(2)]))
        await until(lambda: len(rig.batches) == 1)
        await rig.write(line(2, [event(3)]))
        await until(lambda: len(rig.batches) == 2)
        assert head.workers.limiter.borrowed_tokens == 0

    await during(head, body)
    assert events_of(rig.batches) == [(1, 0, event(1)), (1, 1, event(2)), (2, 0, event(3))]
    assert [len(batch.unreadable) for batch in rig.batches] == [1, 0]
    assert head.counters.failures == 1


async def test_a_small_batch_is_decoded_without_a_thread_and_others_run_between_its_pieces(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(yielding, "_TURN_S", 0.0)
    rig.path.write_bytes(b"".join(line(1, [event(number)]) for number in range(500)))
    head = rig.head(grows=False, pause=lambda: pytest.fail("a thread decodes it"))
    turns = 0

    async def others() -> None:
        nonlocal turns
        while not rig.batches:
            turns += 1
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(head.run)
        await until(lambda: head.in_flight_bytes > 0)
        await others()

    assert head.counters.events == 500
    assert turns > 3  # 265 KB are five pieces


async def test_a_large_batch_is_decoded_in_a_thread(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    rig.path.write_bytes(line(1, [event(1)]) * 5_000)  # 2.6 MB
    threads: list[bool] = []
    await rig.head(
        grows=False, pause=lambda: threads.append(threading.current_thread() is threading.main_thread())
    ).run()

    assert threads
    assert not any(threads)


ODD = b'{"account":"0x","kind":"new"}'


async def test_what_events_are_routed_by_is_read_after_delivery_where_nobody_asks(rig: Rig) -> None:
    rig.path.write_bytes(line(1, [event(number) for number in range(300)]))
    known_at_delivery: list[int] = []
    head = rig.head(
        grows=False, needs_keys=lambda: False, before=lambda slice_: known_at_delivery.append(len(slice_.routes.keys))
    )
    await head.run()

    slice_ = rig.batches[0].entries[0].slice
    assert known_at_delivery == [0]
    assert head.counters.statuses == {"open": 300}
    assert slice_.routes.keys == []  # half a kilobyte an event, which nobody asked for
    assert slice_.coin_counts == {"BTC": 300}
    assert [key.coin for key in slice_.keys] == ["BTC"] * 300


async def test_what_events_are_routed_by_is_there_at_delivery_where_somebody_asks(rig: Rig) -> None:
    rig.path.write_bytes(line(1, [event(number) for number in range(300)]))
    known_at_delivery: list[int] = []
    await rig.head(grows=False, before=lambda slice_: known_at_delivery.append(len(slice_.routes.keys))).run()

    assert known_at_delivery == [300]
    assert len(rig.batches[0].entries[0].slice.routes.keys) == 300  # for who comes later


async def test_an_event_of_unknown_kind_is_delivered_counted_and_named(rig: Rig) -> None:
    said: list[str] = []
    sink = logger.add(lambda message: said.append(message.record["message"]), level="ERROR")
    rig.path.write_bytes(line(1, [event(1)]) + line(1, [ODD]) + line(1, [event(2)]) + line(2, [ODD]))
    head = rig.head(grows=False)
    await head.run()
    logger.remove(sink)

    assert events_of(rig.batches) == [(1, 0, event(1)), (1, 1, ODD), (1, 2, event(2)), (2, 0, ODD)]
    assert (head.counters.unkeyed, head.counters.failures) == (2, 0)
    assert head.counters.classes() == {"live": 2, "unknown": 2}
    assert [text.partition(", cannot")[0] for text in said] == [
        f"the account, coin or status of an event of {DIRECTORY} {HOUR}, block 1, place 1",
        "... and 1 more such events in the same batch",
    ]


async def test_where_half_of_the_events_are_of_unknown_kind_the_format_has_changed(rig: Rig) -> None:
    rig.path.write_bytes(line(1, [event(1), ODD] * 500))
    expected = pytest.RaisesExc(FormatChangedError, match=f"500 of 1000 orders of {DIRECTORY} {HOUR} cannot be routed")
    with pytest.RaisesGroup(expected, flatten_subgroups=True):
        await rig.head(grows=False).run()

    assert [batch.events for batch in rig.batches] == [1000]


async def test_events_of_which_something_can_be_read_are_no_other_format(rig: Rig) -> None:
    rig.path.write_bytes(line(1, [event(1).replace(b'"coin"', b'"market"')] * 1000))
    head = rig.head(grows=False)
    await head.run()

    assert [batch.events for batch in rig.batches] == [1000]
    assert head.counters.unkeyed == 1000


async def test_that_lines_do_not_say_when_they_were_written_is_said_once_a_file(rig: Rig) -> None:
    said: list[str] = []
    sink = logger.add(lambda message: said.append(message.record["message"]), level="WARNING")
    undated = [line(block, [event(block)]).replace(b'"2026-05-05T17:39:13.5"', b"null") for block in range(3)]
    async with trio.open_nursery() as nursery:
        head = rig.head()
        nursery.start_soon(head.run)
        for each in undated:
            await rig.write(each)
            await until(lambda: not head.in_flight_bytes)
        head.stop()
    logger.remove(sink)

    assert rig.numbers() == [0, 1, 2]
    (text,) = said
    assert text.startswith(f"no local_time that can be read in block 0 of {DIRECTORY} {HOUR}")


_PEAK = textwrap.dedent(
    """
    import sys, trio
    from pathlib import Path
    from loguru import logger
    from hyperwatch.log.positions import Cursor
    from hyperwatch.log.tree import Tree
    from hyperwatch.ingest.pipeline import IngestPipeline
    from hyperwatch.ingest.ring import Ring
    from hyperwatch.node.streams import ORDERS, Layout

    logger.remove()
    events = 0

    async def deliver(batch):
        global events
        events += batch.events
        return 0

    start = Cursor(ORDERS.directory(Layout.STREAMING))
    head = IngestPipeline(Tree(Path(sys.argv[1]), ORDERS, Layout.STREAMING), start, Ring(start, 16 * 2**20), deliver, workers=2)
    trio.run(head.run)
    # Not getrusage: its peak begins with that of the process that started this one.
    peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
    print(events, int(peak.split()[1]) // 1024)
    """
)


def peak_mib(root: Path, lines: int) -> int:
    path = hour_file(root, HOUR)
    with path.open("wb") as file:
        for _ in range(lines // 10_000):
            file.write(line(1, [event(1)]) * 10_000)
    done = subprocess.run([sys.executable, "-c", _PEAK, str(root)], check=True, capture_output=True, text=True)
    path.unlink()
    events, peak = map(int, done.stdout.split())
    assert events == lines
    return peak


def test_06_memory_does_not_grow_with_the_backlog(tmp_path: Path) -> None:
    peak = peak_mib(tmp_path, 1_000_000)
    logger.info("peak resident memory for a backlog of 1,000,000 lines: {} MiB", peak)

    # 150 to 190 MiB from 200,000 lines on. The file has 500 MiB, and all of it decoded at once would take over 1,000.
    assert peak < 256


async def test_07_chunks_equal_workers(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    cuts: list[tuple[int, int]] = []
    decode = sys.modules["hyperwatch.ingest.workers"].decode

    def recording(
        stream: object, layout: object, span: object, cut: tuple[int, int], pause: object, *, need: Need
    ) -> object:
        cuts.append(cut)
        return decode(stream, layout, span, cut, pause, need=need)

    monkeypatch.setattr("hyperwatch.ingest.workers.decode", recording)
    rig.layout = Layout.PLAIN
    rig.path.write_bytes(SHORT * 25_433)
    await rig.head(grows=False).run()

    assert len(cuts) == 4
    sizes = [(end - start) / len(SHORT) for start, end in cuts]
    assert sum(sizes) == 25_433
    assert max(sizes) - min(sizes) <= 1


async def test_08_all_workers_are_joined(rig: Rig) -> None:
    rig.layout = Layout.PLAIN
    rig.path.write_bytes(SHORT * 20_000)
    head = rig.head(grows=False)
    await head.run()

    assert [batch.lines for batch in rig.batches] == [20_000]
    assert head.workers.limiter.statistics().borrowed_tokens == 0
    assert trio.testing.active_thread_count() == 0


async def test_09_a_batch_of_150_000_short_lines_becomes_100_000_and_50_000(rig: Rig) -> None:
    rig.layout = Layout.PLAIN
    rig.path.write_bytes(SHORT * 150_000)
    await rig.head(grows=False).run()

    assert [batch.lines for batch in rig.batches] == [100_000, 50_000]
    assert [batch.events for batch in rig.batches] == [100_000, 50_000]
    assert rig.batches[1].before == rig.batches[0].after
    assert [entry.first_index for batch in rig.batches for entry in batch.entries][-1] > 100_000


async def test_10_after_a_deadline_the_next_batch_has_all_its_workers(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tail, "_CACHED_BYTES", 4 * 2**20)  # all that is written is one batch
    head = rig.head(deadline_s=0.05)
    limiter = head.workers.limiter
    rig.gate.open.clear()
    many = b"".join(line(1, [event(number)]) for number in range(4_000))

    async def body() -> None:
        await rig.write(many)
        await until(lambda: limiter.borrowed_tokens == 4)
        await until(lambda: head.counters.deadlines == 1)
        rig.gate.open.set()
        await until(lambda: len(rig.batches) == 1)  # tried once more, and nothing of it is lost
        assert limiter.statistics().borrowed_tokens == 0
        rig.gate.open.clear()
        await rig.write(many)
        await until(lambda: limiter.borrowed_tokens == 4)
        rig.gate.open.set()
        await until(lambda: len(rig.batches) == 2)

    await during(head, body)
    assert [len(events_of([batch])) for batch in rig.batches] == [4_000, 4_000]
    assert head.workers.limiter is limiter
    assert head.counters.failures == 0


async def test_a_batch_that_passes_its_deadline_twice_is_named_and_the_next_goes_on(rig: Rig) -> None:
    head = rig.head(deadline_s=0.02)
    rig.gate.open.clear()
    stuck = line(1, [event(1)])

    async def body() -> None:
        await rig.write(stuck)
        await until(lambda: head.counters.deadlines == 2)
        rig.gate.open.set()
        await rig.write(line(2, [event(2)]))
        await until(lambda: len(rig.batches) == 2)

    await during(head, body)
    (unreadable,) = rig.batches[0].unreadable
    assert (unreadable.offset, unreadable.length_bytes) == (0, len(stuck))
    assert "not decoded within" in unreadable.reason
    assert rig.numbers() == [2]
    assert head.workers.limiter.borrowed_tokens == 0


@pytest.mark.parametrize("layout", list(Layout))
async def test_the_order_of_the_file_is_kept_over_chunks_and_batches(tmp_path: Path, layout: Layout) -> None:
    rig = Rig(tmp_path, layout)
    rig.gate.open.set()
    blocks = [(number, [event(1000 * number + each) for each in range(number % 5)]) for number in range(3_000)]
    rig.path.write_bytes(lines_of(layout, blocks))
    await rig.head(grows=False).run()

    assert [raw for _, _, raw in events_of(rig.batches)] == [raw for _, events in blocks for raw in events]
    if layout is not Layout.PLAIN:
        assert [place for _, place, _ in events_of(rig.batches)] == [at for _, evs in blocks for at in range(len(evs))]


async def test_what_was_read_is_delivered_when_the_head_is_told_to_stop(rig: Rig) -> None:
    head = rig.head()
    rig.gate.open.clear()

    async def body() -> None:
        await rig.write(line(1, [event(1)]))
        await rig.write(line(2, [event(2)]))
        await until(lambda: head.workers.limiter.borrowed_tokens == 2)
        head.stop()
        rig.gate.open.set()

    await during(head, body)
    assert rig.numbers() == [1, 2]


async def test_every_step_of_a_batch_is_one_line_in_the_log_with_its_mark(rig: Rig) -> None:
    said: list[str] = []
    sink = logger.add(lambda message: said.append(message.record["message"]), level="DEBUG")
    rig.path.write_bytes(line(1, [event(1)]) + b"no JSON\n")
    try:
        await rig.head(grows=False).run()
    finally:
        logger.remove(sink)

    assert [text[0] for text in said] == ["📦", "✅", "u", "📡"]
    assert "batch 1 taken: 2 lines" in said[0]
    assert "All parallel workers done: batch 1, 1 workers, 2 lines -> 1 orders" in said[1]
    assert f"of {DIRECTORY} {HOUR} at offset {len(line(1, [event(1)]))}: DecodeError" in said[2]
    assert "1 orders delivered to 0 clients" in said[3]


async def test_files_that_cannot_be_read_for_a_while_are_read_on_from_the_same_place(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hyperwatch.ingest.pipeline._RETRY_S", 0)
    said: list[str] = []
    sink = logger.add(lambda message: said.append(message.record["message"]), level="ERROR")
    head = rig.head()
    listing, failing = Tree.names, threading.Event()

    def names(self: Tree, after: str | None = None) -> list[str]:
        if failing.is_set():
            raise PermissionError(13, "Permission denied", str(self.hourly))
        return listing(self, after)

    monkeypatch.setattr(Tree, "names", names)

    async def body() -> None:
        await rig.write(line(1, [event(1)]))
        await until(lambda: len(rig.batches) == 1)
        await until(lambda: rig.signal.waiting)
        failing.set()
        rig.signal.changed.set()
        await until(lambda: bool(said))
        append(rig.path, line(2, [event(2)]))
        await until(lambda: len(rig.batches) == 2)  # an open file is read on even now
        failing.clear()
        await rig.write(line(3, [event(3)]))
        await until(lambda: len(rig.batches) == 3)

    await during(head, body)
    logger.remove(sink)
    assert rig.numbers() == [1, 2, 3]
    assert len(said) == 1
    assert said[0].startswith("reading waits: [Errno 13] Permission denied: ")


async def test_a_thread_that_does_not_react_is_named_and_ends_the_process(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hyperwatch.ingest.workers._HARD_S", 0.02)
    release, named = threading.Event(), trio.Event()
    said: list[str] = []
    head = rig.head(deadline_s=0.02)
    head.workers.pause = lambda: not release.wait()  # type: ignore[assignment]  # a worker that never looks up

    def stuck(what: str) -> None:  # in place of the end of the process
        said.append(what)
        named.set()
        release.set()

    head.workers.stuck = stuck

    async def body() -> None:
        await rig.write(line(1, [event(1)]))
        await named.wait()
        await until(lambda: len(rig.batches) == 1)

    await during(head, body)
    assert said[0].startswith(
        "a worker has not ended 0.02 s after the deadline of batch 1 (1 lines of node_order_statuses_streaming 20260505/9 at 0)"
    )
    assert head.workers.limiter.borrowed_tokens == 0


def test_the_process_of_a_stuck_thread_ends_with_its_own_exit_code() -> None:
    code = "from hyperwatch.runtime.watchdog import end_process; end_process('a thread of a test')"
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)

    assert done.returncode == 70
    assert "a thread of a test: ending the process with exit code 70" in done.stderr
    assert "most recent call first" in done.stderr


async def test_a_batch_does_not_lose_time_while_it_waits_for_a_thread(rig: Rig) -> None:
    head = rig.head(workers=1, deadline_s=0.3)
    rig.gate.open.clear()

    async def body() -> None:
        await rig.write(line(1, [event(1)]))
        await rig.write(line(2, [event(2)]))
        await until(lambda: head.workers.limiter.statistics().tasks_waiting == 1)
        await until(lambda: head.counters.deadlines == 1)  # of the first batch, the second waits for its thread
        rig.gate.open.set()
        await until(lambda: len(rig.batches) == 2)

    await during(head, body)
    assert rig.numbers() == [1, 2]
    assert head.counters.deadlines == 1
