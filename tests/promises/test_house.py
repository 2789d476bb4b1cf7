"""The house: rooms have the names of the field, and words that were given up do not come back."""

from __future__ import annotations

import importlib
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "hyperwatch"
MODULES = sorted(PACKAGE.rglob("*.py"))

# What was given up, and what to say instead. As names in the code; in prose some of them are plain English.
RETIRED = {
    "Watch": "DirectoryWatcher", "Intake": "Tail", "Walk": "LineReader", "Past": "CatchUp", "Repeats": "Deduplicator",
    "Verdict": "Placement", "Passage": "FileProgress", "Judge": "FormatCheck", "Books": "DeferredCounts",
    "Courtesy": "Yielder", "courtesy": "yielder", "Throttle": "RateLimiter", "throttle": "rate_limiter",
    "Bucket": "TokenBucket", "FilePlace": "FilePosition", "covers": "is_at_or_after", "abreast": "same_progress",
    "RecordedFile": "PackedFile", "Fate": "FileState", "Records": "Ledger", "Run": "BlockSlice",
    "Damage": "UnreadableLine", "Uncut": "InLines", "Span": "RawBatch", "Decoded": "DecodedChunk", "Held": "OpenFills",
    "Paired": "PairedTrades", "Pairing": "TradePairing", "View": "Channel", "Interest": "RoutingKeys",
    "EventFilter": "CoinUserFilter", "doubts": "suggestions", "Details": "OrderConditions",
    "Why": "Reason", "GoneError": "ClientGoneError", "Guard": "Admission", "guard": "admission", "Room": "Slots",
    "household": "address_group", "Doors": "Frontend", "doors": "frontend", "lobby": "waiting", "lookout": "stalls",
    "Vitals": "HealthMonitor", "vitals": "health", "Sign": "StreamHealth", "Moment": "Sample", "Trouble": "NotReady",
    "Track": "SubscriptionState", "stir": "notify", "Playback": "TolerantRecording", "Ear": "InotifyProbe",
    "Chatter": "ClientLog", "chatter": "client_log", "keyed": "needs_keys", "unrouted": "unkeyed",
    "repeated_events": "duplicate_events", "unrouted_events": "unkeyed_events", "pending_bytes": "in_flight_bytes",
    "past_rate": "catch_up_rate", "wish": "start_point", "uncut": "in_lines", "documents": "json_lines",
}  # fmt: skip

# The keys of `/status` do not change.
KEPT = {("monitor/status.py", "pending_bytes")}


def names_in(source: str) -> Iterator[tuple[int, str]]:
    """(line, name) of every name in a module's code."""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.NAME:
            yield token.start[0], token.string


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_retired_word_is_a_name(path: Path) -> None:
    place = str(path.relative_to(PACKAGE))
    found = {
        f"{place}:{line}: {name}, which is {RETIRED[name]} now"
        for line, name in names_in(path.read_text())
        if name in RETIRED and (place, name) not in KEPT
    }
    assert found == set()
    assert path.stem not in RETIRED


def test_a_retired_word_would_be_found() -> None:
    source = "class Courtesy:\n    keyed = True\n"
    assert [name for _, name in names_in(source) if name in RETIRED] == ["Courtesy", "keyed"]


def test_at_the_top_are_rooms_and_the_settings_and_the_errors() -> None:
    assert {path.name for path in PACKAGE.glob("*.py")} == {"__init__.py", "__main__.py", "config.py", "errors.py"}


def test_every_room_says_what_it_is_in_one_sentence_of_its_own() -> None:
    rooms = [path for path in MODULES if path.name == "__init__.py"]
    assert [path for path in rooms if not re.match(r'"""[A-Z`].*?\.(?:"""|\n)', path.read_text())] == []


def test_no_two_modules_of_the_service_are_called_streams() -> None:
    assert [str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("streams.py")] == ["node/streams.py"]


def test_metrics_options_and_alerts_do_not_use_retired_words_either() -> None:
    places = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "deploy").rglob("*.*")]
    text = "".join(path.read_text() for path in places if path.is_file() and path.name != "changelog.md")
    old = ["repeated_events", "unrouted_events", "pending_bytes", "--past-rate", "--client-past-rate"]
    assert [word for word in old if word in text] == []


def test_the_folders_of_the_tests_are_the_rooms() -> None:
    rooms = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()}
    folders = {path.name for path in (ROOT / "tests").iterdir() if path.is_dir() and any(path.glob("*.py"))}
    assert folders - rooms == {"promises", "support"}
    assert [path.name for path in (ROOT / "tests").glob("*.py")] == ["conftest.py"]


def named_in_the_map() -> list[tuple[str, str]]:
    """(module, name in it) of what `docs/architecture.md` names by its place, as in `ingest/tail.Tail.take`."""
    text = (ROOT / "docs" / "architecture.md").read_text()
    return sorted(set(re.findall(r"`([a-z_]+(?:/[a-z_]+)+)\.([A-Za-z_.]+)`", text)))


@pytest.mark.parametrize(("place", "name"), named_in_the_map())
def test_what_the_map_names_is_there(place: str, name: str) -> None:
    if name in ("py", "md"):
        assert any((top / f"{place}.{name}").exists() for top in (PACKAGE, ROOT))
        return
    found: object = importlib.import_module("hyperwatch." + place.replace("/", "."))
    for part in name.split("."):
        found = getattr(found, part)
