"""`hyperwatch doctor`: what it sees in a setup, and what it says to do."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from inotify_simple import INotify  # type: ignore[import-untyped]  # ships no types

from hyperwatch.cli.doctor import inotify, setup
from hyperwatch.cli.doctor.setup import Finding, Level
from hyperwatch.cli.doctor.writing import Growth, observe, times
from hyperwatch.cli.main import _exit_code
from hyperwatch.log.tree import Tree
from hyperwatch.node.streams import DIFFS, FILLS, ORDERS, Layout
from support import append, event, hour_file, line

NOW_NS = 1_778_002_754_000_000_000
UID = 10_000 if os.getuid() == 0 else os.getuid()
"""Who is not let in: root would be."""


def said(findings: Iterable[Finding]) -> list[tuple[Level, str]]:
    return [
        (finding.level, f"{finding.what} -> {finding.advice}" if finding.advice else finding.what)
        for finding in findings
    ]


def iso(ns: int) -> str:
    return f"{datetime.fromtimestamp(ns // 10**9, UTC):%Y-%m-%dT%H:%M:%S}.{ns % 10**9:09}"


def written(written_ns: int, block_ns: int) -> bytes:
    """A line, at these times."""
    return (
        line(7, [event(1)])
        .replace(b"2026-05-05T17:39:13.5", iso(written_ns).encode(), 1)
        .replace(b'"block_time":"2026-05-05T17:39:13.024084407"', b'"block_time":"%s"' % iso(block_ns).encode())
    )


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    append(hour_file(tmp_path, "20260505/17"), line(6, [event(1)]))
    os.utime(hour_file(tmp_path, "20260505/17"), ns=(NOW_NS, NOW_NS))
    return Tree(tmp_path, ORDERS, Layout.STREAMING)


def watched(tree: Tree, writes: Iterable[Callable[[int], bytes]]) -> Growth:
    """What is seen of writes that come every 100 ms, each told the time it comes at."""
    now_ns, coming = NOW_NS, list(writes)

    def sleep(_: float) -> None:
        nonlocal now_ns
        now_ns += 100_000_000
        if coming:
            append(tree.hourly / "20260505/17", coming.pop(0)(now_ns))
            os.utime(tree.hourly / "20260505/17", ns=(now_ns, now_ns))

    return observe(tree, 1, sleep=sleep, now_ns=lambda: now_ns, now_s=lambda: now_ns / 1e9)


def judged(tree: Tree, writes: Iterable[Callable[[int], bytes]]) -> list[tuple[Level, str]]:
    return said(times(tree, watched(tree, writes), now_ns=NOW_NS))


def test_a_node_that_writes_at_once_and_in_time_is_good(tree: Tree) -> None:
    assert judged(tree, [lambda now: written(now - 3_000_000, now - 303_000_000)] * 3) == [
        (Level.GOOD, "the node writes 300 ms after the blocks (median)"),
        (Level.GOOD, "lines are in the file 3 ms after the node's own time for them (median)"),
    ]


def test_output_that_is_buffered_is_seen_by_the_times_of_its_lines(tree: Tree) -> None:
    (_, buffered) = judged(tree, [lambda now: written(now - 400_000_000, now - 700_000_000)] * 3)
    assert buffered[0] is Level.ADVICE
    assert "400 ms after the node's own time for them: its output is buffered" in buffered[1]
    assert "start the node with --disable-output-file-buffering" in buffered[1]


def test_output_of_plain_events_that_is_buffered_is_seen_by_halves_of_lines(tree: Tree) -> None:
    half = event(1)[:100]
    ((level, text),) = judged(tree, [lambda _: event(1) + b"\n" + half, lambda _: event(1)[100:] + b"\n" + half])
    assert level is Level.ADVICE
    assert "ends in the middle of a line" in text
    assert "--disable-output-file-buffering" in text


def test_a_node_that_is_behind_the_chain_is_named(tree: Tree) -> None:
    level, text = judged(tree, [lambda now: written(now, now - 5_000_000_000)])[0]
    assert level is Level.ADVICE
    assert text.startswith("the node writes 5.0 s after the blocks (0.1 to 0.6 s are usual) -> it may be catching up")


@pytest.mark.parametrize(
    ("written_s", "block_s", "what"),
    [(3, 2, "the node's clock is 3.0 s ahead of ours"), (0, 4, "blocks are 4.0 s newer than the node's clock")],
)
def test_clocks_that_differ_are_named(tree: Tree, written_s: int, block_s: int, what: str) -> None:
    found = judged(tree, [lambda now: written(now + written_s * 10**9, now + block_s * 10**9)])
    assert found[0][0] is Level.BAD
    assert found[0][1].startswith(what)


def test_files_of_the_future_are_a_clock_that_differs(tree: Tree) -> None:
    ((level, text),) = said(times(tree, Growth(), now_ns=NOW_NS - 5 * 10**9))
    assert level is Level.BAD
    assert "was written 5.0 s in the future" in text


def test_a_node_that_does_not_write_is_named(tree: Tree) -> None:
    assert said(times(tree, Growth(), now_ns=NOW_NS + 61 * 10**9)) == [
        (Level.BAD, "the node has written no order for 61 s -> see whether it runs, and has peers")
    ]


def test_a_node_that_is_silent_for_the_moment_is_named(tree: Tree) -> None:
    ((level, text),) = judged(tree, [])
    assert level is Level.ADVICE
    assert text.startswith("the node wrote no order in 1 s, the last 0 s ago -> look for longer, as with --seconds 60")


def test_the_flags_of_the_node_are_seen_from_its_directories(tmp_path: Path) -> None:
    hour_file(tmp_path, "20260505/17", Layout.BY_BLOCK)
    hour_file(tmp_path, "20260505/17", Layout.STREAMING, FILLS)
    assert said(setup.layouts(tmp_path)) == [
        (Level.GOOD, "node_order_statuses_by_block: --write-order-statuses --batch-by-block"),
        (Level.GOOD, "node_fills_streaming: --write-fills --stream-with-block-info"),
    ]


def test_a_node_without_order_statuses_is_told_its_flags(tmp_path: Path) -> None:
    hour_file(tmp_path, "20260505/17", Layout.PLAIN, DIFFS)
    found = said(setup.layouts(tmp_path))
    assert found[0][0] is Level.BAD
    assert "start the node with --write-order-statuses --stream-with-block-info" in found[0][1]
    assert found[1] == (Level.GOOD, "node_raw_book_diffs: --write-raw-book-diffs")
    assert found[2][0] is Level.ADVICE
    assert "node_raw_book_diffs are plain" in found[2][1]


@pytest.mark.parametrize(("apart_s", "level", "words"), [(1, Level.ADVICE, "are written at once"), (3600, Level.GOOD, "is left from before")])  # fmt: skip
def test_two_layouts_at_once_are_told_from_one_that_was_left(
    tree: Tree, apart_s: int, level: Level, words: str
) -> None:
    other = hour_file(tree.root, "20260505/17", Layout.BY_BLOCK)
    append(other, line(6, [event(1)]))
    os.utime(other, ns=(NOW_NS - apart_s * 10**9,) * 2)
    *_, last = said(setup.layouts(tree.root))
    assert last[0] is level
    assert words in last[1]


def test_a_client_that_is_away_longer_than_files_are_kept_is_thought_of(tmp_path: Path) -> None:
    tree = Tree(tmp_path, ORDERS, Layout.STREAMING)
    append(hour_file(tmp_path, "20260505/9"), written(NOW_NS - 5 * 3600 * 10**9, NOW_NS))
    append(hour_file(tmp_path, "20260505/10"), written(NOW_NS, NOW_NS))
    now_s = NOW_NS / 1e9

    assert said(setup.reach(tree, 5, now_s=now_s)) == [(Level.GOOD, f"{tree.hourly} reaches 5.0 hours back")]
    ((level, text),) = said(setup.reach(tree, 24, now_s=now_s))
    assert level is Level.ADVICE
    assert "keep 24 hours" in text


@pytest.mark.parametrize(("hours", "level"), [(1, Level.BAD), (12, Level.ADVICE), (48, Level.GOOD)])
def test_the_room_that_is_left_is_measured_in_hours(tmp_path: Path, hours: int, level: Level) -> None:
    tree = Tree(tmp_path, ORDERS, Layout.STREAMING)
    append(hour_file(tmp_path, "20260505/9"), bytes(1000))
    append(hour_file(tmp_path, "20260505/10"), bytes(10))
    ((found, text),) = said(setup.room([tree], tmp_path, free_bytes=1000 * hours))
    assert found is level
    assert f"room for {hours} hours" in text


def test_the_file_system_of_a_path_is_the_innermost_mount() -> None:
    mounts = (
        "3 2 0:6 / /data/with\\040blank rw - tmpfs tmpfs rw\n"
        "2 1 0:5 / /data rw master:1 - nfs4 server:/ rw\n"
        "1 0 8:1 / / rw - ext4 /dev/a rw\n"
    )
    assert inotify.file_system(Path("/home/x"), mounts) == "ext4"
    assert inotify.file_system(Path("/data/hourly"), mounts) == "nfs4"
    assert inotify.file_system(Path("/data/with blank/x"), mounts) == "tmpfs"
    assert inotify.file_system(Path("/database"), mounts) == "ext4"


def test_a_directory_that_changes_without_events_is_polled(tmp_path: Path) -> None:
    ear = inotify.InotifyProbe(tmp_path)
    try:
        assert [level for level, _ in said(ear.findings(tmp_path, grew=True, kind="nfs4"))] == [Level.ADVICE]
        (tmp_path / "x").write_text("y")
        assert [level for level, _ in said(ear.findings(tmp_path, grew=True, kind="ext4"))] == [Level.GOOD]
        assert said(ear.findings(tmp_path, grew=False, kind="ext4")) == []
        ((level, text),) = said(ear.findings(tmp_path, grew=False, kind="fuse.sshfs"))
    finally:
        ear.close()
    assert level is Level.ADVICE
    assert "may not tell of changes" in text


def test_inotify_that_is_used_up_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(**_: Any) -> INotify:  # noqa: ANN401
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(inotify, "INotify", none_left)
    ear = inotify.InotifyProbe(tmp_path)
    ((level, text),) = said(ear.findings(tmp_path, grew=True, kind="ext4"))
    ear.close()
    assert level is Level.ADVICE
    assert "no inotify (Too many open files)" in text
    assert "fs.inotify.max_user_instances" in text


def test_a_limit_of_few_inotify_instances_is_named(tmp_path: Path) -> None:
    assert said(inotify.limits(tmp_path)) == []
    (tmp_path / "max_user_instances").write_text("3\n")
    ((level, text),) = said(inotify.limits(tmp_path))
    assert level is Level.ADVICE
    assert "may have 3 inotify instances" in text


def test_a_good_setup_is_good_and_a_missing_one_is_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    append(hour_file(tmp_path, "20260505/17"), line(6, [event(1)]))
    arguments = ["doctor", "--data-dir", str(tmp_path), "--state-dir", str(tmp_path / "state"), "--seconds", "0"]
    assert _exit_code(arguments) == 0
    told = capsys.readouterr().out
    assert "ok      node_order_statuses_streaming" in told
    assert "can be written" in told
    assert not (tmp_path / "state").exists(), "it only reads"
    assert _exit_code(["doctor", "--data-dir", str(tmp_path / "x"), "--state-dir", str(tmp_path)]) == 1
    assert f"bad     the data directory {tmp_path / 'x'} does not exist" in capsys.readouterr().out


@pytest.fixture
def others() -> Iterator[Path]:
    """A data directory that another user may come to."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        root.chmod(0o755)
        append(hour_file(root, "20260505/17"), line(6, [event(1)]))
        yield root
        for folder, names, _ in os.walk(root):
            for each in names:
                Path(folder, each).chmod(0o755)  # before it is walked into


