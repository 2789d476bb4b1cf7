"""Settings of all tests."""

from __future__ import annotations

import sys

import pytest
from hypothesis import settings

from replaying import replay
from support import works

__all__ = ["replay"]  # a fixture of several rooms

# The machine may be busy: an example may take its time, pytest-timeout bounds the test.
settings.register_profile("hyperwatch", deadline=None)
settings.load_profile("hyperwatch")


@pytest.fixture(scope="session")
def registry() -> None:
    """Skips a test that installs packages where nobody can be asked for them."""
    ask = (sys.executable, "-m", "pip", "--retries=0", "--timeout=10", "index", "versions", "trio")
    if not works(*ask):
        pytest.skip("needs the package registry, and there is no network to it here")
