"""A bare loop of `sendmsg`: `python -m benchmarks.baselines.sendmsg CLIENTS`.

Standard input says how many messages of what size: `[MESSAGES, BYTES]`. Each goes to every client before the next does.
"""

from __future__ import annotations

import json
import socket
import sys
import time

from benchmarks.baselines.sockets import accept, frame, listen, subscribed

__all__ = ["send"]


def send(clients: list[socket.socket], first: int, messages: int, size: int) -> None:
    """Sends messages numbered from `first` on: a head made for each and a tail that all share, as a feed would."""
    for seq in range(first, first + messages):
        text = b'{"channel":"orders","data":{"id":"x","seq":%d,' % seq
        tail = b'"events":"%s"}}' % (b"x" * (size - len(text) - 13))
        head = frame(len(text) + len(tail)) + text
        for client in clients:
            sent = client.sendmsg((head, tail))
            if sent < len(head) + len(tail):  # a signal came between
                client.sendall((head + tail)[sent:])


def main(count: int) -> None:
    """Until standard input ends."""
    listener = listen()
    clients = [accept(listener) for _ in range(count)]
    for client in clients:
        subscribed(client)
    seq = 2  # 1 said that it is live
    for line in sys.stdin:
        messages, size = json.loads(line)
        began_s = time.perf_counter()
        send(clients, seq, messages, size)
        seq += messages
        print(json.dumps(time.perf_counter() - began_s), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]))
