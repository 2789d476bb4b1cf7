"""Whatever the environment refuses ends in one line that says what to do, never in a traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from loguru import logger

from hyperwatch import logs

NUL = "\x00"


def ran(*arguments: str, stdout: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    """A command as a process of its own, with no more of an environment than is given."""
    clean = {"PATH": os.environ["PATH"], **environment}
    command = [sys.executable, "-m", "hyperwatch", *arguments]
    with open(stdout or os.devnull, "w") as out:  # noqa: PTH123  a device
        return subprocess.run(
            command, env=clean, stdout=out, stderr=subprocess.PIPE, text=True, timeout=30, check=False
        )


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("run", "--data-dir", "~nobody-is-called-so/x"), "there is no such home directory"),
        (("run", "--data-dir", "{here}", "--state-dir", "~nobody-is-called-so/x"), "--state-dir"),
        (("doctor", "--data-dir", "~nobody-is-called-so/x", "--state-dir", "{here}"), "--data-dir"),
        (("gaps", "--state-dir", "~nobody-is-called-so/x"), "--state-dir"),
        (("quarantine", "list", "--state-dir", "~nobody-is-called-so/x"), "--state-dir"),
        (("replay", "~nobody-is-called-so/x"), "there is no such home directory"),
        (("run", "--data-dir", "{here}", "--tokens-file", "~nobody-is-called-so/x"), "--tokens-file"),
        (("run", "--data-dir", "{file}/below"), "--data-dir"),
        (("run", "--data-dir", "{file}"), "--data-dir"),
        (("run", "--data-dir", "{here}", "--state-dir", "{file}/below"), "--state-dir"),
        (("gaps", "--state-dir", "{file}"), "{file}"),
        (("replay", "{file}/below"), "{file}/below"),
        (("simulate", "{file}"), "{file}"),
        (("config", "--config", "{here}"), "--config"),
    ],
)
def test_a_path_that_cannot_be_is_one_line_that_names_it(tmp_path: Path, arguments: tuple[str, ...], says: str) -> None:
    file = tmp_path / "file"
    file.write_text("no node wrote this\n")
    words = [word.format(here=tmp_path, file=file) for word in arguments]
    ended = ran(*words, HOME=str(tmp_path))
    assert ended.returncode in (1, 2), ended.stderr
    assert "Traceback" not in ended.stderr
    assert len(ended.stderr.splitlines()) == 1, ended.stderr
    assert says.format(file=file) in ended.stderr


@pytest.mark.parametrize("key", ["data-dir", "state-dir", "tokens-file"])
def test_a_nul_character_in_a_path_of_the_settings_is_one_line(tmp_path: Path, key: str) -> None:
    settings = tmp_path / "settings.toml"
    settings.write_text(f'data-dir = "{tmp_path}"\n' * (key != "data-dir") + f'{key} = "/tmp/a\\u0000b"\n')
    ended = ran("--config", str(settings), "run", HOME=str(tmp_path))
    assert ended.returncode == 2, ended.stderr
    assert "Traceback" not in ended.stderr
    assert "NUL character" in ended.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a device that is always full")
@pytest.mark.parametrize("arguments", [("config",), ("--help",), ("run", "--help")])
def test_standard_output_that_is_full_is_one_line(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    ended = ran(*arguments, stdout="/dev/full", HOME=str(tmp_path))
    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr
    assert "No space left on device" in ended.stderr


def test_a_traceback_in_the_log_shows_no_values(capsys: pytest.CaptureFixture[str]) -> None:
    logs.to_stderr("INFO", "text")
    token = "SECRETTOKEN" + "OF-A-CLIENT"
    try:
        int(token)
    except ValueError as error:
        error.args = ("no number",)
        logger.exception("a fault")
    logs.flush()
    said = capsys.readouterr().err
    assert "ValueError" in said
    assert token not in said
