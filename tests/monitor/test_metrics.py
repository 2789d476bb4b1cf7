"""What is counted, and what Prometheus reads of it."""

from __future__ import annotations

import importlib.util
import itertools
import socket
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from guarded import asked, handshake
from hyperwatch.cli.main import _exit_code
from hyperwatch.config import Address, Config
from hyperwatch.errors import UsageError
from hyperwatch.ingest.counters import BOUNDS_MS, Counters, Histogram
from hyperwatch.log.batch_reader import BatchReader
from hyperwatch.log.batches import Batch
from hyperwatch.log.dedupe import Deduplicator, FileProgress
from hyperwatch.log.positions import Cursor
from hyperwatch.log.tree import Tree
from hyperwatch.monitor.health import HealthMonitor, quantile_ms
from hyperwatch.monitor.metrics import METRICS, exposition
from hyperwatch.node.slices import BlockSlice
from hyperwatch.node.streams import FILLS, ORDERS, Layout
from hyperwatch.server.admission import Admission
from hyperwatch.server.refusals import Reason
from hyperwatch.service import service
from processes import free_port
from support import TIME, append, connected, event, fill, hour_file, line, lines_of, running

STREAM = ORDERS.name
ROOT = Path(__file__).resolve().parents[2]


def samples(text: str) -> dict[str, list[Sample]]:
    """Every sample by its name, as Prometheus' own parser reads them."""
    found: defaultdict[str, list[Sample]] = defaultdict(list)
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found[sample.name].append(sample)
    return found


def value(text: str, name: str, **labels: str) -> float:
    """The one sample of that name and with these labels."""
    (found,) = [sample for sample in samples(text)[f"hyperwatch_{name}"] if labels.items() <= sample.labels.items()]
    return found.value


class Scraped:
    """A sidecar, and its metrics."""

    def __init__(self, port: int, metrics_port: int) -> None:
        self.port = port
        self.metrics_port = metrics_port

    async def text(self, path: str = "/metrics") -> str:
        status, body = await asked(self.metrics_port, f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert status == 200, body
        return body

    async def reaches(self, wanted: float, name: str, **labels: str) -> str:
        """The text in which a sample has that value; the test's own timeout bounds it."""
        while True:
            text = await self.text()
            if value(text, name, **labels) == wanted:
                return text


@asynccontextmanager
async def scraped(data_dir: Path, **settings: object) -> AsyncIterator[Scraped]:
    metrics_port = free_port()
    with trio.fail_after(20):
        address = Address("127.0.0.1", metrics_port)
        async with running(data_dir, metrics_listen=address, **settings) as port:
            yield Scraped(port, metrics_port)


async def test_prometheus_reads_every_metric_and_no_other(tmp_path: Path) -> None:
    append(hour_file(tmp_path, "20260505/9"), line(7, [event(1)]))
    async with scraped(tmp_path) as service_, connected(service_.port) as client:
        await client.subscribe(type="orders")
        text = await service_.text()
        while "hyperwatch_disk_free_bytes{" not in text:  # which the first look at the disk brings
            text = await service_.text()

    families = {family.name: family for family in text_string_to_metric_families(text)}
    assert set(families) == {f"hyperwatch_{definition.name}" for definition in METRICS}
    assert {name for name, family in families.items() if not family.samples} == set()
    classes = {sample.labels["class"]: sample.value for sample in families["hyperwatch_events"].samples}
    assert classes == {"live": 0, "removed": 0, "rejected": 0, "unknown": 0}, "an increase from nothing is one"
    for definition in METRICS:
        family = families[f"hyperwatch_{definition.name}"]
        assert (family.type, family.documentation) == (definition.kind, definition.meaning)
        assert all(set(sample.labels) - {"le"} <= set(definition.labels) for sample in family.samples)


# Others write their alerts against exactly these.
PROMISED = """
    lines_total events_total bytes_total batches_total decode_failures_total quarantined_total node_restarts_total
    gaps_total lag_bytes lag_seconds block_to_write_seconds write_to_read_seconds read_to_sent_seconds ring_bytes clients
    subscriptions clients_behind evictions_total refusals_total worker_tokens_used worker_tokens node_idle_seconds ready
    build_info start_time_seconds batch_deadlines_total trades_total one_sided_fills_total
"""


def test_the_names_that_alerts_are_written_against_are_there() -> None:
    assert {f"hyperwatch_{name}" for name in PROMISED.split()} <= {each.whole_name for each in METRICS}


def test_the_reference_of_metrics_is_made_from_the_code() -> None:
    spec = importlib.util.spec_from_file_location("make_metrics", ROOT / "docs" / "make_metrics.py")
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)

    assert (ROOT / "docs" / "metrics.md").read_text() == made.page(), "run `make docs`"


