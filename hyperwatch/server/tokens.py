"""Bearer tokens: who may connect."""

from __future__ import annotations

import hmac
import os
import re
import stat
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path
from typing import Self

from hyperwatch.errors import UsageError

__all__ = ["VARIABLE", "Tokens"]

VARIABLE = "HYPERWATCH_TOKENS"

_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")  # RFC 6750, 2.1
_LEAST_CHARACTERS = 16
_REMEDY = "make one with `openssl rand -hex 32`"
_OPEN = stat.S_IRWXO | stat.S_IWGRP  # the group may read: containers are given secrets that way


class Tokens:
    """A set of tokens. None of them is kept, only their digests: no log, no traceback can show one.

    Args:
        tokens: none: everybody may connect.
    """

    def __init__(self, tokens: Iterable[str] = ()) -> None:
        self._digests = [sha256(token.encode()).digest() for token in tokens]

    @classmethod
    def load(cls, path: Path | None, words: str | None) -> Self:
        """The tokens of a file and of the environment.

        Args:
            path: a token a line; blank lines and those that begin with # do not count. None: no file.
            words: the variable's value, tokens with blanks between. None: it is not set.

        Raises:
            UsageError: where the file cannot be read or may be read by everybody, where either has no token, or one
                that is none.
        """
        tokens = []
        if path is not None:
            lines = [line.strip() for line in _read(path).splitlines()]
            found = [(number, line) for number, line in enumerate(lines, 1) if line and not line.startswith("#")]
            tokens += [_checked(line, f"--tokens-file {path}: line {number}") for number, line in found]
            if not found:
                what = f"--tokens-file {path} has no token in it"
                raise UsageError(what, f"{_REMEDY} and write it there, one a line")
        if words is not None:
            tokens += [_checked(word, f"{VARIABLE}: word {number}") for number, word in enumerate(words.split(), 1)]
            if not words.split():
                what = f"{VARIABLE} is set and has no token in it"
                raise UsageError(what, f"{_REMEDY}, or unset the variable")
        return cls(tokens)

    def __bool__(self) -> bool:
        return bool(self._digests)

    def allow(self, token: str) -> bool:
        """Whether it is one of them. Takes as long whichever it is, and where it is none."""
        return self.number(token) > 0

    def number(self, token: str) -> int:
        """Which of them it is, from 1 on; 0 where it is none. Takes as long in every case."""
        digest = sha256(token.encode(errors="surrogatepass")).digest()
        return sum(number * hmac.compare_digest(digest, each) for number, each in enumerate(self._digests, 1))


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            text = file.read().decode("ascii")
    except OSError as error:
        what = f"--tokens-file {path} cannot be read by uid {os.getuid()}: {error.strerror}"
        raise UsageError(what, "name a file that this user may read") from error
    except UnicodeDecodeError as error:
        what = f"--tokens-file {path} is no ASCII text"
        raise UsageError(what, "write a token a line") from error
    if mode & _OPEN:
        what = f"--tokens-file {path} is open to others (mode {mode:03o})"
        raise UsageError(what, f"chmod 600 {path}, or 640 for a group that may read it")
    return text


def _checked(token: str, where: str) -> str:
    """The token. Errors never show it."""
    if not _TOKEN.fullmatch(token):
        what = f"{where} is no token: letters, digits and -._~+/ are allowed"
        raise UsageError(what, _REMEDY)
    if len(token) < _LEAST_CHARACTERS:
        what = f"{where} has {len(token)} characters, which can be guessed"
        raise UsageError(what, _REMEDY)
    return token
