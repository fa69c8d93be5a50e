"""once(): a function that is called when a descriptor is ready, or not in time."""

from __future__ import annotations

import gc
import os
import socket
import tempfile
import weakref
from typing import Any

import pytest
from connections import Ends
from processes import lines_of
from recorders import Recorder

import pycoronet
from pycoronet import (
    HANGUP,
    HIGH,
    READ,
    WRITE,
    BusyError,
    OnceHandle,
    current,
    get_hub,
    notify_closing,
    once,
    sleep,
    spawn,
    wait_readable,
    wait_writable,
)

pytestmark = pytest.mark.usefixtures("virtual_hub")


def test_function_is_called_once_when_the_descriptor_is_ready(pipe: tuple[int, int]) -> None:
    calls: list[Any] = []

    def function(ready: int) -> None:
        assert current() is None
        assert not handle.active
        calls.append(ready)

    handle = once(pipe[0], READ, function)
    assert isinstance(handle, OnceHandle)
    assert handle.active
    assert "function" in repr(handle)
    sleep(1)
    assert calls == []
    os.write(pipe[1], b"x")
    sleep(1)
    assert len(calls) == 1
    assert calls[0] & READ
    os.write(pipe[1], b"y")
    sleep(1)
    assert len(calls) == 1
    assert "over" in repr(handle)


def test_ready_is_zero_at_the_time_out(pipe: tuple[int, int]) -> None:
    hub = get_hub()
    started = hub.time
    calls: list[Any] = []
    once(pipe[0], READ, lambda ready: calls.append((ready, hub.time - started)), timeout=2.5)
    hub.run()
    assert calls == [(0, pytest.approx(2.5, abs=0.002))]
    os.write(pipe[1], b"x")
    sleep(1)
    assert len(calls) == 1


def test_what_comes_in_time_is_no_time_out(pipe: tuple[int, int]) -> None:
    calls: list[Any] = []
    once(pipe[0], READ, calls.append, timeout=1)
    os.write(pipe[1], b"x")
    sleep(5)
    assert len(calls) == 1
    assert calls[0] & READ


def test_no_time_at_all_still_looks_first(pipe: tuple[int, int]) -> None:
    calls: list[Any] = []
    once(pipe[0], READ, calls.append, timeout=0)
    sleep(1)
    os.write(pipe[1], b"x")
    once(pipe[0], READ, calls.append, timeout=0)
    sleep(1)
    assert calls[0] == 0
    assert calls[1] & READ


def test_end_of_the_stream_is_told(pipe: tuple[int, int]) -> None:
    calls: list[Any] = []
    once(pipe[0], READ, calls.append)
    os.close(pipe[1])
    sleep(1)
    assert len(calls) == 1
    assert calls[0] & HANGUP


def test_reading_and_writing_of_one_descriptor(ends: Ends) -> None:
    left, right = ends.sockets()
    calls: list[Any] = []
    once(left, READ, lambda ready: calls.append(("read", ready & (READ | WRITE))))
    once(left, WRITE, lambda ready: calls.append(("write", ready & (READ | WRITE))))
    sleep(1)
    assert calls == [("write", WRITE)]
    right.send(b"x")
    sleep(1)
    assert calls == [("write", WRITE), ("read", READ)]
    left.close()


def test_one_beside_a_coroutine_at_the_same_descriptor(ends: Ends) -> None:
    left, right = ends.sockets()
    calls: list[Any] = []
    reader = spawn(wait_readable, left)
    sleep(0)
    once(left, WRITE, calls.append)
    with pytest.raises(BusyError, match="Task"):
        once(left, READ, print)
    sleep(1)
    assert len(calls) == 1
    assert not reader.done
    once(left, WRITE, calls.append)
    with pytest.raises(BusyError, match="once"):
        wait_writable(left)
    with pytest.raises(BusyError, match="once"):
        once(left, WRITE, print)
    right.send(b"x")
    assert reader.get() & READ
    sleep(1)
    assert len(calls) == 2
    left.close()


def test_again_from_inside_the_function(pipe: tuple[int, int]) -> None:
    received = b""

    def take(ready: int) -> None:
        nonlocal received
        received += os.read(pipe[0], 1)
        if len(received) < 3:
            once(pipe[0], READ, take)

    once(pipe[0], READ, take)
    os.write(pipe[1], b"abc")
    get_hub().run()
    assert received == b"abc"


def test_cancel_before_the_event(pipe: tuple[int, int]) -> None:
    calls: list[Any] = []
    handle = once(pipe[0], READ, calls.append, timeout=1)
    handle.cancel()
    handle.cancel()
    os.write(pipe[1], b"x")
    sleep(5)
    assert calls == []


def test_cancel_of_one_that_is_due(ends: Ends, pipe: tuple[int, int]) -> None:
    calls: list[Any] = []
    conn, peer = ends.pair()
    conn.priority = HIGH
    # Both have events of one poll; this one is called first.
    conn.set_callbacks(Recorder(data=lambda _: handle.cancel()))
    sleep(1)
    handle = once(pipe[0], READ, calls.append)
    sleep(1)
    peer.send(b"x")
    os.write(pipe[1], b"x")
    sleep(1)
    assert calls == []
    assert not handle.active


def test_run_goes_on_until_it_was_called_and_is_no_deadlock(pipe: tuple[int, int]) -> None:
    calls: list[Any] = []
    once(pipe[0], READ, calls.append)
    os.write(pipe[1], b"x")
    get_hub().run()
    assert len(calls) == 1
    # A coroutine that only the function wakes.
    lot = pycoronet._coronet.ParkingLot()
    once(pipe[0], READ, lambda _: lot.unpark())
    assert lot.park("once")