async def test_what_is_read_is_counted(tmp_path: Path) -> None:
    path = hour_file(tmp_path, "20260505/9", Layout.BY_BLOCK)
    append(path, line(7, [event(1)]))
    async with scraped(tmp_path, state_dir=tmp_path / "state") as service_:
        await service_.reaches(1, "ready")
        data = line(8, [event(1), event(2, status="filled"), event(3, status="badAloPxRejected")])
        data += b"nonsense\n" + line(9, [event(4, status="newfangled")])
        data += line(12, [event(5)])
        data += line(9, [event(4, status="newfangled")]) + line(12, [event(5)]) + line(13, [])  # after a restart
        append(path, data)
        await service_.reaches(7, "lines_total")
        text = await service_.reaches(0, "in_flight_bytes")

    assert value(text, "bytes_total", stream=STREAM) == len(data)
    assert value(text, "batches_total") >= 1
    classes = {"live": 2, "removed": 1, "rejected": 1, "unknown": 1}
    assert {name: value(text, "events_total", **{"class": name}) for name in classes} == classes
    assert value(text, "duplicate_events_total") == 2
    assert value(text, "decode_failures_total") == 1
    assert value(text, "quarantined_total") == 1
    assert value(text, "node_restarts_total") == 1
    assert value(text, "gaps_total", reason="unreadable") == 1
    assert value(text, "gaps_total", reason="missing-blocks") == 1
    assert value(text, "gaps_total", reason="file-removed") == 0, (
        "named from the start: an increase from nothing is one"
    )
    assert value(text, "block_to_write_seconds_count") == 4, "not those that were repeats"
    assert value(text, "block_to_write_seconds_bucket", le="0.5") == 4
    assert value(text, "block_to_write_seconds_bucket", le="0.2") == 0
    assert value(text, "write_to_read_seconds_count") == 4
    assert value(text, "in_flight_bytes") == 0
    assert value(text, "read_to_sent_seconds_count") == 0, "nobody was sent anything"
    assert value(text, "ring_bytes") > len(data)


async def test_trades_and_fills_without_another_side_are_counted(tmp_path: Path) -> None:
    append(hour_file(tmp_path, "20260505/9"), line(7, [event(1)]))
    path = hour_file(tmp_path, "20260505/9", stream=FILLS)
    append(path, line(7, [fill(0), fill(0, "A")]))
    async with scraped(tmp_path) as service_:
        text = await service_.reaches(0, "events_total", stream=FILLS.name)
        assert samples(text)["hyperwatch_events_total"][-1].labels == {"stream": FILLS.name, "class": ""}
        append(path, line(8, [fill(1), fill(1, "A", crossed=True), fill(2)]))
        later = line(9, [fill(3), fill(3, "A")]).replace(TIME.encode(), TIME.replace("13.0", "19.0").encode())
        append(path, later)
        text = await service_.reaches(2, "trades_total")
    assert value(text, "one_sided_fills_total") == 1
    assert value(text, "events_total", stream=FILLS.name) == 5


