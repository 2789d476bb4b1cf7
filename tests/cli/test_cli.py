"""The program: one clear line for bad input, and where settings come from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import trio

from hyperwatch import __version__
from hyperwatch.cli.main import _exit_code, _options, program
from hyperwatch.config import default_workers


def ended(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """(exit code, what was said on standard error)."""
    code = _exit_code(arguments)
    return code, capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["run", "--wrokers", "2"], "No such option '--wrokers'. Did you mean '--workers'?"),
        (["rum"], "No such command 'rum'"),
        (["run", "--workers", "many"], "Invalid value for '--workers'"),
        (["run", "--workers", "0"], "0 is not in the range 1<=x<=64"),
        (["run", "--layout", "by_block"], "'by_block' is not one of 'plain', 'by-block', 'streaming'"),
        (["run", "--listen", "8000"], "--listen '8000' is not HOST:PORT: write it as 127.0.0.1:8000 or [::1]:8000"),
        (["run", "--listen", "localhost:http"], "--listen 'localhost:http' is not HOST:PORT"),
        (["run", "--listen", "127.0.0.1:99999"], "--listen '127.0.0.1:99999' has a port that is out of range"),
        (["run", "--listen", "127.0.0.1:0", "--data-dir", "/nowhere"], "/nowhere does not exist: name the node's"),
        (["--config", "/nowhere", "run"], "File '/nowhere' does not exist"),
        (["simulate"], "Missing argument 'DIR'"),
        (["run", "--data-dir", "/x/hl-node/data"], "may end such a process: give it by its environment variable"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_is_one_line_and_exit_code_2(
    capsys: pytest.CaptureFixture[str], arguments: Sequence[str], says: str
) -> None:
    code, said = ended(capsys, *arguments)

    assert code == 2
    assert said.startswith("hyperwatch: ")
    assert said.count("\n") == 1
    assert says in said


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Any]:
    """What `run` would run with, in place of running."""
    seen: dict[str, Any] = {}
    monkeypatch.setattr(trio, "run", lambda _, config: seen.update(workers=config.workers, ring=config.ring_bytes))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hyperwatch.toml").write_text('log-level = "ERROR"\nworkers = 7\n[run]\nring-bytes = 2000000\n')
    return seen


def test_a_flag_goes_before_the_environment_before_the_file_before_the_default(
    settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = ["--config", "hyperwatch.toml", "run"]

    assert _exit_code(["run", "--ring-bytes", "3000000"]) == 0
    assert settings == {"workers": default_workers(), "ring": 3_000_000}
    assert _exit_code(file) == 0
    assert settings == {"workers": 7, "ring": 2_000_000}
    monkeypatch.setenv("HYPERWATCH_WORKERS", "5")
    assert _exit_code(file) == 0
    assert settings == {"workers": 5, "ring": 2_000_000}
    assert _exit_code([*file, "--workers", "3"]) == 0
    assert settings == {"workers": 3, "ring": 2_000_000}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("workers = ", "hyperwatch.toml is no TOML"),
        ("wrokers = 3", "hyperwatch.toml sets 'wrokers', no such option"),
        ("[run]\nspeed = 3", "hyperwatch.toml sets 'speed' in [run], no such option"),
        ("[rum]\nworkers = 3", "hyperwatch.toml sets 'workers' in [rum], no such option"),
        ("workers = 'x'", "Invalid value for '--workers'"),
    ],
)
def test_a_bad_configuration_file_is_named(
    capsys: pytest.CaptureFixture[str], settings: dict[str, Any], text: str, says: str
) -> None:
    Path("hyperwatch.toml").write_text(text)
    code, said = ended(capsys, "--config", "hyperwatch.toml", "run")

    assert (code, settings) == (2, {})
    assert says in said
    assert said.count("\n") == 1


def test_the_file_takes_each_option_by_its_own_name_and_by_the_one_that_was_documented_before(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for key in ("stream", "streams"):
        data = tmp_path / key
        text = f'[simulate]\n{key} = "node_fills"\nblocks = 1\nrate = 0\n'
        (tmp_path / "settings.toml").write_text(text)
        assert ended(capsys, "--config", str(tmp_path / "settings.toml"), "simulate", str(data))[0] == 0
        assert [path.name for path in data.iterdir() if path.is_dir()] == ["node_fills_streaming"]
    every = {name: _options(command) for name, command in program.commands.items() if command.name != "quarantine"}
    assert every["watch"]["coin"] == every["watch"]["coins"] == "coins"
    assert every["watch"]["from"] == every["watch"]["start"] == "start"


@pytest.mark.parametrize(
    ("listen", "says"),
    [
        ("http://127.0.0.1:8000", "begins with the scheme http://: leave it out, as in 127.0.0.1:8000"),
        ("ws://[::1]:8000/ws", "begins with the scheme ws://: leave it out, as in [::1]:8000"),
        ("127.0.0.1:65536", "has a port that is out of range: choose one from 1 to 65535, or 0 for any that is free"),
        ("127.0.0.1:" + "9" * 5000, "has a port that is out of range"),
    ],
)
def test_an_address_with_a_scheme_or_a_port_out_of_range_is_told_so(
    capsys: pytest.CaptureFixture[str], settings: dict[str, Any], listen: str, says: str
) -> None:
    code, said = ended(capsys, "run", "--listen", listen)
    assert (code, settings) == (2, {})
    assert says in said


@pytest.mark.parametrize("command", [("gaps",), ("quarantine", "list")])
def test_an_empty_list_is_said_to_be_empty_where_programs_do_not_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: tuple[str, ...]
) -> None:
    assert _exit_code([*command, "--state-dir", str(tmp_path)]) == 0
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("none: no ")


def test_coins_between_commas_are_told_to_stand_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, said = ended(capsys, "replay", str(tmp_path), "--coin", "BTC,ETH")
    assert code == 2
    assert "--coin: 'BTC,ETH' is no coin: a comma stands in it; name each coin by itself" in said


def test_a_bad_environment_value_is_one_line_that_names_the_variable(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HYPERWATCH_WORKERS", "lots")
    code, said = ended(capsys, "run")

    assert code == 2
    assert "'--workers' (env var: 'HYPERWATCH_WORKERS'): 'lots'" in said
    assert said.count("\n") == 1


def test_every_option_also_reads_its_environment_variable() -> None:
    for command in program.commands.values():
        for parameter in command.params:
            if parameter.param_type_name == "option":
                word = max(parameter.opts, key=len).removeprefix("--").replace("-", "_").upper()
                assert parameter.envvar == f"HYPERWATCH_{word}", (command.name, parameter.name)


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert _exit_code(["--version"]) == 0
    assert capsys.readouterr().out == f"{__version__}\n"
