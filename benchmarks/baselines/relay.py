"""From inotify to a socket and nothing between: `python -m benchmarks.baselines.relay FILE`.

What is appended to a file goes to one client, as it is. No server that reads files can be sooner.
"""

from __future__ import annotations

import os
import socket
import sys

from inotify_simple import INotify, flags  # type: ignore[import-untyped]  # ships no types

from benchmarks.baselines.sockets import listen

__all__ = ["relay"]


def relay(path: str) -> None:
    """Until the process is ended."""
    client, _ = listen().accept()
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    source = os.open(path, os.O_RDONLY)
    with INotify() as inotify:
        inotify.add_watch(path, flags.MODIFY)
        while True:
            while data := os.read(source, 1 << 20):
                client.sendall(data)
            inotify.read()


if __name__ == "__main__":
    relay(sys.argv[1])
