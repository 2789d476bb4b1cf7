"""What the environment is not: no home, paths that are none, streams that are closed. Each is a line, never a traceback."""

from __future__ import annotations

import ctypes
import errno
import os
import pwd
import resource
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import click
import pytest
import trio

from hyperwatch.cli.doctor import inotify
from hyperwatch.cli.main import _exit_code, program
from hyperwatch.cli.options import NumberRange
from hyperwatch.config import Address
from hyperwatch.errors import UsageError
from hyperwatch.ledger.state_dir import StateDir
from hyperwatch.node.slices import UnreadableLine
from hyperwatch.runtime import memory
from hyperwatch.runtime.log_writer import Drain
from hyperwatch.server.limits import open_files, raise_open_files
from hyperwatch.service.service import listen
from hyperwatch.simulate.hour_files import simulate

RUN = ("run", "--metrics-listen=", "--listen", "127.0.0.1:0")


def one_line(capsys: pytest.CaptureFixture[str], arguments: Sequence[str]) -> str:
    """What a command says that ends with 1 or 2."""
    assert _exit_code(arguments) in (1, 2)
    said = capsys.readouterr().err
    assert (said.startswith("hyperwatch: "), said.count("\n")) == (True, 1), said
    return said


@pytest.fixture
def no_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user whom the system does not know, as in a container."""

    def nobody(_: object) -> NoReturn:
        raise KeyError

    for name in ("HOME", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", nobody)
    monkeypatch.setattr(pwd, "getpwnam", nobody)


@pytest.mark.usefixtures("no_home")
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([*RUN, "--state-dir", "/x"], "--data-dir"),
        ([*RUN, "--data-dir", "/x"], "--state-dir"),
        ([*RUN, "--data-dir", "/x", "--state-dir", "~/x"], "--state-dir"),
        ([*RUN, "--data-dir", "/x", "--state-dir", "/x", "--tokens-file", "~/x"], "--tokens-file"),
        (["config"], "-dir"),
        (["doctor"], "-dir"),
        (["gaps"], "--state-dir"),
        (["quarantine", "list"], "--state-dir"),
        (["quarantine", "show", "1"], "--state-dir"),
        (["replay", "~/x"], "PATH..."),
        (["simulate", "~nobody/x"], "DIR"),
        (["--config", "~/x", "config"], "--config"),
    ],
)
def test_without_a_home_a_command_says_which_path_it_needs(
    capsys: pytest.CaptureFixture[str], arguments: Sequence[str], says: str
) -> None:
    said = one_line(capsys, arguments)
    assert says in said
    assert "no home directory" in said


@pytest.fixture(params=["a loop", "a long name", "below a file", "a file", "a fifo", "other bytes"])
def odd(tmp_path: Path, request: pytest.FixtureRequest) -> str:
    """A path that is no directory."""
    (tmp_path / "file").write_bytes(b"\xff\xfe")
    (tmp_path / "loop").symlink_to("loop")
    os.mkfifo(tmp_path / "fifo")
    return {
        "a loop": f"{tmp_path}/loop",
        "a long name": "x" * 5000,
        "below a file": f"{tmp_path}/file/below/it",
        "a file": f"{tmp_path}/file",
        "a fifo": f"{tmp_path}/fifo",
        "other bytes": os.fsdecode(b"%b/file/\xff\xfe" % os.fsencode(tmp_path)),
    }[str(request.param)]


@pytest.mark.parametrize(
    "arguments",
    [
        [*RUN, "--state-dir", "STATE", "--data-dir", "ODD"],
        [*RUN, "--data-dir", "DATA", "--state-dir", "ODD"],
        [*RUN, "--data-dir", "DATA", "--state-dir", "STATE", "--tokens-file", "ODD"],
        ["gaps", "--state-dir", "ODD"],
        ["quarantine", "list", "--state-dir", "ODD"],
        ["simulate", "ODD", "--blocks", "1", "--rate", "0"],
        ["replay", "ODD"],
        ["--config", "ODD", "config"],
    ],
    ids=" ".join,
)
def test_a_path_that_cannot_be_used_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], odd: str, arguments: Sequence[str]
) -> None:
    if odd.endswith("fifo") and {"--tokens-file", "--config"} & {*arguments}:
        pytest.skip("a pipe is a good place for these")
    (tmp_path / "data").mkdir()
    names = {"ODD": odd, "DATA": str(tmp_path / "data"), "STATE": str(tmp_path / "state")}
    one_line(capsys, [names.get(word, word) for word in arguments])


def test_doctor_says_of_any_paths_what_is_wrong(capsys: pytest.CaptureFixture[str], odd: str) -> None:
    if not odd.isprintable():
        pytest.skip("the program sets its own standard output, which this is not")
    assert _exit_code(["doctor", "--seconds", "0", "--data-dir", odd, "--state-dir", f"{odd}/state"]) == 1
    out, err = capsys.readouterr()
    assert f"bad     {odd}" in out or f"bad     the data directory {odd}" in out
    assert ("bad     the state directory" in out, err) == (not odd.startswith("xxx"), "")


@pytest.mark.parametrize(
    "value", [r'"a\u0000b"', "5", "[1]", "true", "{a=1}", "1979-05-27", "1e999", "nan", '""', "0x" + "f" * 5000]
)
@pytest.mark.parametrize("command", ["config", "gaps", "doctor", "replay", "watch", "run"])
def test_no_value_of_the_configuration_file_ends_in_a_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], value: str, command: str
) -> None:
    monkeypatch.setattr(trio, "run", lambda *_: 0)
    monkeypatch.chdir(tmp_path)
    words = {"replay": ["replay", str(tmp_path)], "watch": ["watch", "127.0.0.1:1"]}.get(command, [command])
    for option in program.commands[command if command != "config" else "run"].params:
        for name in option.opts if isinstance(option, click.Option) else ():
            (tmp_path / "c.toml").write_text(f"{name.removeprefix('--')} = {value}\n")
            assert _exit_code(["--config", "c.toml", *words]) in (0, 1, 2)
            assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("text", ["9" * 5000, "[" * 5000, "a = '\\ud800'", "a = 1\na = 2"])
def test_a_configuration_file_that_is_none_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    (tmp_path / "c.toml").write_text(f"workers = {text}")
    assert "is no TOML" in one_line(capsys, ["--config", str(tmp_path / "c.toml"), "config"])


@pytest.mark.parametrize("option", ["--coin", "--user", "--status", "--tif", "--cloid", "--from"])
def test_a_word_that_is_no_text_is_one_line(capsys: pytest.CaptureFixture[str], option: str) -> None:
    assert "is no text: write it in UTF-8" in one_line(capsys, ["watch", "127.0.0.1:1", option, os.fsdecode(b"\xff")])


@pytest.mark.parametrize("host", ["a" * 70, os.fsdecode(b"\xff"), "a\nb", "a..b", "\0"])
@pytest.mark.parametrize("command", [RUN[:1], ("healthcheck",), ("demo",), ("replay", "/x", "--to", "ws")])
def test_a_host_that_can_be_none_is_one_line(
    capsys: pytest.CaptureFixture[str], host: str, command: Sequence[str]
) -> None:
    assert "has a host that can be none" in one_line(capsys, [*command, "--listen", f"{host}:8000"])


def test_no_option_takes_what_is_no_number() -> None:
    options = [param for command in program.commands.values() for param in command.params]
    assert not [param.name for param in options if type(param.type) is click.FloatRange]
    numbers = [param for param in options if isinstance(param.type, NumberRange)]
    assert len(numbers) > 10
    for param in numbers:
        with pytest.raises(click.BadParameter):
            param.type.convert("nan", param, None)


@pytest.mark.parametrize(
    "arguments",
    [["healthcheck", "--timeout", "inf"], ["healthcheck", "--timeout", "1e300"], ["doctor", "--seconds", "inf"],
     ["simulate", "x", "--start", "9999-12-31T23:59:59", "--rate", "0", "--blocks", "9"]],
)  # fmt: skip
def test_a_time_without_an_end_is_one_line(capsys: pytest.CaptureFixture[str], arguments: Sequence[str]) -> None:
    one_line(capsys, arguments)


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EIO, os.strerror(errno.EIO), "/a/file"),
        ExceptionGroup("", [ExceptionGroup("", [OSError(errno.EIO, os.strerror(errno.EIO), "/a/file")])]),
    ],
)
def test_what_the_system_refuses_anywhere_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Exception
) -> None:
    def fail(*_: object) -> NoReturn:
        raise error

    monkeypatch.setattr(trio, "run", fail)
    said = one_line(capsys, [*RUN, "--data-dir", str(tmp_path), "--state-dir", str(tmp_path / "state")])
    assert "/a/file cannot be used (Input/output error)" in said


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (OSError(errno.EACCES, os.strerror(errno.EACCES)), "Permission denied: choose a port above 1023"),
        (OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE)), "Address already in use: choose another port"),
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), "Name or service not known: choose an addr"),
    ],
)
async def test_an_address_that_cannot_be_listened_on_is_one_line_with_its_own_remedy(
    monkeypatch: pytest.MonkeyPatch, error: OSError, says: str
) -> None:
    async def refuse(*_: object, **__: object) -> NoReturn:
        await trio.lowlevel.checkpoint()
        raise error

    monkeypatch.setattr(trio, "open_tcp_listeners", refuse)
    with pytest.raises(UsageError, match=says):
        await listen(Address("localhost", 80))


STREAMS = {
    "closed input": '"$@" <&-',
    "closed output": '"$@" >&-',
    "closed error": '"$@" 2>&-',
    "all closed": '"$@" <&- >&- 2>&-',
    "full output": '"$@" >/dev/full',
    "full error": '"$@" 2>/dev/full',
    "nobody reads": '"$@" | true',
    "a terminal of no size": 'COLUMNS=x LINES=-1 TERM= "$@"',
    "no letters": 'LC_ALL=C PYTHONUTF8=0 PYTHONCOERCECLOCALE=0 PYTHONIOENCODING=ascii "$@"',
    "nowhere to put files": 'TMPDIR=/no/where "$@"',
    "a directory that is gone": 'mkdir gone && cd gone && rmdir ../gone && "$@"',
}


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("places")
    simulate(root / "data", rate=0, blocks=1)
    with StateDir(root / "state") as state:
        state.keep("20260505/9", [UnreadableLine(5, 3, "torn \u2603", b"\x00\xff\n")])
    return root


@pytest.mark.parametrize("stream", STREAMS)
@pytest.mark.parametrize(
    "arguments",
    [
        ["quarantine", "list", "--state-dir", "ROOT/state"],
        ["quarantine", "show", "1", "--state-dir", "ROOT/state"],
        ["doctor", "--seconds", "0", "--data-dir", "ROOT/\udcff", "--state-dir", "ROOT/state"],
        ["config", "--data-dir", "ROOT/\udcff", "--state-dir", "ROOT/state"],
        ["replay", "ROOT/data"],
        ["watch", "127.0.0.1:1"],
    ],
    ids=lambda words: words[0] if isinstance(words, list) else words,
)
def test_a_command_ends_in_order_whatever_its_streams_and_its_place_are(
    tmp_path: Path, places: Path, stream: str, arguments: Sequence[str]
) -> None:
    words = [word.replace("ROOT", str(places)) for word in arguments]
    shell = ["bash", "-c", f"set -o pipefail; {STREAMS[stream]}", "sh", sys.executable, "-m", "hyperwatch", *words]
    done = subprocess.run(shell, cwd=tmp_path, capture_output=True, check=False, timeout=60)
    assert done.returncode in (0, 1, 2)
    assert b"Traceback" not in done.stderr
    assert done.stderr.count(b"\n") <= 4, done.stderr.decode()


def test_a_mount_whose_name_is_other_bytes_is_looked_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mounts").write_bytes(b"1 1 0:1 / /\xff\xfe rw - ext4 x rw\n2 1 0:2 / / rw - xfs x rw\n")
    monkeypatch.setattr(inotify, "_MOUNTS", tmp_path / "mounts")
    assert inotify.file_system(tmp_path) == "xfs"


def test_a_c_library_that_cannot_be_asked_is_done_without(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(_: object) -> NoReturn:
        raise OSError

    monkeypatch.setattr(ctypes, "CDLL", none)
    assert not memory.keep_flat()
    memory.give_back()


def test_a_limit_of_open_files_that_cannot_be_raised_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> NoReturn:
        raise ValueError

    monkeypatch.setattr(resource, "setrlimit", refuse)
    raise_open_files()
    before = open_files()
    with open(os.devnull, "rb"):  # noqa: PTH123  any
        assert open_files() == before + 1
    monkeypatch.setattr(os, "listdir", lambda _: (_ for _ in ()).throw(FileNotFoundError()))
    assert open_files() == 3


def test_a_log_for_which_there_is_no_thread_yet_is_written_when_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[bytes] = []
    drain = Drain(written.append, lambda _: None)

    def refuse(_: object) -> NoReturn:
        raise RuntimeError

    with monkeypatch.context() as context:
        context.setattr(threading.Thread, "start", refuse)
        drain.put(b"a")
    drain.put(b"b")
    assert drain.flush(10)
    assert b"".join(written) == b"ab"