def as_another(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The program as another user than root, who need not be able to read the interpreter: all is imported before."""
    become = f"os.setgroups([]); os.setgid({UID}); os.setuid({UID})\n" if os.getuid() == 0 else ""
    script = (
        f"import os, sys, encodings.idna; from hyperwatch.cli.main import main; import trio\n{become}main(sys.argv[1:])"
    )
    clean = {key: value for key, value in os.environ.items() if not key.startswith("HYPERWATCH_")}
    command = [sys.executable, "-c", script, *arguments]
    return subprocess.run(command, env=clean, capture_output=True, text=True, timeout=30, check=False)


@pytest.mark.parametrize("which", ["directory", "day", "file"])
def test_what_cannot_be_read_is_named_with_the_uid_by_doctor_and_by_run(others: Path, which: str) -> None:
    path = hour_file(others, "20260505/17")
    closed = {"directory": path.parents[1], "day": path.parent, "file": path}[which]
    closed.chmod(0)
    told = as_another("doctor", "--data-dir", str(others), "--state-dir", "/nowhere", "--seconds", "0")
    assert told.returncode == 1
    assert f"bad     {closed} cannot be read by uid {UID}" in told.stdout
    assert f"bad     the state directory /nowhere cannot be written by uid {UID}" in told.stdout
    own = others / "state"
    own.mkdir()
    os.chown(own, UID, -1)
    address = ["--listen", "127.0.0.1:0", "--metrics-listen="]
    run = as_another("run", "--data-dir", str(others), "--state-dir", str(own), *address)
    assert run.returncode == 2, run.stderr
    assert f"{closed} cannot be read by uid {UID}" in run.stderr.splitlines()[-1]


@pytest.mark.parametrize(("which", "mode"), [("home", 0o600), ("day", 0o644)])
def test_a_directory_that_lets_nobody_pass_is_named_by_doctor_and_by_run(others: Path, which: str, mode: int) -> None:
    data = others / "home" / "data"
    path = hour_file(data, "20260505/17")
    append(path, line(6, [event(1)]))
    closed = {"home": data.parent, "day": path.parent}[which]
    told = f"{closed} cannot be entered by uid {UID}, so {data if which == 'home' else path} cannot be read"
    closed.chmod(mode)
    doctor = as_another("doctor", "--data-dir", str(data), "--state-dir", str(data / "state"), "--seconds", "0")
    assert f"bad     {told}\n        -> let that user pass" in doctor.stdout
    if which == "home":
        assert f"bad     the state directory {data / 'state'} cannot be written by uid {UID}" in doctor.stdout
    assert (doctor.returncode, doctor.stderr) == (1, "")
    own = others / "state"
    own.mkdir()
    os.chown(own, UID, -1)
    address = ["--listen", "127.0.0.1:0", "--metrics-listen="]
    run = as_another("run", "--data-dir", str(data), "--state-dir", str(own), *address)
    assert (run.returncode, run.stderr.splitlines()[-1]) == (
        2,
        f"hyperwatch: {told}: let that user pass (chmod o+x, or an ACL), or run hyperwatch as the user that owns it",
    )
    gaps = as_another("gaps", "--state-dir", str(data.parent / "state"))
    assert (gaps.returncode, len(gaps.stderr.splitlines())) == (2, 1)


def test_one_stream_that_cannot_be_read_does_not_hide_the_others(others: Path) -> None:
    path = hour_file(others, "20260505/17", stream=FILLS)
    append(path, line(6, []))
    path.parents[1].chmod(0)
    told = as_another("doctor", "--data-dir", str(others), "--state-dir", "/nowhere", "--seconds", "0").stdout
    assert f"bad     {path.parents[1]} cannot be read by uid {UID}" in told
    assert f"ok      uid {UID} may read {hour_file(others, '20260505/17').parents[1]}" in told


def test_a_streams_own_directory_is_told_from_the_nodes(tree: Tree) -> None:
    for inner in (tree.hourly, tree.hourly.parent):
        assert said(setup.layouts(inner)) == [
            (
                Level.BAD,
                f"{inner} has no order statuses -> it is one stream's own directory: say --data-dir {tree.root}",
            )
        ]


def test_what_this_user_cannot_read_is_a_finding(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(setup, "PlainFile", closed)
    ((level, text),) = said(setup.readable(tree))
    assert level is Level.BAD
    assert f"{tree.hourly / '20260505/17'} cannot be read by uid {os.getuid()}: Permission denied" in text


def test_a_clock_that_is_set_back_does_not_make_it_look_for_ever(tmp_path: Path) -> None:
    append(hour_file(tmp_path, "20260505/17"), line(7, [event(1)]))
    looked_s = 0.0

    def sleep(seconds: float) -> None:
        nonlocal looked_s
        looked_s += seconds
        assert looked_s < 2

    observe(Tree(tmp_path, ORDERS, Layout.STREAMING), 1, sleep=sleep, now_ns=lambda: 0, now_s=lambda: looked_s)
    assert looked_s == pytest.approx(1, abs=0.2)
