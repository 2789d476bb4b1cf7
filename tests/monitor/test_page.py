"""The page, as a browser shows it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.wait import WebDriverWait

from processes import free_port
from support import works

T = TypeVar("T")

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
ARTIFACTS = os.environ.get("HYPERWATCH_ARTIFACTS")
"""Where pictures are kept; nowhere else."""

STROKES = "return document.querySelector('#rate path').getAttribute('d').split('L').length"

pytestmark = [
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="needs Debian's packages chromium and chromium-driver"),
    pytest.mark.timeout(120),
]


@contextmanager
def started(*arguments: str, until: str) -> Iterator[subprocess.Popen[str]]:
    """A process of ours, when it has said that."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("HYPERWATCH_")}
    command = [sys.executable, "-m", "hyperwatch", *arguments]
    with subprocess.Popen(command, env=clean, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            assert any(until in said for said in process.stderr), "it ended"
            yield process
        finally:
            process.terminate()
            process.communicate(timeout=20)


@contextmanager
def node(directory: Path) -> Iterator[None]:
    """A simulated one, with one line that cannot be read."""
    command = [
        sys.executable,
        "-m",
        "hyperwatch",
        "simulate",
        str(directory / "data"),  # of its own: a simulator writes to no directory with other files
        "--rate",
        "1500",
        "--layout",
        "streaming",
    ]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        try:
            yield
        finally:
            process.terminate()


@contextmanager
def sidecar(directory: Path, port: int, *options: str, until: str = "the feed is at") -> Iterator[None]:
    listen = f"127.0.0.1:{port}"
    (directory / "data").mkdir(exist_ok=True)
    settings = [
        "--data-dir",
        str(directory / "data"),
        "--state-dir",
        str(directory / "state"),
        "--listen",
        listen,
        "--metrics-listen=",
    ]
    with started("run", *settings, *options, until=until):
        yield


@pytest.fixture
def browser() -> Iterator[webdriver.Chrome]:
    draws = works(str(CHROMIUM), "--headless=new", "--no-sandbox", "--disable-gpu", "--dump-dom", "about:blank")
    if not (draws and works(str(DRIVER), "--version")):
        pytest.skip(
            "Chromium is installed and draws no page here: `chromium --headless=new --dump-dom about:blank` fails"
        )
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for word in (
        "--headless=new",
        "--no-sandbox",
        "--disable-dev-shm-usage",
        "--disable-gpu",
        "--disable-background-networking",
        "--window-size=1280,1500",
    ):
        options.add_argument(word)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(executable_path=str(DRIVER)))
    try:
        yield driver
    finally:
        driver.quit()


def text(browser: webdriver.Chrome, selector: str) -> str:
    return str(browser.execute_script("return document.querySelector(arguments[0])?.innerText ?? ''", selector))


def seen(browser: webdriver.Chrome, selector: str, holds: Callable[[str], T], within_s: float = 30) -> T:
    """What is made of an element's text, as soon as that is anything."""
    ends_s = time.monotonic() + within_s
    while time.monotonic() < ends_s:
        if found := holds(text(browser, selector)):
            return found
        time.sleep(0.05)  # a browser is another process
    raise AssertionError(selector, text(browser, selector))


def style(browser: webdriver.Chrome, selector: str, name: str) -> str:
    script = "return getComputedStyle(document.querySelector(arguments[0])).getPropertyValue(arguments[1])"
    return str(browser.execute_script(script, selector, name))


def overflowing(browser: webdriver.Chrome) -> object:
    """The tables that are wider than their place."""
    cut = "return [...document.querySelectorAll('.scroll')].filter((each) => each.scrollWidth > each.clientWidth).map((each) => each.id || each.firstChild.id)"
    return browser.execute_script(cut)


def number(text: str) -> int:
    return int(re.sub(r"\D", "", text) or 0)


def complaints(browser: webdriver.Chrome) -> list[str]:
    """What the console has had to say since it was last asked."""
    return [f"{entry['level']}: {entry['message']}" for entry in browser.get_log("browser")]  # type: ignore[no-untyped-call]


def picture(browser: webdriver.Chrome, name: str) -> None:
    if ARTIFACTS:
        browser.save_screenshot(str(Path(ARTIFACTS) / name))


