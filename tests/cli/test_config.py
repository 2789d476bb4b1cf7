"""`hyperwatch config`, and the page of settings."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from hyperwatch.cli.main import _exit_code, program

DOCS = Path(__file__).resolve().parents[2] / "docs"


def shown(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, tuple[str, str]]:
    """(value, where it came from), by option."""
    capsys.readouterr()
    assert _exit_code(arguments) == 0
    rows = [line.split("  ") for line in capsys.readouterr().out.splitlines()]
    return {
        cells[0].strip(): (cells[-2].strip() or next(filter(None, cells[1:-1])).strip(), cells[-1].strip())
        for cells in rows
    }


def test_every_setting_is_shown_with_where_it_came_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "settings.toml"
    file.write_text('workers = 3\ngrace = 7\n[run]\nallow-origin = ["https://a.example", "https://b.example"]\n')
    monkeypatch.setenv("HYPERWATCH_GRACE", "8")
    monkeypatch.setenv("HYPERWATCH_STALL", "9")
    found = shown(capsys, "--config", str(file), "config", "--stall", "10")

    assert found["--workers"] == ("3", str(file))
    assert found["--allow-origin"] == ("https://a.example https://b.example", str(file))
    assert found["--grace"] == ("8.0", "HYPERWATCH_GRACE")
    assert found["--stall"] == ("10.0", "the command line")
    assert found["--listen"] == ("127.0.0.1:8000", "default")
    assert found["--layout"] == ("(the one with the newest data)", "default")
    assert set(found) == {param.opts[0] for param in program.commands["run"].params} | {"HYPERWATCH_TOKENS"}


def test_a_variable_that_is_empty_on_purpose_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert shown(capsys, "config")["--metrics-listen"] == ("127.0.0.1:9464", "default")
    monkeypatch.setenv("HYPERWATCH_METRICS_LISTEN", "")
    assert shown(capsys, "config")["--metrics-listen"] == ("(none)", "HYPERWATCH_METRICS_LISTEN")


def test_secrets_are_starred(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("HYPERWATCH_TOKENS", "first-of-the-secrets second-of-the-secrets")
    monkeypatch.setenv("HYPERWATCH_INFO_URL", "http://somebody:secret@127.0.0.1:3001/info")
    found = shown(capsys, "config")
    assert found["HYPERWATCH_TOKENS"] == ("**** ****", "HYPERWATCH_TOKENS")
    assert found["--info-url"] == ("http://****@127.0.0.1:3001/info", "HYPERWATCH_INFO_URL")


def test_what_run_would_refuse_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert _exit_code(["config", "--workers", "many"]) == 2
    assert "Invalid value for '--workers'" in capsys.readouterr().err
    assert _exit_code(["config", "--wrokers", "2"]) == 2
    assert "did you mean '--workers'" in capsys.readouterr().err.lower()


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("LISTEN", "8000"),
        ("METRICS_LISTEN", "9464"),
        ("ALLOW_ORIGIN", "nonsense"),
        ("INFO_URL", "nonsense"),
        ("TOKENS", "short"),
        ("TOKENS_FILE", "/nowhere"),
        ("WORKERS", "many"),
        ("LAYOUT", "round"),
    ],
)
def test_a_bad_value_in_the_environment_is_one_line_that_names_it(
    variable: str, value: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(f"HYPERWATCH_{variable}", value)
    assert _exit_code(["config"]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    (line,) = told.err.splitlines()
    assert f"--{variable.lower().replace('_', '-')}" in line or f"HYPERWATCH_{variable}" in line


def test_a_variable_that_is_nearly_a_setting_is_named_and_others_are_not(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("DATADIR", "LISTEN", "TOKEN", "PORT", "SERVICE_HOST"):  # the last two are of Kubernetes
        monkeypatch.setenv(f"HYPERWATCH_{name}", "127.0.0.1:8000")
    assert _exit_code(["config"]) == 0
    told = capsys.readouterr().err
    assert told == "HYPERWATCH_DATADIR is no setting, and is not seen: did you mean HYPERWATCH_DATA_DIR?\n"


def test_run_says_at_the_start_what_is_misspelled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HYPERWATCH_WROKERS", "3")
    missing = ["--data-dir", str(tmp_path / "x"), "--state-dir", str(tmp_path), "--listen", "127.0.0.1:0"]
    assert _exit_code(["run", *missing]) == 2
    warning, error = capsys.readouterr().err.splitlines()
    assert "WARNING HYPERWATCH_WROKERS is no setting, and is not seen: did you mean HYPERWATCH_WORKERS?" in warning
    assert "does not exist" in error


def test_the_page_of_settings_is_made_from_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(DOCS))
    made = importlib.import_module("make_configuration")
    assert (DOCS / "configuration.md").read_text() == made.page(), "run `make docs`"


def test_the_page_has_every_option_of_every_command() -> None:
    page = (DOCS / "configuration.md").read_text()
    options = [
        param.opts[0]
        for command in program.commands.values()
        for param in command.params
        if param.opts[0].startswith("--")
    ]
    assert [name for name in options if f"| `{name}" not in page] == []


def test_the_file_is_read_by_commands_of_a_group_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "settings.toml"
    file.write_text(f'state-dir = "{tmp_path / "nowhere"}"\n')
    assert _exit_code(["--config", str(file), "quarantine", "list"]) == 2
    assert f"--state-dir {tmp_path / 'nowhere'} does not exist" in capsys.readouterr().err
