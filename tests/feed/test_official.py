"""Official and other clients as they are: what they ask for arrives, and they can read it."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from hyperliquid.websocket_manager import WebsocketManager  # type: ignore[import-untyped]  # ships no types

from hyperwatch.node.streams import FILLS, Layout
from support import USER, append, event, fill, hour_file, line, running

SELLER = "0x" + "cd" * 20
HOUR = "20260505/9"


@pytest.fixture
def write(tmp_path: Path) -> Callable[[], None]:
    """Writes a block with an order of USER and a trade between the two, each time the next."""
    orders, fills = hour_file(tmp_path, HOUR), hour_file(tmp_path, HOUR, Layout.STREAMING, FILLS)
    block = 7

    def write() -> None:
        nonlocal block
        append(orders, line(block, [event(block)]))
        buyer, seller = fill(block, "B", crossed=True), fill(block, "A", user=SELLER)
        append(fills, line(block, [seller]) + line(block, [buyer]))
        block += 1

    write()
    return write


async def test_the_official_python_sdk_receives_trades_order_updates_and_user_fills(
    tmp_path: Path, write: Callable[[], None]
) -> None:
    heard: dict[str, list[Any]] = {"trades": [], "orderUpdates": [], "userFills": []}
    arrived = threading.Event()

    def on_message(message: Any) -> None:  # noqa: ANN401  the client's own type says no more
        heard[message["channel"]].append(message["data"])
        if all(heard.values()) and len(heard["userFills"]) > 1:
            arrived.set()

    with trio.fail_after(20):
        async with running(tmp_path) as port:
            manager = WebsocketManager(f"http://127.0.0.1:{port}")
            manager.daemon = True
            manager.start()
            try:
                for kind in ({"type": "l2Book", "coin": "BTC"}, {"type": "allMids"}, {"type": "trades", "coin": "*"}):
                    manager.subscribe(kind, on_message)  # what cannot be served disturbs nothing
                manager.subscribe({"type": "trades", "coin": "BTC"}, on_message)
                manager.subscribe({"type": "orderUpdates", "user": USER}, on_message)
                manager.subscribe({"type": "userFills", "user": USER}, on_message)
                while not arrived.is_set():
                    write()
                    await trio.to_thread.run_sync(partial(arrived.wait, 0.1))
            finally:
                manager.stop()  # its threads are daemons, and take their time

    (trade, *_) = heard["trades"][0]
    assert (trade["coin"], trade["side"], trade["px"], trade["users"]) == ("BTC", "B", "81308.0", [USER, SELLER])
    assert heard["orderUpdates"][0][0]["status"] == "open"
    assert heard["userFills"][0] == {"isSnapshot": True, "user": USER, "fills": []}
    assert heard["userFills"][1]["fills"][0]["side"] == "B"


EXCHANGE = """
    import asyncio, json, sys
    import ccxt.pro

    class Exchange(ccxt.pro.hyperliquid):
        async def load_markets(self, reload=False, params={}):
            return self.markets  # they are set below: nothing is asked of any server

    async def main(url, user):
        exchange = Exchange({"walletAddress": user})
        exchange.urls["api"]["ws"]["public"] = url
        exchange.set_markets([exchange.safe_market_structure({
            "id": "0", "symbol": "BTC/USDC:USDC", "base": "BTC", "quote": "USDC", "settle": "USDC", "baseName": "BTC",
            "baseId": "0", "quoteId": "USDC", "settleId": "USDC", "type": "swap", "swap": True, "spot": False,
            "contract": True, "linear": True, "contractSize": 1,
            "precision": {"amount": 0.00001, "price": 1}, "info": {},
        })])
        try:
            await watch(exchange)
        finally:
            await exchange.close()

    asyncio.run(main(*sys.argv[1:]))
"""
THREE = """
    async def watch(exchange):
        trades, orders, fills = await asyncio.gather(
            exchange.watch_trades("BTC/USDC:USDC"), exchange.watch_orders(), exchange.watch_my_trades()
        )
        print(json.dumps([trades[-1], orders[-1], fills[-1]]))
        await exchange.un_watch_trades("BTC/USDC:USDC")
"""
BESIDE = """
    async def watch(exchange):
        symbol, url = "BTC/USDC:USDC", exchange.urls["api"]["ws"]["public"]
        post = {"method": "post", "id": 7, "request": {"type": "action", "payload": {}}}
        refused = []

        async def healthy():
            await asyncio.gather(exchange.watch_trades(symbol), exchange.watch_my_trades())
            while len(refused) < 6:
                await asyncio.gather(exchange.watch_trades(symbol), exchange.watch_orders(), exchange.watch_my_trades())

        async def not_served():
            for wish in (
                exchange.watch_order_book(symbol), exchange.watch_ohlcv(symbol, "1m"), exchange.watch_ticker(symbol),
                exchange.watch_tickers(), exchange.watch_positions(), exchange.watch(url, "7", post, "7"),
            ):
                try:
                    await asyncio.wait_for(wish, 5)
                except ccxt.BaseError as error:
                    refused.append(f"{type(error).__name__} {error}")

        await asyncio.gather(healthy(), not_served())
        print(json.dumps(refused))
"""


async def ccxt_does(what: str, data_dir: Path, write: Callable[[], None]) -> Any:  # noqa: ANN401  JSON
    """What a program on ccxt prints last, while blocks are written. In a process of its own: it is built on asyncio."""
    program = textwrap.dedent(what) + textwrap.dedent(EXCHANGE)
    with trio.fail_after(40):
        async with running(data_dir) as port, trio.open_nursery() as nursery:
            command = [sys.executable, "-c", program, f"ws://127.0.0.1:{port}/ws", USER]
            run = partial(trio.run_process, command, capture_stdout=True, stderr=subprocess.STDOUT, check=False)
            ended: list[subprocess.CompletedProcess[bytes]] = []

            async def client() -> None:
                ended.append(await run())

            nursery.start_soon(client)
            while not ended:
                write()
                await trio.sleep(0.1)
    assert ended[0].returncode == 0, ended[0].stdout.decode()
    return json.loads(ended[0].stdout.splitlines()[-1])


async def test_ccxts_hyperliquid_client_receives_trades_orders_and_its_own_trades(
    tmp_path: Path, write: Callable[[], None]
) -> None:
    trade, order, mine = await ccxt_does(THREE, tmp_path, write)
    assert (trade["symbol"], trade["side"], trade["price"], trade["amount"]) == (
        "BTC/USDC:USDC",
        "buy",
        81308.0,
        0.00033,
    )
    assert (order["symbol"], order["side"], order["status"]) == ("BTC/USDC:USDC", "buy", "open")
    assert (mine["symbol"], mine["side"], mine["price"]) == ("BTC/USDC:USDC", "buy", 81308.0)


async def test_what_cannot_be_served_costs_ccxt_nothing_that_it_watches_on_the_same_connection(
    tmp_path: Path, write: Callable[[], None]
) -> None:
    refused = await ccxt_does(BESIDE, tmp_path, write)
    assert [text.split()[0] for text in refused] == ["UnsubscribeError"] * 5 + ["ExchangeError"]
    assert "this is a feed, which takes no orders" in refused[-1]
