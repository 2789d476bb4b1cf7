"""What was asked, what was measured, and whether that is enough. Pure."""

from __future__ import annotations

from collections.abc import Iterator

import attrs

from benchmarks.book import OURS, Book
from benchmarks.catch_up import FILTERS
from benchmarks.filters import ONE

__all__ = ["Row", "page", "rows"]

_STEADY_MS = 20.0  # between the first and the last third of a turn: a lag that grows by more is not noise
_LIMIT_MIB = 200e6 / 2**20
_FLAT = 1.1


@attrs.frozen
class Row:
    """One thing."""

    what: str
    asked: str
    measured: str
    met: bool | None
    """None: nothing was asked."""
    replaced: str = ""


def rows(book: Book) -> Iterator[Row]:
    """All that can be said of what was measured."""
    yield from _decode(book)
    yield from _catch_up(book)
    yield from _live(book)
    yield from _fan_out(book)
    yield from _filters(book)
    yield from _memory(book)


def page(book: Book) -> str:
    """The table, as Markdown; the columns are aligned for a terminal."""
    titles = ("what", "asked", "measured", "met", "replaced system's shape")
    cells = [titles, *((row.what, row.asked, row.measured, _MET[row.met], row.replaced) for row in rows(book))]
    widths = [max(len(line[column]) for line in cells) for column in range(len(titles))]
    lines = [" | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in cells]
    lines.insert(1, " | ".join("-" * width for width in widths))
    text = "".join(f"| {line} |\n" for line in lines)
    return text + "".join(f"\nnot measured: {case}: {why}\n" for case, why in book.failures.items())


_MET = {True: "met", False: "NOT MET", None: ""}


def _decode(book: Book) -> Iterator[Row]:
    for case in _cases(book, "decode/"):
        speed = book.median(case, OURS, "events_per_s")
        yield Row(
            _title(case),
            "",
            f"{book.ratio(case, OURS, 'events_per_cpu_s', 'json.loads'):.2f} x json.loads by CPU, {speed:,.0f}/s",
            met=None,
        )


def _catch_up(book: Book) -> Iterator[Row]:
    asked = {
        ("streaming", "everything"): 3.0,
        ("by-block", "everything"): 4.0,
        ("streaming", "no rejections"): 6.0,
    }
    for case in _cases(book, "catch-up/"):
        _, layout, wanted, _, source = case.split("/")
        assert wanted in FILTERS
        ratio = book.ratio(case, OURS, "events_per_s", "json.loads")
        least = asked.get((layout, wanted)) if source == "judged" else None
        yield Row(
            _title(case),
            f"{least:g} x json.loads" if least else "",
            f"{ratio:.2f} x by wall, {book.ratio(case, OURS, 'events_per_cpu_s', 'json.loads'):.2f} x by CPU; "
            f"{_speed(book, case, OURS)}{_unfinished(book, case)}",
            None if least is None else ratio >= least and not _unfinished(book, case),
            _speed(book, case, "replaced") if book.has(case, "replaced") else "",
        )


def _speed(book: Book, case: str, subject: str) -> str:
    if book.gave_up(case, subject):
        return "did not finish"
    wall, cpu = (book.median(case, subject, name) for name in ("events_per_s", "events_per_cpu_s"))
    return f"{wall:,.0f}/s, {1e6 / cpu:.2f} us CPU each"


def _live(book: Book) -> Iterator[Row]:
    for case in _cases(book, "live/"):
        _, rate, unit = case.split("/")
        if rate == "23500":
            yield _late(book, case, p99_ms=10, p50_ms=3, cpu_percent=20 if unit == "block" else 35)
        elif rate == "92000":
            yield _late(book, case, p99_ms=50)
        else:
            yield _late(book, case)


def _late(
    book: Book, case: str, p99_ms: float | None = None, p50_ms: float | None = None, cpu_percent: float | None = None
) -> Row:
    """Lateness beside the relay's."""
    p50, p99, grew, cpu = (book.median(case, OURS, name) for name in ("p50_ms", "p99_ms", "grew_ms", "cpu_percent"))
    measured = [f"p50 {p50:.1f} p99 {p99:.1f} max {book.median(case, OURS, 'max_ms'):.1f} ms"]
    checks: list[tuple[str, bool]] = []
    if book.has(case, "relay"):
        above = {name: book.above(case, OURS, name, "relay") for name in ("p50_ms", "p99_ms")}
        measured.append(f"p50 {above['p50_ms']:+.1f} p99 {above['p99_ms']:+.1f} ms to the relay")
        for name, most in (("p99_ms", p99_ms), ("p50_ms", p50_ms)):
            if most is not None:
                checks.append((f"{name[:3]} +{most:g} ms", above[name] <= most))
    if cpu_percent is not None:
        checks.append((f"CPU < {cpu_percent:g} %", cpu < cpu_percent))
    if checks:
        checks.append(("no growing lag", grew < _STEADY_MS))
    measured += [f"CPU {cpu:.0f} %", f"lag {grew:+.1f} ms a turn"]
    return Row(
        _title(case),
        ", ".join(text for text, _ in checks),
        ", ".join(measured) + _unfinished(book, case),
        all(met for _, met in checks) and not _unfinished(book, case) if checks else None,
        _replaced_late(book, case),
    )


def _replaced_late(book: Book, case: str) -> str:
    if not book.has(case, "replaced"):
        return ""
    if book.gave_up(case, "replaced"):
        return f"cannot keep up: {book.median(case, 'replaced', 'max_ms'):,.0f} ms late, did not finish"
    p50, p99, cpu = (book.median(case, "replaced", name) for name in ("p50_ms", "p99_ms", "cpu_percent"))
    return f"p50 {p50:.1f} p99 {p99:.1f} ms, CPU {cpu:.0f} %"


def _fan_out(book: Book) -> Iterator[Row]:
    for case in _cases(book, "fan-out/"):
        if not book.has(case, "sendmsg"):
            continue
        wall = 100 * book.ratio(case, OURS, "messages_per_s", "sendmsg")
        cpu = 100 * book.ratio(case, OURS, "messages_per_cpu_s", "sendmsg")
        asked = case == "fan-out/1000"
        yield Row(
            f"{_title(case)} clients, {book.median(case, OURS, 'bytes_each'):,.0f} bytes each",
            "60 % of sendmsg" if asked else "",
            f"{wall:.0f} % by wall, {cpu:.0f} % by CPU; {book.median(case, OURS, 'messages_per_s'):,.0f}/s"
            + _unfinished(book, case),
            wall >= 60 if asked else None,
            f"{100 * book.ratio(case, 'replaced', 'messages_per_s', 'sendmsg'):.0f} % by wall"
            if book.has(case, "replaced")
            else "",
        )


def _filters(book: Book) -> Iterator[Row]:
    if book.has("filters/200", OURS):
        yield attrs.evolve(_late(book, "filters/200", p99_ms=25), what="200 clients on 200 filters, 23,500 lines/s")
    for case in _cases(book, "filters/"):
        if not book.has(case, ONE):
            continue
        times = book.ratio(case, OURS, "cpu_s", ONE)
        cpu, one = book.median(case, OURS, "cpu_percent"), book.median(case, ONE, "cpu_percent")
        yield Row(
            case.removeprefix("filters/"),
            "2 x the CPU of one",
            f"{times:.1f} x: CPU {cpu:.0f} % and {one:.0f} %, p99 {book.median(case, OURS, 'p99_ms'):,.0f} ms{_unfinished(book, case)}",
            times <= 2 and not _unfinished(book, case),
            "cannot: asks every filter about every order",
        )


def _memory(book: Book) -> Iterator[Row]:
    peaks = {
        case: book.column(case, OURS, "peak_mib")
        for case, subjects in book.turns.items()
        if OURS in subjects and "peak_mib" in subjects[OURS][0]
    }
    if not peaks:
        return
    worst = max(peaks, key=lambda case: max(peaks[case]))
    peak = max(peaks[worst])
    # In other cases the ring is still being filled: they write less than it holds.
    growth = [each[-1] / each[len(each) // 2] for case, each in peaks.items() if case.startswith("catch-up/")]
    flat = f"; catching up, last round {max(growth):.2f} x the middle one" if growth else ""
    yield Row(
        "resident memory, the most of all cases",
        "< 200 MB, flat",
        f"{peak * 2**20 / 1e6:.0f} MB ({worst}){flat}",
        peak < _LIMIT_MIB and max(growth, default=0) < _FLAT,
    )


def _unfinished(book: Book, case: str) -> str:
    return "; DID NOT FINISH" if book.gave_up(case, OURS) else ""


def _cases(book: Book, prefix: str) -> list[str]:
    return [case for case, subjects in book.turns.items() if case.startswith(prefix) and OURS in subjects]


def _title(case: str) -> str:
    return case.removesuffix("/judged").replace("/", ", ")
