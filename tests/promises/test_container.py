"""The image, the compose file and the unit, as far as they can be checked without Docker and systemd."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import click
import pytest
import websockets.sync.client
import yaml  # type: ignore[import-untyped]  # its stubs are a package of their own

from hyperwatch.cli.main import program
from hyperwatch.node.streams import Layout
from support import append, event, hour_file, line, lines_of, needs, works

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
UNIT = ROOT / "deploy" / "systemd" / "hyperwatch.service"
NODE_USER = 20_000
"""Whose the node's files are in these tests: neither ours nor the service's."""


def instructions() -> list[tuple[str, str]]:
    """(name, arguments) of each instruction of the Dockerfile, its lines joined."""
    joined = re.sub(r"\\\n\s*", "", re.sub(r"^#.*\n", "", DOCKERFILE, flags=re.MULTILINE))
    found = [each.partition(" ") for each in joined.splitlines() if each]
    return [(name, arguments.strip()) for name, _, arguments in found]


def last_stage() -> dict[str, str]:
    """What holds in the image; of what is there more than once, the last."""
    every = instructions()
    start = max(number for number, (name, _) in enumerate(every) if name == "FROM")
    return dict(every[start:])


def image_environment() -> dict[str, str]:
    return dict(re.findall(r"(\w+)=(\S+)", last_stage()["ENV"]))


def unit_environment() -> dict[str, str]:
    return dict(re.findall(r"^Environment=(\w+)=(\S+)$", UNIT.read_text(), re.MULTILINE))


def services() -> dict[str, dict[str, Any]]:
    document: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
    return dict(document["services"])


def ours() -> dict[str, dict[str, Any]]:
    """The services that run our image."""
    return {name: service for name, service in services().items() if service["image"] == "hyperwatch"}


def sidecars() -> dict[str, dict[str, Any]]:
    return {name: service for name, service in ours().items() if "ports" in service}


# The image


def test_the_image_starts_the_program_itself_as_the_nodes_user_and_is_stopped_in_order() -> None:
    image = last_stage()
    assert json.loads(image["ENTRYPOINT"]) == ["hyperwatch"]
    assert json.loads(image["CMD"]) == ["run"]
    assert json.loads(re.findall(r"CMD (.*)", image["HEALTHCHECK"])[0]) == ["hyperwatch", "healthcheck"]
    assert image["USER"] == "10000:10000"
    assert image["STOPSIGNAL"] == "SIGTERM"
    assert image_environment()["HYPERWATCH_LISTEN"] == "0.0.0.0:8000"
    assert image["EXPOSE"].split()[0] == "8000"


def test_the_image_takes_no_dependency_without_its_hash() -> None:
    installs = [text for name, text in instructions() if name == "RUN" and " install " in text and "pip" in text]
    assert [("--require-hashes" in text, "--no-deps" in text) for text in installs] == [(True, False), (False, True)]


def test_what_the_image_copies_is_let_in_by_dockerignore_and_nothing_else_is() -> None:
    ignore = [text for text in (ROOT / ".dockerignore").read_text().splitlines() if not text.startswith("#")]
    copied = [text.split()[:-1] for name, text in instructions() if name == "COPY" and "--from" not in text]
    assert ignore[0] == "*"
    assert {text[1:] for text in ignore if text.startswith("!")} == {name for names in copied for name in names}


def test_every_command_and_variable_that_is_set_is_one_of_the_programs() -> None:
    known = {option.envvar for command in program.commands.values() for option in command.params}
    set_for_us = image_environment().keys() | unit_environment().keys()
    commands = [service["command"][0] for service in ours().values() if "command" in service]
    commands += [service["healthcheck"]["test"][2] for service in sidecars().values()]
    assert {name for name in set_for_us if name.startswith("HYPERWATCH_")} <= known
    assert {*commands, "run"} <= program.commands.keys()


def test_the_command_of_the_simulated_node_is_understood() -> None:
    name, *arguments = ours()["demo-node"]["command"]
    context = program.commands[name].make_context(name, list(arguments))
    assert context.params["blocks"] is not None, "it would fill the disk"


def test_no_argument_has_the_name_that_the_nodes_supervisor_kills() -> None:
    arguments = [text for name, text in instructions() if name in {"ENTRYPOINT", "CMD", "HEALTHCHECK"}]
    arguments += [str(service.get(key)) for service in services().values() for key in ("command", "healthcheck")]
    arguments += re.findall(r"^ExecStart=.*", UNIT.read_text(), re.MULTILINE)
    assert not [text for text in arguments if "hl-node" in text]


def checked(tool: str, *arguments: str | Path) -> str:
    """What a tool of this environment has to say; nothing where all is well."""
    command = [Path(sysconfig.get_path("scripts")) / tool, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr if done.returncode else ""


def test_hadolint_finds_nothing(tmp_path: Path) -> None:
    assert checked("hadolint", ROOT / "Dockerfile") == ""
    (tmp_path / "Dockerfile").write_text(DOCKERFILE.replace("USER 10000:10000", "RUN cd /data && sudo ls"))
    assert "DL3004" in checked("hadolint", tmp_path / "Dockerfile"), "a fault is found"


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.usefixtures("registry")
def test_the_commands_that_build_the_image_build_it_from_what_is_copied(tmp_path: Path) -> None:
    """All but the base image: in an empty directory, with this Python. Asks the registry."""
    source, target = tmp_path / "src", tmp_path / "opt"
    source.mkdir()
    _, end = (number for number, (name, _) in enumerate(instructions()) if name == "FROM")
    for name, text in instructions()[:end]:
        if name == "COPY":
            for each in text.split()[:-1]:
                here = ROOT / each
                (shutil.copytree if here.is_dir() else shutil.copy)(here, source / each)
        elif name == "RUN":
            command = text.replace("/opt/hyperwatch", shlex.quote(str(target)))
            command = re.sub(r"\bpip --python", f"{shlex.quote(sys.executable)} -m pip --python", command)
            command = re.sub(r"^python\b", shlex.quote(sys.executable), command)
            subprocess.run(["sh", "-ec", command], cwd=source, check=True)  # noqa: S607
    assert not (target / "bin" / "pip").exists()
    clean = {"PATH": os.environ["PATH"]}  # nothing of this checkout
    done = subprocess.run(
        [target / "bin" / "hyperwatch", "demo", "--seconds", "1"],
        env=clean, cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "lost 0 by seq and 0 by count" in done.stdout


# The compose file


def test_the_sidecar_can_change_nothing_but_its_state() -> None:
    for service in ours().values():
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert service["tmpfs"][0].startswith("/tmp:size=")  # noqa: S108  in the container
    for service in sidecars().values():
        [data, state] = service["volumes"]
        assert (data["target"], data["read_only"]) == (image_environment()["HYPERWATCH_DATA_DIR"], True)
        assert (state["target"], state.get("read_only")) == (image_environment()["HYPERWATCH_STATE_DIR"], None)


def test_the_nodes_volume_is_the_nodes() -> None:
    document = yaml.safe_load((ROOT / "compose.yaml").read_text())
    [data, _] = services()["hyperwatch"]["volumes"]
    assert data["volume"] == {"nocopy": True}
    assert document["volumes"][data["source"]]["external"] is True
    assert "HYPERWATCH_NODE_VOLUME" in document["volumes"][data["source"]]["name"]


def test_nothing_is_published_beyond_loopback_and_the_metrics_not_at_all() -> None:
    published = [port for service in services().values() for port in service.get("ports", ())]
    assert published
    assert [port for port in published if not port.startswith("127.0.0.1:") or port.endswith(":9464")] == []


def test_nothing_grows_without_a_bound() -> None:
    for name, service in services().items():
        assert service["mem_limit"], name
        assert service["logging"]["options"].keys() == {"max-size", "max-file"}, name


def test_a_stop_has_the_time_that_it_takes() -> None:
    assert {service["stop_grace_period"] for service in sidecars().values()} == {"10s"}
    assert re.findall(r"^TimeoutStopSec=(\d+)", UNIT.read_text(), re.MULTILINE) == ["10"]


def test_the_demo_needs_no_volume_from_elsewhere() -> None:
    document = yaml.safe_load((ROOT / "compose.yaml").read_text())
    demo = [service for service in services().values() if {"demo"} & set(service["profiles"])]
    used = {volume["source"] for service in demo for volume in service["volumes"]}
    assert used
    assert not any(document["volumes"][name].get("external") for name in used)


def test_the_file_is_one_by_the_schema_of_the_compose_specification(tmp_path: Path) -> None:
    check = partial(checked, "check-jsonschema", "--builtin-schema", "vendor.compose-spec")
    assert check(ROOT / "compose.yaml") == ""
    (tmp_path / "compose.yaml").write_text(
        (ROOT / "compose.yaml").read_text().replace("stop_grace_period", "stop_grace")
    )
    assert "'stop_grace' was unexpected" in check(tmp_path / "compose.yaml"), "a fault is found"


def test_images_of_others_stand_by_version_in_one_place_where_a_digest_can_be_put() -> None:
    text = (ROOT / "compose.yaml").read_text()
    named = yaml.safe_load(text)["x-images"]
    assert {re.sub(r"^\$\{HYPERWATCH_(\w+)_IMAGE:-.*\}$", r"\1", image) for image in named.values()} == {
        "BASE", "PROMETHEUS", "GRAFANA",
    }  # fmt: skip
    versions = [re.sub(r"^.*:-(.*)\}$", r"\1", image) for image in named.values()]
    for version in versions:
        assert re.fullmatch(r"[\w/]+:v?\d+\.\d[\w.-]*", version)
        assert text.count(version) == 1
    others = [service["image"] for service in services().values() if service["image"] != "hyperwatch"]
    assert {*others} == {named["prometheus"], named["grafana"]}
    assert [service["build"]["args"] for service in ours().values()] == [{"BASE": named["base"]}] * len(ours())
    assert [text for name, text in instructions() if name == "FROM"] == ["${BASE} AS build", "${BASE}"]
    assert dict(instructions()[:1]) == {"ARG": f"BASE={versions[0]}"}


def test_no_variable_is_needed_and_every_name_leads_to_something() -> None:
    """What a schema does not know: volumes, dependencies and files that are there, and defaults of variables."""
    text = (ROOT / "compose.yaml").read_text()
    document = yaml.safe_load(text)
    volumes = [volume for service in services().values() for volume in service["volumes"]]
    named = {volume["source"] for volume in volumes if volume["type"] == "volume"}
    assert named == document["volumes"].keys()
    assert [each["source"] for each in volumes if each["type"] == "bind" and not (ROOT / each["source"]).exists()] == []
    for service in services().values():
        for other in service.get("depends_on", ()):
            assert set(service["profiles"]) <= set(services()[other]["profiles"]), "else compose does not start it"
    assert re.findall(r"\$\{(?!\w+:-[^}]+\})[^}]*\}", text) == []


def compose() -> list[str]:
    """The compose that works here, Debian's or the plugin of Docker's client; a client may have none."""
    for command in (["docker-compose"], ["docker", "compose"]):
        if works(*command, "version"):
            return command
    pytest.skip("needs Debian's package docker-compose, or a Docker client with its compose plugin")


def test_a_docker_client_without_its_compose_plugin_is_a_skip_with_a_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = tmp_path / "docker"
    client.write_text("#!/bin/sh\necho \"docker: 'compose' is not a docker command.\" >&2\nexit 1\n")
    client.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(
        sys.modules[__name__], "works", works.__wrapped__
    )  # what another test has found is of another path
    with pytest.raises(pytest.skip.Exception, match="a Docker client with its compose plugin"):
        compose()


@pytest.mark.parametrize("profile", ["node", "demo", "monitoring"])
def test_compose_takes_the_file(profile: str, tmp_path: Path) -> None:
    text = (ROOT / "compose.yaml").read_text()
    named = re.compile(r"^name: .*\n", re.MULTILINE)  # Debian's 1.29 is older than that key; the schema has seen it
    file = tmp_path / "compose.yaml"
    for wrong in (False, True):
        file.write_text(named.sub("", text) + "  broken: [1]\n" * wrong)
        command = [
            *compose(),
            "--project-directory",
            str(ROOT),
            "-f",
            str(file),
            "--profile",
            profile,
            "config",
            "--quiet",
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (done.returncode == 0) is not wrong, done.stderr


# The unit


@needs("systemd", "systemd-analyze", "--offline=true", "--threshold=20", "--version")
def test_systemd_takes_the_unit_and_finds_little_that_it_is_exposed_to(tmp_path: Path) -> None:
    here = tmp_path / UNIT.name
    here.write_text(re.sub(r"^ExecStart=\S+", "ExecStart=/bin/true", UNIT.read_text(), flags=re.MULTILINE))
    done = subprocess.run(["systemd-analyze", "verify", here], capture_output=True, text=True, check=False)  # noqa: S607
    assert [text for text in done.stderr.splitlines() if UNIT.name in text] == []
    weigh = ["systemd-analyze", "security", "--offline=true", "--threshold=20", str(here)]
    assert subprocess.run(weigh, capture_output=True, check=False).returncode == 0


# Inside: as PID 1 and uid 10000, without a capability, on a read-only root, with another user's files mounted read-only.

_INSIDE = """
mount --make-rprivate /
mount -t tmpfs tmpfs /mnt
mkdir /mnt/python /mnt/site /mnt/code /mnt/data /mnt/state
mount --bind "$PYTHON" /mnt/python
mount --bind "$SITE" /mnt/site
mount --bind "$CODE" /mnt/code
mount --bind "$DATA" /mnt/data
mount -o remount,bind,ro /mnt/data
mount --bind "$STATE" /mnt/state
mount -t proc proc /proc
mount -o remount,bind,ro /mnt
mount -o remount,bind,ro /
cd /
exec setpriv --reuid=10000 --regid=10000 --clear-groups --no-new-privs --inh-caps=-all --bounding-set=-all "$@"
"""
_PYTHON = f"/mnt/python/bin/python{sys.version_info.major}.{sys.version_info.minor}"


def inside(data: Path, state: Path, command: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """(arguments, environment) of a command that runs as it would in the container."""
    unshare = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-ec", _INSIDE, "sh", *command]
    places = {
        "PYTHON": sys.base_prefix, "SITE": sysconfig.get_path("purelib"), "CODE": str(ROOT),
        "DATA": str(data), "STATE": str(state),
    }  # fmt: skip
    settings = {
        "HYPERWATCH_DATA_DIR": "/mnt/data", "HYPERWATCH_STATE_DIR": "/mnt/state", "HYPERWATCH_METRICS_LISTEN": "127.0.0.1:0",
    }  # fmt: skip
    paths = {"PYTHONPATH": "/mnt/code:/mnt/site", "LD_LIBRARY_PATH": "/mnt/python/lib"}  # a shared libpython is there
    return unshare, {"PATH": os.environ["PATH"], **paths, **places, **settings}


@pytest.fixture(scope="module")
def can_be_inside() -> None:
    """Skips where a mount namespace, another uid or a read-only root is not to be had."""
    if os.getuid() != 0 or not all(map(shutil.which, ("unshare", "setpriv"))):
        pytest.skip("a mount namespace as another uid needs root, unshare and setpriv")
    with volumes() as (data, state):
        command, environment = inside(data, state, [_PYTHON, "-c", "import hyperwatch"])
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"no read-only root in a mount namespace here: {done.stderr.strip()[-200:]}")


@contextmanager
def volumes() -> Iterator[tuple[Path, Path]]:
    """(data, state): the node's directory, another user's, and our own. Where uid 10000 can get to, unlike tmp_path."""
    with tempfile.TemporaryDirectory(prefix="hyperwatch-test-") as folder:
        data, state = Path(folder) / "data", Path(folder) / "state"
        data.mkdir()
        state.mkdir()
        os.chown(state, 10_000, 10_000)
        yield data, state


def give_to_node(data: Path, mode: int) -> None:
    for path in (data, *data.rglob("*")):
        os.chown(path, NODE_USER, NODE_USER)
        path.chmod(mode if path.is_dir() else mode & 0o666)


def child_of(process: subprocess.Popen[str]) -> int:
    """The process that unshare has as its only child."""
    return int(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text())


@pytest.mark.usefixtures("can_be_inside")
def test_inside_the_service_delivers_another_users_read_only_files_and_ends_at_sigterm() -> None:
    with volumes() as (data, state):
        path = hour_file(data, "20260505/9")
        append(path, lines_of(Layout.STREAMING, [(1, [event(1), event(2)])]))
        give_to_node(data, 0o755)
        run = [_PYTHON, "-m", "hyperwatch", "run", "--listen", "127.0.0.1:0"]
        command, environment = inside(data, state, run)
        with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
            assert process.stderr is not None
            try:
                [port] = re.findall(r":(\d+)/ws", next(text for text in process.stderr if "ws://" in text))
                status = Path(f"/proc/{child_of(process)}/status").read_text()
                with websockets.sync.client.connect(f"ws://127.0.0.1:{port}/ws") as client:
                    client.send('{"method":"subscribe","subscription":{"type":"orders","from":"earliest"}}')
                    heard = take(client, 2)
                    append(path, line(2, [event(3)]))  # an event of inotify, over a read-only mount, as another uid
                    heard += take(client, 1)
                os.kill(child_of(process), signal.SIGTERM)
                assert process.wait(8) == 0
            finally:
                process.kill()
        assert heard == [1, 2, 3]
        assert re.findall(r"^Uid:\t(\d+)\t(\d+)", status, re.MULTILINE) == [("10000", "10000")]
        assert re.findall(r"^NSpid:.*\t(\d+)$", status, re.MULTILINE) == ["1"]
        assert re.findall(r"^CapEff:\t(\w+)", status, re.MULTILINE) == ["0" * 16]
        assert (state / "head.json").stat().st_uid == 10_000


def take(client: websockets.sync.client.ClientConnection, count: int) -> list[int]:
    """The oids of the next events."""
    oids: list[int] = []
    while len(oids) < count:
        message = json.loads(client.recv(timeout=20))
        if message["channel"] == "orders":
            oids += [each["order"]["oid"] for each in message["data"]["events"]]
    return oids


@pytest.mark.usefixtures("can_be_inside")
@pytest.mark.parametrize(("closed", "named"), [("data", "/mnt/data"), ("state", "/mnt/state")])
def test_inside_what_may_not_be_used_is_named_with_the_uid(closed: str, named: str) -> None:
    with volumes() as (data, state):
        append(hour_file(data, "20260505/9"), lines_of(Layout.STREAMING, [(1, [event(1)])]))
        give_to_node(data, 0o700 if closed == "data" else 0o755)
        if closed == "state":
            os.chown(state, NODE_USER, NODE_USER)
            state.chmod(0o700)
        run = [_PYTHON, "-m", "hyperwatch", "run", "--listen", "127.0.0.1:0"]
        command, environment = inside(data, state, run)
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=30)
        assert done.returncode == 2
        assert named in done.stderr.splitlines()[-1]
        assert "uid 10000" in done.stderr.splitlines()[-1]


@pytest.mark.usefixtures("can_be_inside")
def test_inside_a_user_without_a_home_is_asked_for_a_state_directory() -> None:
    with volumes() as (data, state):
        command, environment = inside(data, state, [_PYTHON, "-m", "hyperwatch", "run"])
        del environment["HYPERWATCH_STATE_DIR"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=30)
        assert done.returncode == 2
        assert done.stderr.endswith("name a directory with --state-dir\n")


@pytest.mark.usefixtures("can_be_inside")
def test_inside_nothing_but_the_state_can_be_written() -> None:
    with volumes() as (data, state):
        give_to_node(data, 0o777)
        code = """if True:
            import os, pathlib
            for folder in ("/", "/mnt", "/mnt/data", "/mnt/code", "/mnt/state", os.path.expanduser("~")):
                try:
                    pathlib.Path(folder, "x").touch()
                    print(folder)
                except OSError:
                    pass"""
        command, environment = inside(data, state, [_PYTHON, "-c", code])
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.stdout.split() == ["/mnt/state"]


def test_the_options_of_the_program_are_found() -> None:
    """Else the check of the variables would compare nothing."""
    [listen] = [option for option in program.commands["run"].params if option.name == "listen"]
    assert isinstance(listen, click.Option)
    assert listen.envvar == "HYPERWATCH_LISTEN"