def test_the_page_shows_moving_numbers_and_survives_a_restart_of_the_service(
    tmp_path: Path, browser: webdriver.Chrome
) -> None:
    port, tile = free_port(), '[data-name="orders"] dd'
    with node(tmp_path):
        with sidecar(tmp_path, port):
            browser.get(f"http://127.0.0.1:{port}/")
            seen(browser, "#state", lambda said: said == "ready")
            first = seen(browser, tile, number)
            assert seen(browser, tile, lambda said: number(said) > first and number(said)) > first
            assert len(seen(browser, "#orders tbody", str.splitlines)) > 0
            assert "badAloPxRejected" in seen(browser, "#statuses", str)
            assert "BTC" in seen(browser, "#coins", str)
            assert "127.0.0.1" in seen(browser, "#clients table", str)
            received = seen(browser, "#feed", number)
            seen(browser, '[data-name="orders a second"] dd', lambda said: number(said) > 500)
            WebDriverWait(browser, 30).until(lambda browser: browser.execute_script(STROKES) > 1)
            time.sleep(float(os.environ.get("HYPERWATCH_POSE_S", "0")))  # for a picture with more in it
            picture(browser, "page.png")
            assert complaints(browser) == []
        assert "The connection was lost" in seen(browser, "#banner", str)
        seen(browser, "#state", lambda said: said == "not connected")  # rather than "ready", as it was
        for old in ("#tiles", "#orders", ".chart"):
            assert float(style(browser, old, "opacity")) < 0.6, "what is old is dimmed"
        picture(browser, "page-lost.png")
        with sidecar(tmp_path, port):
            seen(browser, "#banner", lambda said: "Connected again" in said)
            assert seen(browser, "#feed", lambda said: number(said) > received and number(said)) > received
            assert text(browser, "#notes") == ""
            assert style(browser, "#tiles", "opacity") == style(browser, "#orders", "opacity") == "1"
            assert "not-running" in seen(browser, "#gaps table", str)
            rows = int(browser.execute_script("return document.querySelectorAll('#gaps tbody tr').length"))
            assert rows > 1, "of every stream, not of one"
            assert seen(browser, '[data-name="gaps"] dd', number) == rows
            # A browser names what it cannot reach, or what is being stopped; nothing else may be among it.
            away = re.compile(r"ERR_CONNECTION_REFUSED|status of 503 \(Service Unavailable\)|response code: 503")
            assert [said for said in complaints(browser) if not away.search(said)] == []


def test_the_filter_is_used_by_the_keyboard_and_answered_by_the_feed(tmp_path: Path, browser: webdriver.Chrome) -> None:
    port = free_port()
    with node(tmp_path), sidecar(tmp_path, port):
        browser.get(f"http://127.0.0.1:{port}/")
        seen(browser, "#orders tbody", str)
        body = browser.find_element(By.TAG_NAME, "body")
        body.send_keys("/")
        words = browser.switch_to.active_element
        assert words.get_attribute("id") == "words"
        words.clear()
        words.send_keys("BTC !rejected bid", Keys.ENTER)
        cells = "return [...document.querySelectorAll('#orders tbody tr')].map((row) => [...row.cells].slice(1, 4).map((cell) => cell.innerText))"
        seen(browser, "#orders tbody", lambda said: len(said.splitlines()) > 3)
        rows = browser.execute_script(cells)
        assert {(coin, side) for coin, side, _ in rows} == {("BTC", "bid")}
        assert not any("Rejected" in status for *_, status in rows)
        words.clear()
        words.send_keys("xyz:*:*", Keys.ENTER)
        seen(browser, "#notes", lambda said: "is no coin" in said)
        words.clear()
        words.send_keys("btc", Keys.ENTER)
        # Which coins there are is looked up once a second, and the feed is younger than that: so it is asked again.

        def suggestions(said: str) -> bool:
            if "did you mean 'BTC'" not in said:
                words.send_keys(Keys.ENTER)
                return False
            return True

        seen(browser, "#notes", suggestions)
        words.clear()
        words.send_keys("ETH", Keys.ENTER)
        seen(browser, "#orders tbody", lambda said: "ETH" in said and "BTC" not in said)
        assert text(browser, "#notes") == ""
        assert complaints(browser) == []


def test_a_token_is_asked_for_and_used_for_both_ways(tmp_path: Path, browser: webdriver.Chrome) -> None:
    port, tokens = free_port(), tmp_path / "tokens"
    tokens.write_text("0123456789abcdef0123456789abcdef\n")
    tokens.chmod(0o600)
    with node(tmp_path), sidecar(tmp_path, port, "--tokens-file", str(tokens)):
        browser.get(f"http://127.0.0.1:{port}/")
        seen(browser, "#ask", str)
        assert text(browser, "#banner") == "", "no connection was lost"
        browser.find_element(By.ID, "token").send_keys("0123456789abcdef0123456789abcdef", Keys.ENTER)
        seen(browser, "#state", lambda said: said == "ready")
        seen(browser, "#orders tbody", str)


