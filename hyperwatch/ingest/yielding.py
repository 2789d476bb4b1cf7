"""What decoding owes to everybody else, in threads and on the event loop: one interpreter lock serves them all."""

from __future__ import annotations

import time
from collections.abc import Callable

import trio

from hyperwatch.log.batches import DecodedChunk, Decoding

__all__ = ["Yielder", "decoded_here"]

_TURN_S = 5e-4  # of decoding, two or three pieces: what another client may have to wait
_REST_S = 5e-5
_WAIT_S = 5e-3
_IMPATIENT_S = 2e-2  # at a peak the head is always at work
_LOOK_S = 5e-4


class Yielder:
    """Lets the event loop run between pieces, where anybody waits for it.

    Giving up the interpreter by a short sleep keeps the loop's wake-ups at a millisecond, where 30 ms were measured
    without it. But it takes twice as long as it says, so it is not done after every piece, nor for a single client: what
    is decoded is what that one waits for.

    Args:
        clients: how many are connected.
    """

    def __init__(self, clients: Callable[[], int]) -> None:
        self._clients = clients
        self._rested_s = 0.0

        self._impatient_s = 0.0
        self.busy: Callable[[], bool] = lambda: False
        """Whether the head is at work: whoever runs heads sets it."""

    @property
    def alone(self) -> bool:
        """Whether nobody waits but who is served."""
        return self._clients() <= 1

    def pause(self) -> None:
        """Called between pieces, in a thread. Raises trio.Cancelled where the job was cancelled."""
        trio.from_thread.check_cancelled()
        if not self.alone and time.monotonic() - self._rested_s >= _TURN_S:
            time.sleep(_REST_S)
            self._rested_s = time.monotonic()  # of several threads any may say so: there is one lock

    def give_way(self) -> None:
        """The same, in a thread that reads the past: the head's work comes first, unless there is no end of it."""
        self.pause()
        began_s = time.monotonic()
        if began_s < self._impatient_s:
            return
        while self.busy() and not self.alone:
            if time.monotonic() >= began_s + _WAIT_S:
                self._impatient_s = time.monotonic() + _IMPATIENT_S
                return
            time.sleep(_LOOK_S)


async def decoded_here(work: Decoding) -> DecodedChunk:
    """Decodes on the event loop, which others have once in _TURN_S, between two pieces: no piece can hang."""
    began_s = time.monotonic()
    for _ in work:
        if time.monotonic() - began_s >= _TURN_S:
            await trio.lowlevel.checkpoint()
            began_s = time.monotonic()
    return work.result
