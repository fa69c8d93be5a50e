"""The event loop of asyncio over the hub: turns, time, descriptors, threads, signals, its end."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import socket
import threading
import weakref
from collections.abc import Iterator
from typing import Any

import pytest

import pycoronet
from pycoronet import READ, WRITE, Hub, aio, await_, get_hub, sleep, spawn
from pycoronet.testing import virtual_time

Log = list[Any]


@pytest.fixture
def loop(virtual_hub: Hub) -> Iterator[aio.EventLoop]:
    """Return a loop that is driven only in run_forever()."""
    loop = aio.EventLoop()
    yield loop
    loop.close()


async def later(seconds: float) -> str:
    await asyncio.sleep(seconds)
    return "later"


# --- Running and stopping --------------------------------------------------------------------


def test_loop_that_does_not_run_calls_nothing(loop: aio.EventLoop) -> None:
    log: Log = []
    loop.call_soon(log.append, "soon")
    loop.call_later(1, log.append, "later")
    sleep(5)
    assert log == []
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert log == ["soon", "later"]


def test_stop_before_running_lets_one_turn_pass(loop: aio.EventLoop) -> None:
    log: Log = []
    loop.call_soon(lambda: loop.call_soon(log.append, "second turn"))
    loop.call_soon(log.append, "first turn")
    loop.stop()
    loop.run_forever()
    assert log == ["first turn"]
    loop.stop()
    loop.run_forever()
    assert log == ["first turn", "second turn"]


def test_coroutine_can_stop_the_loop(loop: aio.EventLoop) -> None:
    began = get_hub().time
    spawn(lambda: (sleep(5), loop.stop()))
    loop.run_forever()
    assert 5 <= get_hub().time - began < 5.1
    assert not loop.is_running()


def test_coroutines_see_the_loop_run_and_not_be_theirs(loop: aio.EventLoop) -> None:
    task = spawn(lambda: (loop.is_running(), asyncio._get_running_loop()))
    loop.run_until_complete(later(1))
    assert task.get() == (True, None)


def test_second_run_of_a_loop_or_hub_is_refused(loop: aio.EventLoop) -> None:
    other = aio.EventLoop()

    def run(which: aio.EventLoop) -> str:
        with pytest.raises(RuntimeError) as caught:
            which.run_forever()
        return str(caught.value)

    loop.call_later(1, loop.stop)
    tasks = [spawn(run, loop), spawn(run, other)]
    loop.run_forever()
    assert "already running" in tasks[0].get()
    assert "use await_() instead" in tasks[1].get()
    other.close()


def test_running_in_a_callback_of_the_hub_is_refused(loop: aio.EventLoop) -> None:
    log: Log = []

    def run() -> None:
        with pytest.raises(RuntimeError, match=r"spawn\(\) a task"):
            loop.run_forever()
        log.append("refused")

    get_hub().call_soon(run)
    sleep(0)
    sleep(0)
    assert log == ["refused"]
    assert not loop.is_running()


def test_loop_can_be_made_in_one_thread_and_run_in_another(loop: aio.EventLoop) -> None:
    left, right = socket.socketpair()
    with left, right:
        left.setblocking(False)
        right.send(b"x")
        loop.add_reader(left, loop.stop)
        thread = threading.Thread(target=loop.run_forever)
        thread.start()
        thread.join(10)
        assert not thread.is_alive()
        loop.remove_reader(left)


def test_closed_loop_refuses_to_run(loop: aio.EventLoop) -> None:
    loop.close()
    loop.close()
    with pytest.raises(RuntimeError, match="closed"):
        loop.run_forever()
    with pytest.raises(RuntimeError, match="closed"):
        loop.call_soon(print)


def test_running_loop_refuses_to_be_closed(loop: aio.EventLoop) -> None:
    def close() -> None:
        with pytest.raises(RuntimeError, match="running"):
            loop.close()

    task = spawn(close)
    loop.run_until_complete(later(1))
    task.get()


def test_system_exit_of_a_callback_leaves_the_run(loop: aio.EventLoop) -> None:
    def leave() -> None:
        raise SystemExit(3)

    log: Log = []
    loop.call_soon(leave)
    loop.call_soon(log.append, "goes on")
    with pytest.raises(SystemExit):
        loop.run_forever()
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert log == ["goes on"]


def test_system_exit_on_the_hubs_own_loop_reaches_the_main_program(virtual_hub: Hub) -> None:
    def leave() -> None:
        raise SystemExit(3)

    aio.get_loop().call_later(1, leave)
    with pytest.raises(SystemExit):
        sleep(5)


def test_exceptions_of_callbacks_go_to_the_handler(loop: aio.EventLoop) -> None:
    contexts: Log = []
    loop.set_exception_handler(lambda _, context: contexts.append(context))
    loop.call_soon(lambda: 1 // 0)
    loop.run_until_complete(later(1))
    assert isinstance(contexts[0]["exception"], ZeroDivisionError)


def test_slow_callbacks_are_reported_in_debug_mode(
    virtual_hub: Hub, caplog: pytest.LogCaptureFixture
) -> None:
    loop = aio.get_loop()
    loop.set_debug(True)
    loop.slow_callback_duration = 0

    async def slow() -> None:
        pass

    with caplog.at_level(logging.WARNING, "asyncio"):
        await_(slow())
    assert "slow()" in caplog.text


def test_misuse_from_another_thread_is_found_in_debug_mode(loop: aio.EventLoop) -> None:
    loop.set_debug(True)

    async def main() -> None:
        with pytest.raises(RuntimeError, match="Non-thread-safe operation"):
            await asyncio.to_thread(loop.call_soon, print)

    loop.run_until_complete(main())


def test_traceback_of_a_handle_ends_where_it_was_made(virtual_hub: Hub) -> None:
    loop = aio.get_loop()
    loop.set_debug(True)
    for handle in (loop.call_soon(print), loop.call_later(1, print)):
        frame = handle._source_traceback[-1]  # type: ignore[attr-defined]
        assert frame.name == "test_traceback_of_a_handle_ends_where_it_was_made"
        handle.cancel()


# --- Time ------------------------------------------------------------------------------------


def test_time_is_the_hubs(virtual_hub: Hub) -> None:
    loop = aio.get_loop()
    log: Log = []
    began = virtual_hub.time
    assert loop.time() == began
    loop.call_later(7200, lambda: log.append(loop.time() - began))
    loop.call_at(began + 3600, lambda: log.append(loop.time() - began))
    sleep(10000)
    assert log == [pytest.approx(3600, abs=0.002), pytest.approx(7200, abs=0.002)]
    assert log[0] >= 3600
    assert log[1] >= 7200


@pytest.mark.parametrize("by", ["a callback of the hub", "a step"])
def test_cancelled_timer_holds_nobody_up(virtual_hub: Hub, by: str) -> None:
    began = virtual_hub.time
    loop = aio.get_loop()
    handle = loop.call_later(3600, print)
    sleep(0)
    if by == "a step":
        loop.call_later(1, handle.cancel)
    else:
        virtual_hub.call_later(1, handle.cancel)
    virtual_hub.run()
    assert virtual_hub.time - began < 2


def test_hub_runs_until_asyncio_has_nothing_left(virtual_hub: Hub) -> None:
    log: Log = []
    aio.get_loop().call_later(5, log.append, "called")
    virtual_hub.run()
    assert log == ["called"]


def test_coroutines_and_asyncio_share_the_thread_fairly(virtual_hub: Hub) -> None:
    counts = {"coroutine": 0, "asyncio": 0}
    is_over = False

    def coroutine() -> None:
        while not is_over:
            counts["coroutine"] += 1
            sleep(0)

    async def turn() -> None:
        while counts["asyncio"] < 1000:
            counts["asyncio"] += 1
            await asyncio.sleep(0)

    tasks = [spawn(coroutine) for _ in range(3)]
    await_(turn())
    is_over = True
    for task in tasks:
        task.join()
    assert 250 < counts["coroutine"] < 4000


def test_idle_loop_takes_no_turns(loop: aio.EventLoop, monkeypatch: pytest.MonkeyPatch) -> None:
    turns = 0
    run_once = loop._run_once  # type: ignore[attr-defined]

    def count() -> None:
        nonlocal turns
        turns += 1
        run_once()

    monkeypatch.setattr(loop, "_run_once", count)
    left, right = socket.socketpair()
    with left, right:
        left.setblocking(False)
        loop.add_reader(left, print)
        for second in range(1000):
            get_hub().call_later(second, int)  # the hub does turn
        loop.run_until_complete(later(1000))
        loop.remove_reader(left)
    assert turns < 10


# --- Descriptors -----------------------------------------------------------------------------


def test_registrations_name_asyncio_and_end_with_the_loop(virtual_hub: Hub) -> None:
    loop = aio.get_loop()
    left, right = socket.socketpair()
    with left, right:
        loop.add_reader(left, print)
        loop.add_writer(left, print)
        assert (left.fileno(), READ | WRITE, "level", "asyncio") in virtual_hub.registrations()
        assert "asyncio" in virtual_hub.dump()
        loop.remove_writer(left)
        assert (left.fileno(), READ, "level", "asyncio") in virtual_hub.registrations()
        loop.close()
        assert "asyncio" not in virtual_hub.dump()
    assert aio.get_loop() is not loop


def test_reader_is_called_as_long_as_there_is_something(virtual_hub: Hub) -> None:
    loop = aio.get_loop()
    left, right = socket.socketpair()
    got: Log = []

    def read() -> None:
        got.append(left.recv(1))
        if got[-1] == b"":
            loop.remove_reader(left)
            loop.stop()

    with left, right:
        right.sendall(b"abc")
        loop.add_reader(left, read)
        loop.call_later(1, right.close)
        loop.run_forever()
    assert got == [b"a", b"b", b"c", b""]


def test_hangup_calls_the_writer(virtual_hub: Hub) -> None:
    loop = aio.get_loop()
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    os.write(writer, bytes(65536))
    loop.add_writer(writer, loop.stop)
    loop.call_later(1, os.close, reader)
    loop.run_forever()
    loop.remove_writer(writer)
    os.close(writer)


def test_descriptor_of_a_connection_is_refused(virtual_hub: Hub) -> None:
    left, right = socket.socketpair()
    with pycoronet.sk_conn(left) as conn, right:
        with pytest.raises(ValueError, match="belongs to an sk_conn"):
            aio.get_loop().add_reader(conn.fileno(), print)
        assert not aio.get_loop().remove_reader(conn.fileno())


def test_one_descriptor_has_one_side_that_waits_for_it(virtual_hub: Hub) -> None:
    loop = aio.get_loop()
    left, right = socket.socketpair()
    with left, right:
        loop.add_reader(left, print)
        with pytest.raises(pycoronet.BusyError, match="an asyncio loop waits"):
            pycoronet.wait_readable(left)
        with pytest.raises(pycoronet.BusyError, match="an asyncio loop waits"):
            pycoronet.once(left, READ, print)
        loop.remove_reader(left)
        handle = pycoronet.once(left, READ, print)
        with pytest.raises(pycoronet.BusyError, match="somebody waits"):
            loop.add_reader(left, print)
        handle.cancel()
        loop.add_reader(left, print)
        loop.remove_reader(left)


def test_number_that_is_given_out_anew_belongs_to_its_new_owner(virtual_hub: Hub) -> None:
    loop = aio.get_loop()
    left, right = socket.socketpair()
    peer = socket.socket()
    with right, peer, pycoronet.listen(("127.0.0.1", 0)) as listener:
        peer.connect(listener.getsockname())
        loop.add_reader(left, print)
        number = left.fileno()
        left.close()  # behind the loop's back
        with listener.accept()[0] as conn:
            assert conn.fileno() == number
            assert loop.remove_reader(number)
            spawn(lambda: (sleep(1), peer.sendall(b"x")))
            assert conn.recv(1) == b"x"


def test_closed_descriptor_is_refused(virtual_hub: Hub) -> None:
    left, right = socket.socketpair()
    number = left.fileno()
    left.close()
    right.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        aio.get_loop().add_reader(number, print)
    assert not aio.get_loop().remove_reader(number)


def test_hub_driven_by_hand_takes_steps(virtual_hub: Hub) -> None:
    loop = aio.get_loop()
    left, right = socket.socketpair()
    got: Log = []
    with left, right:
        loop.add_reader(left, lambda: got.append(left.recv(9)))
        right.sendall(b"by hand")
        for _ in range(4):
            virtual_hub.wait(0)
            virtual_hub.dispatch()
        loop.remove_reader(left)
    assert got == [b"by hand"]


# --- Threads and signals ---------------------------------------------------------------------


def test_other_threads_wake_the_loop() -> None:
    with virtual_time():
        loop = aio.get_loop()
        task = spawn(pycoronet.to_thread, asyncio.run_coroutine_threadsafe, later(1), loop)
        assert await_(asyncio.wrap_future(task.get(), loop=loop)) == "later"


def test_executor_gives_its_results() -> None:
    async def main() -> int:
        return await asyncio.get_running_loop().run_in_executor(None, threading.get_ident)

    assert aio.run(main()) != threading.get_ident()


def test_signals_call_handlers_in_a_step() -> None:
    async def main() -> str:
        loop = asyncio.get_running_loop()
        came = loop.create_future()
        assert not loop.remove_signal_handler(signal.SIGUSR1)
        loop.add_signal_handler(signal.SIGUSR1, print)
        loop.add_signal_handler(signal.SIGUSR1, came.set_result, "came")
        os.kill(os.getpid(), signal.SIGUSR1)
        result = await came
        assert loop.remove_signal_handler(signal.SIGUSR1)
        return str(result)

    before = signal.getsignal(signal.SIGUSR1)
    assert aio.run(main()) == "came"
    assert signal.getsignal(signal.SIGUSR1) == before


def test_closing_the_loop_gives_signals_back() -> None:
    before = signal.getsignal(signal.SIGUSR1)
    loop = aio.EventLoop()
    loop.add_signal_handler(signal.SIGUSR1, print)
    assert signal.getsignal(signal.SIGUSR1) != before
    loop.close()
    assert signal.getsignal(signal.SIGUSR1) == before


def test_signal_handlers_outside_of_the_main_thread_are_refused() -> None:
    async def main() -> None:
        with pytest.raises(RuntimeError, match="main thread"):
            asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, print)

    pycoronet.to_thread(lambda: aio.run(main()))


def test_interrupt_cancels_main_and_is_raised() -> None:
    log: Log = []

    async def main() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        try:
            await asyncio.sleep(60)
        finally:
            log.append("cleaned up")

    with pytest.raises(KeyboardInterrupt):
        aio.run(main())
    assert log == ["cleaned up"]


# --- The end ---------------------------------------------------------------------------------


def test_closing_the_hub_cancels_what_asyncio_has_left() -> None:
    log: Log = []

    async def wait() -> None:
        try:
            await asyncio.sleep(1000)
        finally:
            await asyncio.sleep(1)
            log.append("asyncio")

    def coroutine() -> None:
        try:
            await_(wait())
        finally:
            with pycoronet.shield():
                log.append(await_(later(3)))

    with virtual_time():
        loop = aio.get_loop()
        task = loop.create_task(wait())
        spawn(coroutine)
        sleep(1)
    assert log == ["asyncio", "asyncio", "later"]
    assert loop.is_closed()
    assert task.cancelled()


def test_what_a_shielded_task_awaits_outlives_the_hubs_end() -> None:
    log: Log = []

    def coroutine() -> None:
        with pycoronet.shield():
            log.append(await_(later(3)))

    with virtual_time():
        spawn(coroutine)
        sleep(1)
    assert log == ["later"]


def test_failure_at_the_hubs_end_goes_to_the_handler() -> None:
    contexts: Log = []

    async def fail() -> None:
        try:
            await asyncio.sleep(1000)
        finally:
            raise KeyError

    with virtual_time():
        loop = aio.get_loop()
        loop.set_exception_handler(lambda _, context: contexts.append(context["exception"]))
        task = loop.create_task(fail())
        sleep(1)
    assert isinstance(contexts[0], KeyError)
    assert task.done()


def test_closing_the_hub_cancels_a_run_in_a_task() -> None:
    log: Log = []

    async def main() -> None:
        try:
            await asyncio.sleep(1000)
        finally:
            await asyncio.sleep(1)
            log.append("cleaned up")

    with virtual_time():
        spawn(aio.run, main())
        sleep(1)
    assert log == ["cleaned up"]


def test_thread_that_ends_lets_its_loop_go() -> None:
    loops: list[weakref.ref[aio.EventLoop]] = []

    def in_thread() -> None:
        assert await_(later(0)) == "later"
        loops.append(weakref.ref(aio.get_loop()))

    thread = threading.Thread(target=in_thread)
    thread.start()
    thread.join()
    gc.collect()
    assert loops[0]() is None


def test_forked_child_has_a_loop_of_its_own() -> None:
    with virtual_time():
        loop = aio.get_loop()
        left, right = socket.socketpair()
        loop.add_reader(left, loop.stop)
        assert await_(later(1)) == "later"
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                is_fresh = aio.get_loop() is not loop and "asyncio" not in get_hub().dump()
                status = 0 if is_fresh and await_(later(1)) == "later" else 2
            finally:
                os._exit(status)
        assert os.waitpid(pid, 0)[1] == 0
        with left, right:
            right.send(b"x")
            loop.run_forever()  # the parent's descriptor is still watched
            loop.remove_reader(left)


def test_fork_in_a_step_ends_the_childs_run() -> None:
    async def main() -> int:
        return os.fork()

    with virtual_time():
        parent = os.getpid()
        try:
            pid = aio.run(main())
        except RuntimeError as error:
            os._exit(0 if "a step of asyncio has forked" in str(error) else 3)
        finally:
            if os.getpid() != parent:
                os._exit(4)
        assert os.waitpid(pid, 0)[1] == 0
