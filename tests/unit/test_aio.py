"""From coroutines to asyncio and back: await_(), `await task` and aio.run()."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import inspect
import socket
import sys
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

import pycoronet
from pycoronet import Cancelled, aio, await_, current, sleep, spawn, subprocess
from pycoronet.errors import AwaitedCancelledError

pytestmark = pytest.mark.usefixtures("virtual_hub")

Log = list[Any]


async def later(seconds: float, value: Any = None) -> Any:
    """Wait, then return the value, or raise it."""
    await asyncio.sleep(seconds)
    if isinstance(value, BaseException):
        raise value
    return value


async def noting(log: Log, clean_up: float = 0, *, swallows: bool = False) -> str:
    """Sleep for long; note how that ended."""
    try:
        await asyncio.sleep(1000)
    except asyncio.CancelledError:
        await asyncio.sleep(clean_up)
        log.append("cleaned up")
        if not swallows:
            raise
    return "swallowed"


# --- await_ ----------------------------------------------------------------------------------


def test_await_returns_the_result(virtual_hub: pycoronet.Hub) -> None:
    began = virtual_hub.time
    assert await_(later(3600, "result")) == "result"
    assert 3600 <= virtual_hub.time - began < 3600.01


def test_await_raises_the_exception() -> None:
    with pytest.raises(KeyError, match="inside"):
        await_(later(1, KeyError("inside")))


def test_await_parks_only_its_task() -> None:
    log: Log = []

    def wait(number: int) -> None:
        log.append(await_(later(4 - number, number)))

    tasks = [spawn(wait, number) for number in (1, 2, 3)]
    sleep(2.5)
    log.append("between")
    for task in tasks:
        task.join()
    assert log == [3, 2, "between", 1]


def test_await_takes_futures_tasks_and_awaitables() -> None:
    class Awaitable:
        def __await__(self) -> Any:
            return later(1, "by __await__").__await__()

    loop = aio.get_loop()
    future = loop.create_future()
    loop.call_later(1, future.set_result, "by future")
    assert await_(future) == "by future"
    assert await_(future) == "by future"
    assert await_(loop.create_task(later(1, "by task"))) == "by task"
    assert await_(Awaitable()) == "by __await__"


def test_await_refuses_what_cannot_be_awaited() -> None:
    with pytest.raises(TypeError):
        await_(7)  # type: ignore[arg-type]


def test_await_refuses_a_future_of_another_loop() -> None:
    loop = aio.EventLoop()
    with pytest.raises(RuntimeError, match="a loop that this hub does not drive"):
        await_(loop.create_future())
    loop.close()


def test_await_knows_the_callers_context() -> None:
    variable = contextvars.ContextVar("variable", default="none")

    async def look() -> str:
        seen = variable.get()
        variable.set("of asyncio")
        return seen

    variable.set("of the caller")
    assert await_(look()) == "of the caller"
    assert variable.get() == "of the caller"


def test_cancelled_task_cancels_what_it_awaits_and_waits_for_its_end() -> None:
    log: Log = []

    def wait() -> None:
        try:
            await_(noting(log, clean_up=5))
        finally:
            log.append(pycoronet.get_hub().time - began)

    began = pycoronet.get_hub().time
    task = spawn(wait)
    sleep(1)
    task.cancel("enough")
    with pytest.raises(Cancelled, match="enough"):
        task.get()
    assert log[0] == "cleaned up"
    assert 6 <= log[1] < 6.1


def test_timeout_ends_an_await() -> None:
    log: Log = []
    with pytest.raises(TimeoutError), pycoronet.timeout(2):
        await_(noting(log))
    assert log == ["cleaned up"]


def test_coroutine_that_swallows_its_cancellation_does_not_swallow_the_tasks() -> None:
    log: Log = []
    with pytest.raises(TimeoutError), pycoronet.timeout(2):
        await_(noting(log, swallows=True))
    assert log == ["cleaned up"]


def test_failure_while_cleaning_up_is_what_the_caller_gets() -> None:
    async def fail() -> None:
        try:
            await asyncio.sleep(1000)
        finally:
            raise KeyError("while cleaning up")

    with pytest.raises(KeyError, match="while cleaning up"), pycoronet.timeout(2):
        await_(fail())


def test_asyncio_shield_keeps_what_is_awaited_going() -> None:
    task = aio.get_loop().create_task(later(10, "went on"))

    async def wait() -> None:
        await asyncio.shield(task)

    with pytest.raises(TimeoutError), pycoronet.timeout(1):
        await_(wait())
    assert await_(task) == "went on"


def test_cancellation_from_inside_is_an_exception_of_its_own() -> None:
    async def cancel_oneself() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(1)

    with pytest.raises(AwaitedCancelledError, match="cancel_oneself") as caught:
        await_(cancel_oneself())
    assert isinstance(caught.value.__cause__, asyncio.CancelledError)
    assert isinstance(caught.value, Exception)


def test_system_exit_inside_reaches_the_task_that_awaits() -> None:
    with pytest.raises(SystemExit, match="7"):
        await_(later(1, SystemExit(7)))
    sleep(1)  # and nobody else

    def exit_in_task() -> str:
        try:
            await_(later(1, SystemExit(7)))
        except SystemExit:
            return "caught"
        return "not raised"

    assert spawn(exit_in_task).get() == "caught"
    sleep(1)


def test_what_nobody_can_resolve_is_a_deadlock() -> None:
    with pytest.raises(pycoronet.DeadlockError, match="await_"):
        await_(aio.get_loop().create_future())
    assert await_(later(1, "goes on")) == "goes on"


def test_await_in_a_callback_is_refused() -> None:
    log: Log = []

    def callback() -> None:
        with pytest.raises(RuntimeError, match="in asyncio code use await"):
            await_(later(1))
        log.append("refused")

    pycoronet.get_hub().call_soon(callback)
    aio.get_loop().call_soon(callback)
    sleep(1)
    assert log == ["refused"] * 2


# --- Inside of a step ------------------------------------------------------------------------


def test_waiting_in_a_step_is_refused_and_says_to_await() -> None:
    left, right = socket.socketpair()
    conn = pycoronet.sk_conn(left)

    async def misuse() -> None:
        for wait in (
            lambda: sleep(1),
            lambda: conn.recv(1),
            lambda: spawn(sleep).join(),
            lambda: pycoronet.Event().wait(),
            lambda: pycoronet.wait_readable(right),
        ):
            with pytest.raises(RuntimeError, match=r"a step of asyncio cannot; await a task"):
                wait()
        with pytest.raises(RuntimeError, match="in asyncio code use await"):
            await_(later(1))
        assert current() is None

    with conn, right:
        await_(misuse())


def test_a_scope_in_a_step_is_refused_and_says_to_await() -> None:
    async def misuse() -> None:
        for scope in (pycoronet.timeout(1), pycoronet.shield(), pycoronet.TaskGroup()):
            with pytest.raises(RuntimeError, match=r"a step of asyncio has no task.*await"), scope:
                raise AssertionError("the block was entered")
        with pytest.raises(RuntimeError, match=r"a step of asyncio has no task.*await"):
            subprocess.run([sys.executable, "-c", ""])

    await_(misuse())


def test_other_callbacks_are_told_to_spawn() -> None:
    log: Log = []

    def callback() -> None:
        with pytest.raises(RuntimeError, match=r"a hub callback cannot; spawn\(\)"):
            sleep(1)
        log.append("refused")

    await_(later(1))
    pycoronet.get_hub().call_soon(callback)
    sleep(1)
    assert log == ["refused"]


def test_running_loop_is_set_only_during_a_step() -> None:
    seen: Log = []

    def look() -> None:
        try:
            seen.append(asyncio.get_running_loop())
        except RuntimeError:
            seen.append(None)

    def coroutine() -> None:
        for _ in range(5):
            look()
            sleep(0)
        await_(later(1))
        look()

    async def main() -> str:
        spawn(coroutine)
        pycoronet.get_hub().call_soon(look)
        for _ in range(10):
            assert asyncio.get_running_loop() is aio.get_loop()
            await asyncio.sleep(0.2)
        return "through"

    assert aio.run(main()) == "through"
    assert seen == [None] * 7


# --- await task ------------------------------------------------------------------------------


def test_await_task_gives_its_result() -> None:
    def work(seconds: float, value: Any) -> Any:
        sleep(seconds)
        if isinstance(value, BaseException):
            raise value
        return value

    async def main() -> list[Any]:
        tasks = [spawn(work, 2, "slow"), spawn(work, 1, "fast")]
        results = [await task for task in tasks]
        with pytest.raises(KeyError):
            await spawn(work, 1, KeyError())
        return [*results, await tasks[0]]

    assert aio.run(main()) == ["slow", "fast", "slow"]


def test_await_task_that_fails_reports_nothing(reports: Log) -> None:
    def fail() -> None:
        raise KeyError

    async def main() -> None:
        with pytest.raises(KeyError):
            await spawn(fail)

    aio.run(main())
    assert reports == []


def test_await_cancelled_task_raises_cancelled() -> None:
    async def main() -> None:
        task = spawn(sleep, 100)
        asyncio.get_running_loop().call_later(1, task.cancel)
        with pytest.raises(Cancelled):
            await task

    aio.run(main())


def test_cancelled_await_leaves_the_task_alone() -> None:
    async def main() -> str:
        task = spawn(lambda: (sleep(10), "went on")[1])
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(_wait_for(task), 1)
        assert not task.done
        linked = [item for item in gc.get_referents(task) if inspect.isfunction(item)]
        assert [function.__module__ for function in linked] == [__name__]  # its own alone
        return str(await task)

    async def _wait_for(task: pycoronet.Task) -> None:
        await task

    assert aio.run(main()) == "went on"


def test_task_can_be_awaited_by_many() -> None:
    async def main() -> list[str]:
        task = spawn(lambda: (sleep(1), "once")[1])

        async def wait() -> str:
            return str(await task)

        return await asyncio.gather(*[wait() for _ in range(50)])

    assert aio.run(main()) == ["once"] * 50


def test_await_task_on_a_loop_of_asyncios_own_is_refused() -> None:
    async def main() -> None:
        task = spawn(sleep)
        with pytest.raises(RuntimeError, match=r"run this code with pycoronet\.aio\.run"):
            await task

    asyncio.run(main())


def test_await_task_of_another_thread_is_refused() -> None:
    task = spawn(sleep, 1)

    async def main() -> None:
        with pytest.raises(RuntimeError, match="another thread"):
            await task

    pycoronet.to_thread(lambda: aio.run(main()))
    task.join()


def test_await_task_outside_of_asyncio_is_refused() -> None:
    with pytest.raises(RuntimeError, match="no running event loop"):
        spawn(sleep, 1).__await__().send(None)


def test_back_and_forth_many_levels() -> None:
    async def down(level: int) -> int:
        return 0 if level == 0 else 1 + int(await spawn(lambda: await_(down(level - 1))))

    assert aio.run(down(50)) == 50


# --- run -------------------------------------------------------------------------------------


def test_run_cancels_what_main_has_left() -> None:
    log: Log = []

    async def main() -> str:
        asyncio.get_running_loop().create_task(noting(log, clean_up=1))
        await asyncio.sleep(1)
        return "result"

    assert aio.run(main()) == "result"
    assert log == ["cleaned up"]


def test_run_shuts_generators_and_the_executor_down() -> None:
    log: Log = []

    async def generate() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            log.append("generator")

    async def main() -> None:
        kept.append(generate())
        await kept[0].__anext__()

    kept: list[Any] = []
    before = sys.get_asyncgen_hooks()
    aio.run(main())
    assert log == ["generator"]
    assert sys.get_asyncgen_hooks() == before


def test_run_raises_what_main_raises() -> None:
    with pytest.raises(KeyError):
        aio.run(later(1, KeyError()))
    with pytest.raises(SystemExit):
        aio.run(later(1, SystemExit()))
    with pytest.raises(asyncio.CancelledError):
        aio.run(later(1, asyncio.CancelledError()))
    assert aio.run(later(1, "again")) == "again"


def test_run_in_a_task_parks_only_that_and_is_cancelled_with_it() -> None:
    log: Log = []
    task = spawn(aio.run, noting(log, clean_up=1))
    sleep(1)
    log.append("main goes on")
    task.cancel()
    with pytest.raises(Cancelled):
        task.get()
    assert log == ["main goes on", "cleaned up"]


def test_run_refuses_what_is_no_coroutine() -> None:
    with pytest.raises(ValueError, match="a coroutine was expected"):
        aio.run(later)  # type: ignore[arg-type]


def test_run_in_a_run_is_refused() -> None:
    def inner() -> None:
        aio.run(later(1))

    async def main() -> None:
        with pytest.raises(RuntimeError, match="use await"):
            aio.run(later(1))
        with pytest.raises(RuntimeError, match="use await"):
            await spawn(inner)

    aio.run(main())


def test_tasks_await_on_the_loop_that_runs() -> None:
    async def main() -> bool:
        queue: asyncio.Queue[str] = asyncio.Queue()
        task = spawn(lambda: await_(queue.get()))
        await asyncio.sleep(1)
        await queue.put("one loop")
        return bool(await task == "one loop")

    assert aio.run(main())


def test_time_goes_on_after_the_hub(virtual_hub: pycoronet.Hub) -> None:
    loop = aio.EventLoop()
    virtual_hub.close()
    assert loop.time() <= time.monotonic()
    loop.close()
