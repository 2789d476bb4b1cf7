"""Settings of all tests."""

from __future__ import annotations

from hypothesis import settings

# The machine may be busy: an example may take its time, pytest-timeout bounds the test.
settings.register_profile("hyperwatch", deadline=None)
settings.load_profile("hyperwatch")