async def test_clients_and_what_they_are_refused_are_counted(tmp_path: Path) -> None:
    path = hour_file(tmp_path, "20260505/9")
    append(path, line(7, [event(1)]))
    async with scraped(tmp_path) as service_, connected(service_.port) as client:
        for coins in (["BTC"], ["BTC", "ETH"]):
            await client.subscribe(type="orders", coins=coins)
            await client.hear("live")
        assert (await asked(service_.port, b"GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n"))[0] == 404
        append(path, line(8, [event(2)]))
        await client.collect(2)
        text = await service_.reaches(1, "read_to_sent_seconds_count")

    assert value(text, "clients") == 1
    assert value(text, "clients_behind") == 0
    assert value(text, "subscriptions", stream=STREAM) == 2
    assert value(text, "refusals_total", reason="request") == 1
    assert value(text, "refusals_total", reason="token") == 0


def test_clients_that_are_put_out_are_evictions_and_no_refusals() -> None:
    admission = Admission()
    health = HealthMonitor(admission, stall_s=60, behind_s=10)
    admission.refusals.update([Reason.SILENT, Reason.STALLED, Reason.TOKEN])
    text = exposition(health)().decode()

    assert value(text, "evictions_total") == 2
    assert value(text, "refusals_total", reason="token") == 1
    assert {sample.labels["reason"] for sample in samples(text)["hyperwatch_refusals_total"]}.isdisjoint(
        {"silent", "stalled"}
    )


