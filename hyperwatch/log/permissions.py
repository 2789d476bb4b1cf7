"""What is said where a user may not read: which directory is in the way, and who is not let through. Blocking I/O."""

from __future__ import annotations

import os
from pathlib import Path

from hyperwatch.errors import DataError

__all__ = ["denied"]

_REMEDY = "or run hyperwatch as the user that owns it"


def denied(path: Path) -> DataError:
    """The error for a path that may not be read.

    It names the outermost directory above it that may not be passed, such as another user's home, where that is what is
    in the way; else the path itself.
    """
    uid = os.getuid()
    for folder in reversed(path.absolute().parents):
        if not os.access(folder, os.X_OK):
            what = f"{folder} cannot be entered by uid {uid}, so {path} cannot be read"
            return DataError(what, f"let that user pass (chmod o+x, or an ACL), {_REMEDY}")
    return DataError(f"{path} cannot be read by uid {uid}", f"give that user read access to it, {_REMEDY}")
