"""`hyperwatch healthcheck`: for containers and supervisors, which start a service anew where this fails."""

from __future__ import annotations

import http.client
from http import HTTPStatus

import click

from hyperwatch.cli.options import NumberRange, option
from hyperwatch.config import Address

__all__ = ["command"]

_ANYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  listened on, not asked
_BEHIND = "hyperwatch_behind"
_ALIVE = (HTTPStatus.OK, HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.TOO_MANY_REQUESTS)  # the last: a crowd at the door
_LONGEST = 64 * 1024  # of a service's own answer: a line a stream


@click.command("healthcheck")
@option("--listen", metavar="HOST:PORT", default="127.0.0.1:8000", help="Where `hyperwatch run` listens.")
@option("--timeout", metavar="SECONDS", type=NumberRange(0.1, 3600), default=4.0, help="How long an answer may take.")
def command(listen: str, timeout: float) -> int:
    """Ask a running service how it is: 0 good, 1 not.

    Not good is a service that does not answer, or that is itself behind what the node has written. A node that writes
    nothing is no reason to start hyperwatch anew.
    """
    address = Address.parse(listen)
    connection = http.client.HTTPConnection(_ANYWHERE.get(address.host, address.host), address.port, timeout=timeout)
    try:
        connection.request("GET", "/readyz")
        answer = connection.getresponse()
        said = answer.read(_LONGEST).decode(errors="replace").strip()
    except (OSError, http.client.HTTPException) as error:
        click.echo(f"no answer from {address}: {error or type(error).__name__}", err=True)
        return 1
    finally:
        connection.close()
    if answer.status not in _ALIVE or (answer.status == HTTPStatus.OK and said != "ready"):
        click.echo(f"at {address} is no hyperwatch: it answers {answer.status} to /readyz", err=True)
        return 1
    click.echo(said)
    return int(any(line.startswith(_BEHIND) for line in said.splitlines()))