async def test_metrics_are_there_before_the_node_has_written(tmp_path: Path) -> None:
    before_s = time.time()
    port = free_port()
    config = Config(data_dir=tmp_path, listen=Address("127.0.0.1", 0), metrics_listen=Address("127.0.0.1", port))
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(service.run, config, signals=False))
            while True:
                try:
                    _, text = await asked(port, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
                    break
                except OSError:
                    await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel("seen")
    assert value(text, "ready") == 0
    assert value(text, "trades_total") == 0
    assert before_s - 0.001 <= value(text, "start_time_seconds") <= time.time()
    assert samples(text)["hyperwatch_lines_total"] == []


async def test_on_the_metrics_port_there_is_nothing_else(tmp_path: Path) -> None:
    append(hour_file(tmp_path, "20260505/9"), line(7, [event(1)]))
    async with scraped(tmp_path) as service_:
        assert await asked(service_.metrics_port, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n") == (404, "there is /metrics\n")
        status, text = await asked(service_.metrics_port, handshake())
    assert (status, text[:24]) == (503, "there is no feed here: w")


async def test_a_metrics_port_in_use_is_an_error_that_names_the_option(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        config = Config(data_dir=tmp_path, listen=Address("127.0.0.1", 0), metrics_listen=Address("127.0.0.1", port))
        with pytest.raises(UsageError, match=f"--metrics-listen 127.0.0.1:{port}: Address already in use"):
            await service.run(config, signals=False)


@pytest.mark.parametrize("how", ["option", "variable"])
def test_an_empty_address_turns_the_metrics_off(tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Config] = []

    async def run(config: Config) -> None:
        told.append(config)
        await trio.lowlevel.checkpoint()

    monkeypatch.setattr(service, "run", run)
    arguments = ["run", "--data-dir", str(tmp_path)]
    if how == "option":
        arguments += ["--metrics-listen", ""]
    else:
        monkeypatch.setenv("HYPERWATCH_METRICS_LISTEN", "")
    assert _exit_code(arguments) == 0
    assert told[0].metrics_listen is None


def test_a_bucket_has_its_upper_end_within() -> None:
    histogram = Histogram()
    for took_ms in (-3, 0, 1, 2, 3, BOUNDS_MS[-1], BOUNDS_MS[-1] + 1):
        histogram.add(took_ms)

    assert histogram.counts[:3] == [3, 1, 1]
    assert histogram.counts[-2:] == [1, 1]
    assert histogram.sum_ms == 0 + 0 + 1 + 2 + 3 + 2 * BOUNDS_MS[-1] + 1


def test_a_quantile_lies_within_its_bucket() -> None:
    counts = Histogram().counts
    assert quantile_ms(counts, 0.5) is None
    counts[0], counts[3] = 1, 3  # up to 1 ms; between 5 and 10 ms

    assert quantile_ms(counts, 0.25) == 1
    assert quantile_ms(counts, 1.0) == 10
    assert quantile_ms(counts, 0.625) == 7.5
    counts[-1] = 100
    assert quantile_ms(counts, 0.99) == BOUNDS_MS[-1]


def batches(root: Path, layout: Layout = Layout.STREAMING) -> Iterator[Batch]:
    reader = BatchReader(Tree(root, ORDERS, layout), Cursor(ORDERS.directory(layout)))
    while batch := reader.next(None, lambda: None):
        yield batch
    reader.close()


def test_statuses_are_told_apart_up_to_a_bound(tmp_path: Path) -> None:
    append(hour_file(tmp_path, "20260505/9"), line(7, [event(1, status=f"s{number}") for number in range(1000)]))
    counters = Counters()
    for batch in batches(tmp_path):
        counters.read(batch, 0)

    assert len(counters.statuses) == 256
    assert counters.statuses["s0"] == 1
    assert counters.other_statuses == 1000 - 256
    assert sum(counters.classes().values()) == counters.events == 1000


@pytest.mark.parametrize("layout", list(Layout))
def test_a_restart_is_counted_once_however_many_files_its_repeat_has(tmp_path: Path, layout: Layout) -> None:
    blocks = [
        (number, [event(number).replace(TIME.encode(), TIME[:14].encode() + b"%02d:%02d.5" % divmod(number, 60))])
        for number in range(100, 140)
    ]
    append(hour_file(tmp_path, "20260505/9", layout), lines_of(layout, blocks[:30]) + lines_of(layout, blocks[10:20]))
    append(hour_file(tmp_path, "20260505/10", layout), lines_of(layout, blocks[20:]))
    assert sum(batch.restarts for batch in batches(tmp_path, layout)) == 1
    append(hour_file(tmp_path, "20260505/10", layout), lines_of(layout, blocks[25:30]) + lines_of(layout, blocks[20:]))
    assert sum(batch.restarts for batch in batches(tmp_path, layout)) == 3


async def test_counters_go_on_when_the_node_writes_another_layout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hyperwatch.monitor.stalls._LOOK_S", 0.01)
    monkeypatch.setattr("hyperwatch.monitor.stalls._SETTLED_S", 0.1)
    path = hour_file(tmp_path, "20260505/9", Layout.STREAMING)
    append(path, line(7, [event(1)]))
    async with scraped(tmp_path) as service_:
        append(path, line(8, [event(2)]))
        await service_.reaches(1, "lines_total")
        by_block = hour_file(tmp_path, "20260505/9", Layout.BY_BLOCK)
        append(by_block, line(8, [event(2)]) + line(9, [event(3)]))
        async with trio.open_nursery() as node:

            async def go_on_writing() -> None:  # that it grows is what tells that the node writes it now
                for block in itertools.count(10):
                    append(by_block, line(block, []))
                    await trio.sleep(0.05)  # a node's pace

            node.start_soon(go_on_writing)
            text = await service_.reaches(
                2, "events_total", **{"class": "live"}
            )  # the block that both have is left out of the events
            node.cancel_scope.cancel("it has been found")
    assert value(text, "events_total", **{"class": "live"}) == 2
    assert value(text, "duplicate_events_total") == 1


def test_a_repeat_that_was_under_way_at_the_start_is_no_restart() -> None:
    def run(block: int) -> BlockSlice:
        return BlockSlice(ORDERS, block, TIME, 0, "", True, 1, 1, 0, 1, 0, views=[event(1)])

    begun = Deduplicator(Cursor("x", block=20, time=TIME, count=1), {"9": FileProgress(10, 1, repeating=True)})
    begun.place("9", run(11))
    assert begun.restarts == 0
    begun.place("9", run(5))
    assert begun.restarts == 1
