"""Whether the system tells of changes in a directory: inotify, its limits, and file systems that have none. Blocking I/O."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from inotify_simple import INotify, flags  # type: ignore[import-untyped]  # ships no types

from hyperwatch.cli.doctor.setup import Finding, Level

__all__ = ["InotifyProbe", "file_system", "limits"]

_LIMITS = Path("/proc/sys/fs/inotify")
_MOUNTS = Path("/proc/self/mountinfo")
_INSTANCES = 16
_SILENT = ("nfs", "nfs4", "cifs", "smb3", "9p", "drvfs", "fakeowner", "virtiofs", "ceph")
_POLLED = "new lines are seen by looking every 250 ms"


class InotifyProbe:
    """Listens to a directory while something else looks at it. A context manager would outlive nothing: `close` it."""

    def __init__(self, directory: Path) -> None:
        self.trouble = ""
        self._inotify: INotify | None = None
        try:
            self._inotify = INotify(nonblocking=True)
            self._inotify.add_watch(directory, flags.MODIFY)
        except OSError as error:
            self.trouble = error.strerror or str(error)

    def findings(self, directory: Path, *, grew: bool, kind: str) -> Iterator[Finding]:
        """What was heard.

        Args:
            directory: the one listened to.
            grew: whether something was written meanwhile.
            kind: of its file system.
        """
        if self.trouble:
            advice = "raise fs.inotify.max_user_instances and fs.inotify.max_user_watches with sysctl"
            yield Finding(Level.ADVICE, f"no inotify ({self.trouble}): {_POLLED}", advice)
        elif grew and self._inotify is not None and not self._inotify.read(timeout=0):
            advice = "run hyperwatch on the machine that has the node's disk"
            yield Finding(Level.ADVICE, f"{directory} changes without events ({kind}): {_POLLED}", advice)
        elif grew:
            yield Finding(Level.GOOD, f"{directory} tells of changes ({kind})")
        elif kind.startswith(("fuse", *_SILENT)):
            advice = "run hyperwatch on the machine that has the node's disk"
            yield Finding(Level.ADVICE, f"{directory} is on {kind}, which may not tell of changes: {_POLLED}", advice)

    def close(self) -> None:
        """Ends listening."""
        if self._inotify is not None:
            self._inotify.close()


def limits(directory: Path = _LIMITS) -> Iterator[Finding]:
    """How many instances this user may have."""
    with suppress(OSError, ValueError):  # no Linux, or a container that hides it: `Ear` tries it
        instances = int((directory / "max_user_instances").read_text())
        if instances < _INSTANCES:
            what = f"this user may have {instances} inotify instances, and every stream takes one"
            yield Finding(Level.ADVICE, what, "sysctl fs.inotify.max_user_instances=128")


def file_system(path: Path, mounts: str | None = None) -> str:
    """The kind of file system that a path is on, as the system calls it; "unknown" where it does not say.

    Args:
        path: any.
        mounts: what stands in /proc/self/mountinfo; None: read it.
    """
    if mounts is None:
        try:
            mounts = _MOUNTS.read_text(errors="surrogateescape")  # names of directories are bytes
        except OSError:
            return "unknown"
    best, kind = -1, "unknown"
    path = path.resolve()
    for line in mounts.splitlines():
        left, _, right = line.partition(" - ")
        point = Path(left.split()[4].replace("\\040", " "))
        if path.is_relative_to(point) and len(point.parts) >= best:
            best, kind = len(point.parts), right.split()[0]
    return kind