def test_before_the_node_has_written_the_page_says_so_and_begins_when_it_has(
    tmp_path: Path, browser: webdriver.Chrome
) -> None:
    port = free_port()
    with sidecar(tmp_path, port, until="yet: waiting; "):
        browser.get(f"http://127.0.0.1:{port}/")
        seen(browser, "#banner", lambda said: "There is no feed yet: the node has written nothing" in said)
        assert text(browser, "#state") == "the node has written nothing yet"
        with node(tmp_path):
            seen(browser, "#orders tbody", str)
            seen(browser, "#state", lambda said: said == "ready")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone_in_the_light_and_in_the_dark(tmp_path: Path, browser: webdriver.Chrome, scheme: str) -> None:
    port = free_port()
    feature = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", feature)
    phone = {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
    with node(tmp_path), sidecar(tmp_path, port):
        browser.get(f"http://127.0.0.1:{port}/")
        seen(browser, '[data-name="orders a second"] dd', lambda said: number(said) > 500)
        seen(browser, "#clients table", str)
        assert browser.execute_script("return document.documentElement.scrollWidth") <= 390
        assert overflowing(browser) == []
        seen(browser, "#orders tbody", str)
        shown = "return [...document.querySelectorAll('#orders tbody tr')[0].cells].filter((each) => each.offsetWidth > 0 && each.innerText).map((each) => each.cellIndex)"
        of = 6  # the original size, the only column that a phone has no room for
        assert browser.execute_script(shown) == [column for column in range(8) if column != of]
        browser.execute_script("document.querySelector('#orders').scrollIntoView()")
        paper = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
        assert paper == {"light": "rgb(246, 247, 249)", "dark": "rgb(16, 21, 27)"}[scheme]
        picture(browser, f"page-phone-{scheme}.png")
        assert complaints(browser) == []


def test_charts_have_a_scale_with_units_and_say_how_long_ago_they_begin(
    tmp_path: Path, browser: webdriver.Chrome
) -> None:
    port = free_port()
    with node(tmp_path), sidecar(tmp_path, port):
        browser.get(f"http://127.0.0.1:{port}/")
        seen(browser, '[data-name="orders a second"] dd', lambda said: number(said) > 500)
        labels = "return [...document.querySelectorAll(arguments[0])].map((each) => each.innerText)"
        bottom, middle, top = browser.execute_script(labels, ".chart:has(#rate) .scale span")
        assert (bottom, number(middle) * 2) == ("0/s", number(top)), "a linear one"
        assert number(top) >= 500
        assert browser.execute_script(labels, ".chart:has(#lag) .scale span")[0] == "0.00 s"
        assert browser.execute_script(labels, ".chart:has(#latency) .scale span") == ["1.0 ms", "100 ms", "10 s"]
        assert browser.execute_script(labels, ".chart .times span") == ["60 s ago", "now"] * 3
        said = browser.execute_script("return document.querySelector('#rate').getAttribute('aria-label')")
        assert re.fullmatch(r"now [\d,]+ a second; from 0/s to [\d,]+/s, the last 60 s", said)


def test_a_filter_that_matches_nothing_says_so_and_an_address_prefix_is_no_coin(
    tmp_path: Path, browser: webdriver.Chrome
) -> None:
    port = free_port()
    with node(tmp_path), sidecar(tmp_path, port):
        browser.get(f"http://127.0.0.1:{port}/")
        seen(browser, "#orders tbody", lambda said: "…" in said)
        words = browser.find_element(By.ID, "words")
        words.clear()
        words.send_keys("0x12ab", Keys.ENTER)
        seen(
            browser,
            "#notes",
            lambda said: said == "0x12ab is not a whole address: write 0x and 40 hex digits (this has 4).",
        )
        assert "…" in text(browser, "#orders tbody"), "what was shown goes on"
        words.clear()
        words.send_keys("0x" + "77" * 20, Keys.ENTER)
        seen(browser, "#orders tbody", lambda said: said == "No order matches this filter so far.")
        assert text(browser, "#notes") == ""
        words.clear()
        words.send_keys("BTC", Keys.ENTER)
        seen(browser, "#orders tbody", lambda said: "BTC" in said)
        assert "No order matches" not in text(browser, "#orders tbody")


def test_gaps_and_unreadable_lines_are_coloured_only_above_zero(tmp_path: Path, browser: webdriver.Chrome) -> None:
    port = free_port()
    with node(tmp_path), sidecar(tmp_path, port):
        browser.get(f"http://127.0.0.1:{port}/")
        tile = '[data-name="unreadable lines"]'
        assert seen(browser, f"{tile} dd", str) == "0"
        plain = style(browser, f"{tile} dd", "color")
        hour = max(
            (tmp_path / "data" / "node_order_statuses_streaming" / "hourly").glob("*/*"),
            key=lambda path: path.stat().st_mtime,
        )
        with hour.open("ab") as file:
            file.write(b"no line of a node\n")
        seen(browser, f"{tile} dd", number)
        assert style(browser, f"{tile} dd", "color") != plain
        assert style(browser, '[data-name="gaps"] dd', "color") == style(browser, f"{tile} dd", "color")


def test_every_table_fits_a_window_of_1280_pixels(tmp_path: Path, browser: webdriver.Chrome) -> None:
    port = free_port()
    browser.set_window_size(1280, 1500)
    with node(tmp_path), sidecar(tmp_path, port):
        browser.get(f"http://127.0.0.1:{port}/")
        seen(browser, '[data-name="orders a second"] dd', lambda said: number(said) > 500)
        assert seen(browser, "#streams table", lambda said: "node_raw_book_diffs" in said)
        assert overflowing(browser) == []
        assert browser.execute_script("return document.documentElement.scrollWidth") <= 1280
        picture(browser, "page-1280.png")