def test_one_that_is_over_is_nothing_to_wait_for(pipe: tuple[int, int]) -> None:
    once(pipe[0], READ, print).cancel()
    once(pipe[0], READ, lambda ready: None, timeout=1)
    with pytest.raises(pycoronet.DeadlockError):
        sleep(None)


def test_what_somebody_saw_before_is_no_readiness(ends: Ends) -> None:
    left, _ = ends.sockets()
    calls: list[Any] = []
    reader = spawn(wait_readable, left)
    once(left, WRITE, calls.append)
    sleep(1)
    left.setblocking(False)
    with pytest.raises(BlockingIOError):
        while True:
            left.send(bytes(65536))
    once(left, WRITE, calls.append, timeout=1)
    sleep(5)
    assert calls == [WRITE, 0]
    reader.cancel()
    sleep(0)
    left.close()


def test_closed_descriptor_is_told_by_notify_closing(pipe: tuple[int, int]) -> None:
    calls: list[Any] = []
    once(pipe[0], READ, calls.append)
    notify_closing(pipe[0])
    os.close(pipe[0])
    get_hub().run()
    assert calls == [HANGUP]


def test_number_closed_and_given_out_anew(pipe: tuple[int, int]) -> None:
    calls: list[Any] = []
    read_end, write_end = os.pipe()
    once(read_end, READ, lambda ready: calls.append(("old", ready)))
    os.close(read_end)
    os.dup2(pipe[0], read_end)
    once(read_end, READ, lambda ready: calls.append(("new", ready & READ)))
    os.write(pipe[1], b"x")
    get_hub().run()
    assert calls == [("old", HANGUP), ("new", READ)]
    os.close(read_end)
    os.close(write_end)


def test_what_the_function_raises_is_reported(pipe: tuple[int, int], reports: list[Any]) -> None:
    def fail(_: int) -> None:
        raise ZeroDivisionError

    once(pipe[1], WRITE, fail)
    get_hub().run()
    assert [type(each) for each in reports] == [ZeroDivisionError]


def test_function_is_let_go_of(pipe: tuple[int, int]) -> None:
    class Function:
        def __call__(self, ready: int) -> None:
            pass

    function = Function()
    gone = weakref.ref(function)
    handle = once(pipe[1], WRITE, function)
    del function
    assert gone() is not None
    sleep(1)
    gc.collect()
    assert gone() is None
    assert not handle.active


def test_hub_that_closes_ends_it(pipe: tuple[int, int]) -> None:
    calls: list[Any] = []
    handle = once(pipe[0], READ, calls.append)
    get_hub().close()
    assert not handle.active
    handle.cancel()
    os.write(pipe[1], b"x")
    sleep(0.001)
    assert calls == []


def test_driven_by_hand_it_counts_as_dispatched(pipe: tuple[int, int]) -> None:
    hub = get_hub()
    calls: list[Any] = []
    once(pipe[1], WRITE, calls.append)
    assert hub.wait() == 1
    assert hub.dispatch() == 1
    assert len(calls) == 1


def test_forked_child_has_none_and_may_begin_anew() -> None:
    program = """
    import warnings
    warnings.simplefilter("ignore")
    read_end, write_end = os.pipe()
    handle = once(read_end, READ, lambda ready: say("called", where()))
    parent = os.getpid()
    def where():
        return "in the parent" if os.getpid() == parent else "in the child"
    if os.fork() == 0:
        assert not handle.active
        handle.cancel()
        once(read_end, READ, lambda ready: say("anew", where()))
        os.write(write_end, b"x")
        get_hub().run()
        os._exit(0)
    os.wait()
    get_hub().run()
    """
    assert lines_of(program) == ["anew in the child", "called in the parent"]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ((0, READ), TypeError),
        ((0, READ, 5), TypeError),
        ((0, 0, print), ValueError),
        ((0, HANGUP, print), ValueError),
        ((0, "r", print), TypeError),
        ((-1, READ, print), ValueError),
        ((None, READ, print), TypeError),
        ((900, READ, print), OSError),
    ],
)
def test_wrong_arguments_are_refused(arguments: Any, error: type) -> None:
    with pytest.raises(error):
        once(*arguments)
    get_hub().run()


@pytest.mark.parametrize(("timeout", "error"), [(-1, ValueError), ("1", TypeError)])
def test_wrong_time_outs_are_refused(pipe: tuple[int, int], timeout: Any, error: type) -> None:
    with pytest.raises(error):
        once(pipe[0], READ, print, timeout=timeout)
    once(pipe[0], READ, print).cancel()


def test_regular_files_and_connections_are_refused(ends: Ends) -> None:
    with tempfile.TemporaryFile() as file:
        with pytest.raises(ValueError, match="regular file"):
            once(file, READ, print)
        with pytest.raises(ValueError, match="regular file"):
            once(file, READ, print)
    conn, _ = ends.pair()
    with pytest.raises(ValueError, match="sk_conn"):
        once(conn, READ, print)
    get_hub().run()


def test_closed_and_closing_hubs_take_none(pipe: tuple[int, int]) -> None:
    errors: list[str] = []

    def late() -> None:
        try:
            sleep(10)
        finally:
            with pytest.raises(RuntimeError, match="closing"):
                once(pipe[0], READ, print)
            errors.append("refused")

    spawn(late)
    sleep(0)
    get_hub().close()
    assert errors == ["refused"]


def test_listening_socket_that_somebody_else_serves() -> None:
    calls: list[Any] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        once(server, READ, lambda _: calls.append(server.accept()[0].close()))
        socket.create_connection(server.getsockname()).close()
        get_hub().run()
    assert calls == [None]
