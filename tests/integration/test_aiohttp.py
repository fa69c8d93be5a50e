"""A library of asyncio's from the package index, on the hub: aiohttp's server and client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

import pycoronet
from pycoronet import aio, await_, sleep, spawn

aiohttp: Any = pytest.importorskip("aiohttp", reason="aiohttp is not installed")
web: Any = pytest.importorskip("aiohttp.web")

LIMIT = 20

Handler = Callable[[Any], Awaitable[Any]]


@asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[str]:
    """Give the URL of a server that runs in here."""
    application = web.Application()
    application.router.add_get("/{name}", handler)
    runner = web.AppRunner(application, handler_cancellation=True)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        yield f"http://{host}:{port}"
    finally:
        await runner.cleanup()


async def get(session: Any, url: str) -> str:
    async with session.get(url) as response:
        return str(await response.text())


async def greet(request: Any) -> Any:
    await asyncio.sleep(0)
    return web.Response(text=f"hello {request.match_info['name']}")


def test_task_fetches_from_a_server() -> None:
    def fetch(session: Any, url: str) -> list[str]:
        """Straight-line code that uses a library of asyncio's."""
        return [await_(get(session, f"{url}/{name}")) for name in ("Ada", "Alan")]

    async def main() -> list[list[str]]:
        async with serving(greet) as url, aiohttp.ClientSession() as session:
            tasks = [spawn(fetch, session, url) for _ in range(20)]
            return [await task for task in tasks]

    with pycoronet.timeout(LIMIT):
        assert aio.run(main()) == [["hello Ada", "hello Alan"]] * 20


def test_handler_awaits_a_task() -> None:
    def work(name: str) -> str:
        sleep(0)
        return name.upper()

    async def handle(request: Any) -> Any:
        return web.Response(text=await spawn(work, request.match_info["name"]))

    async def main() -> str:
        async with serving(handle) as url, aiohttp.ClientSession() as session:
            return await get(session, f"{url}/ada")

    with pycoronet.timeout(LIMIT):
        assert aio.run(main()) == "ADA"


def test_connection_of_ours_talks_to_the_server() -> None:
    def talk(port: int) -> bytes:
        with pycoronet.connect(("127.0.0.1", port), timeout=LIMIT) as conn:
            conn.write(b"GET /Grace HTTP/1.0\r\n\r\n")
            return b"".join(conn)

    async def main() -> bytes:
        async with serving(greet) as url:
            return bytes(await spawn(talk, int(url.rsplit(":", 1)[1])))

    with pycoronet.timeout(LIMIT):
        assert aio.run(main()).endswith(b"hello Grace")


def test_websocket_with_a_task_at_each_end() -> None:
    async def echo(request: Any) -> Any:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            await socket.send_str(await spawn(str.upper, message.data))
        return socket

    def talk(session: Any, url: str) -> list[str]:
        socket = await_(session.ws_connect(f"{url}/ws"))
        got = []
        for word in ("one", "two"):
            await_(socket.send_str(word))
            got.append(await_(socket.receive_str()))
        await_(socket.close())
        return got

    async def main() -> list[str]:
        async with serving(echo) as url, aiohttp.ClientSession() as session:
            return list(await spawn(talk, session, url))

    with pycoronet.timeout(LIMIT):
        assert aio.run(main()) == ["ONE", "TWO"]


def test_cancelled_request_leaves_nothing_behind() -> None:
    began = pycoronet.Event()

    async def hang(request: Any) -> Any:
        began.set()
        await asyncio.sleep(LIMIT)

    async def main() -> bool:
        async with serving(hang) as url, aiohttp.ClientSession() as session:
            task = spawn(lambda: await_(get(session, f"{url}/x")))
            await spawn(began.wait)
            task.cancel()
            with pytest.raises(pycoronet.Cancelled):
                await task
            return not session.connector._acquired

    with pycoronet.timeout(LIMIT):
        assert aio.run(main())
    assert "asyncio" not in pycoronet.get_hub().dump()
