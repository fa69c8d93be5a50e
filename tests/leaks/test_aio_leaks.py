"""Leaks of asyncio's loop over the hub, and of what goes from one side to the other."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest
from connections import open_descriptors
from leak_case import Case, check_rounds, count_objects, run_rounds

import pycoronet
from pycoronet import READ, WRITE, Cancelled, Task, aio, await_, get_hub, sleep, spawn
from pycoronet._coronet import Guest

pytestmark = [pytest.mark.leaks, pytest.mark.usefixtures("virtual_hub")]

TYPES = (Task, Guest, aio.EventLoop, asyncio.Task, asyncio.Future)


async def later(seconds: float, value: Any = None) -> Any:
    await asyncio.sleep(seconds)
    if isinstance(value, BaseException):
        raise value
    return value


def attempt(error: type[BaseException], call: Any, *arguments: Any) -> None:
    try:
        call(*arguments)
    except error:
        return
    raise AssertionError(error)


def await_results() -> None:
    tasks = [spawn(await_, later(seconds, {})) for seconds in (0, 1, 1)]
    for task in tasks:
        assert task.get() == {}
    attempt(KeyError, await_, later(1, KeyError()))
    attempt(pycoronet.errors.AwaitedCancelledError, await_, later(1, asyncio.CancelledError()))


def await_in_vain() -> None:
    task = spawn(await_, later(100))
    sleep(1)
    task.cancel()
    attempt(Cancelled, task.get)
    attempt(TypeError, await_, 1)
    attempt(pycoronet.DeadlockError, await_, aio.get_loop().create_future())
    foreign = aio.EventLoop()
    attempt(RuntimeError, await_, foreign.create_future())
    foreign.close()
    get_hub().call_soon(attempt, RuntimeError, await_, later(1))
    sleep(1)


def await_tasks() -> None:
    async def main() -> None:
        task = spawn(sleep, 5)
        try:
            await asyncio.wait_for(asyncio.gather(wait(task), wait(task)), 1)
        except asyncio.TimeoutError:
            await task
        failing = spawn(lambda: (sleep(1), {}[0]))
        try:
            await failing
        except KeyError:
            attempt(RuntimeError, sleep, 1)

    async def wait(task: Task) -> None:
        await task

    aio.run(main())


def run_and_close() -> None:
    async def main() -> None:
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(b"x\n")
        assert await reader.read() == b"x\n"
        writer.close()
        server.close()
        asyncio.get_running_loop().call_later(1000, print)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readline())
        writer.close()
        await writer.wait_closed()

    aio.run(main())
    attempt(KeyError, aio.run, later(1, KeyError()))
    attempt(SystemExit, aio.run, later(1, SystemExit()))


def watch_and_drop() -> None:
    left, right = socket.socketpair()
    with left, right:
        guest = Guest(lambda: (guest.take(), guest.close()), lambda: None)
        guest.watch(left, READ | WRITE)
        guest.wake_at(get_hub().time + 5)
        sleep(10)
        guest = Guest(lambda: guest.take(), lambda: None)
        guest.watch(left, READ)
        guest.wake_at(get_hub().time + 5)
        with pycoronet.sk_conn(right.detach()) as conn:
            attempt(ValueError, guest.watch, conn.fileno(), READ)
        attempt(OSError, guest.watch, 10**6, READ)
        guest.close()
    attempt(TypeError, Guest, 1, 2)
    attempt(RuntimeError, guest.take)


@pytest.mark.parametrize(
    "case",
    [await_results, await_in_vain, await_tasks, watch_and_drop],
)
def test_rounds_leave_nothing(case: Case) -> None:
    check_rounds(case, types=TYPES)


def test_watches_are_freed() -> None:
    check_rounds(watch_and_drop, by_malloc=True)


def close_the_hub() -> None:
    async def main() -> None:
        asyncio.get_running_loop().create_task(later(1000))
        await asyncio.sleep(1)

    aio.run(main())
    spawn(await_, later(1000))
    aio.get_loop().create_task(later(1000))
    sleep(1)
    get_hub().close()
    get_hub(backend="fake")


@pytest.mark.parametrize("case", [run_and_close, close_the_hub])
def test_loops_that_end_leave_no_objects(case: Case) -> None:
    # Memory is not looked at: asyncio's streams and gather() lose some on its own loop as well.
    run_rounds(case, 5)
    before = count_objects(TYPES), open_descriptors()
    run_rounds(case, 30)
    assert (count_objects(TYPES), open_descriptors()) == before
