"""co_create, co_call, co_resume, co_current, co_delete: pcl(3)'s meaning over tasks."""

from __future__ import annotations

import os
import select
import socket
import threading
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
from conet_case import run_until, settle, start, turn
from connections import Ends, hold_input

import pycoronet
from pycoronet import _coronet
from pycoronet.conet import (
    co_call,
    co_create,
    co_current,
    co_delete,
    co_resume,
    conet_cleanup,
    conet_events_dispatch,
    conet_events_wait,
    conet_init,
    conet_mod_conn,
    conet_new_conn,
    conet_readsome,
)

Log = list[Any]


@pytest.fixture(autouse=True)
def hub(virtual_hub: pycoronet.Hub, ends: Ends) -> Iterator[pycoronet.Hub]:
    """Set conet up over a hub in virtual time."""
    conet_init()
    yield virtual_hub
    conet_cleanup()


# Entering and giving control back.


def test_co_create_runs_nothing() -> None:
    log: Log = []
    coroutine = co_create(log.append, 1)
    pycoronet.sleep(0)
    assert log == []
    assert not coroutine.done
    co_call(coroutine)
    assert log == [1]
    assert coroutine.done


def test_co_call_and_co_resume_take_turns() -> None:
    log: Log = []

    def count() -> None:
        for number in range(3):
            log.append(number)
            co_resume()

    coroutine = co_create(count)
    for number in range(3):
        co_call(coroutine)
        assert log == list(range(number + 1))
        log.append("main")
        log.pop()
    co_call(coroutine)
    assert coroutine.done


def test_co_call_returns_at_the_first_wait_before_any_hand_off(ends: Ends) -> None:
    conn, _ = ends.pair()
    log: Log = []
    pycoronet.spawn(log.append, "another that is ready")
    for wait in (conn.readln, lambda: pycoronet.sleep(1), lambda: pycoronet.sleep(0)):

        def enter(wait: Any = wait) -> None:
            log.append("entered")
            wait()
            log.append("never here")

        coroutine = co_create(enter)
        co_call(coroutine)
        assert log == ["entered"]
        log.clear()
        co_delete(coroutine)
    pycoronet.sleep(0)
    assert "another that is ready" in log


def test_co_call_within_a_first_run_still_returns_to_the_outer_caller() -> None:
    log: Log = []

    def inner() -> None:
        log.append("inner")
        co_resume()
        log.append("inner again")

    def outer() -> None:
        log.append("outer")
        coroutine = co_create(inner)
        co_call(coroutine)
        log.append("back in outer")
        co_resume()
        co_call(coroutine)
        log.append("end of outer")

    coroutine = co_create(outer)
    co_call(coroutine)
    assert log == ["outer", "inner", "back in outer"]
    co_call(coroutine)
    assert log[3:] == ["inner again", "end of outer"]


def test_co_call_nests_deeply() -> None:
    log: Log = []

    def enter(depth: int) -> None:
        if depth > 0:
            co_call(co_create(enter, depth - 1))
        log.append(depth)

    co_call(co_create(enter, 50))
    assert log == list(range(51))


def test_co_call_gives_control_to_whoever_called_last() -> None:
    log: Log = []

    def serve() -> None:
        while True:
            log.append("served")
            co_resume()

    server = co_create(serve)

    def use(name: str) -> None:
        for _ in range(2):
            co_call(server)
            log.append(name)
            co_resume()

    users = [co_create(use, name) for name in "ab"]
    for _ in range(2):
        for user in users:
            co_call(user)
    assert log == ["served", "a", "served", "b"] * 2
    for user in users:
        co_call(user)
    co_delete(server)


def test_co_call_of_a_coroutine_woken_elsewhere_hands_off_like_any_other(ends: Ends) -> None:
    conn, peer = ends.pair()
    log: Log = []

    def read() -> None:
        log.append(conn.readln())
        log.append(conn.readln())

    start(read)
    settle()
    peer.send(b"1\n")
    assert turn() == 1
    assert log == [b"1\n"]  # and control is here, in the dispatcher


@pytest.mark.parametrize("evdmax", [0, 1])
def test_co_call_takes_turns_within_a_dispatch(evdmax: int, ends: Ends) -> None:
    conn, peer = ends.pair()
    log: Log = []

    def count() -> None:
        for number in range(3):
            log.append(number)
            co_resume()

    def read() -> None:
        for _ in conn:
            counter = co_create(count)
            for name in "abcd":
                co_call(counter)
                log.append(name)

    start(read)
    settle()
    peer.send(b"\n")
    assert turn(evdmax) == 1
    assert log == [0, "a", 1, "b", 2, "c", "d"]


def test_co_call_passes_failures_to_the_hook_and_returns(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reports: Log = []
    monkeypatch.setattr("sys.unraisablehook", lambda report: reports.append(report.exc_value))

    def fail() -> None:
        raise LookupError("failed")

    coroutine = start(fail)
    assert coroutine.done
    assert [str(error) for error in reports] == ["failed"]
    with pytest.raises(LookupError, match="failed"):
        coroutine.get()


def test_co_call_cancelled_caller_lets_the_callee_go_on(ends: Ends) -> None:
    log: Log = []

    def callee() -> None:
        caller.cancel()
        log.append("callee")
        co_resume()
        log.append("called again")

    inner = co_create(callee)

    def call() -> None:
        try:
            co_call(inner)
        finally:
            log.append("caller ends")

    caller = co_create(call)
    co_call(caller)
    run_until(lambda: caller.done)
    assert sorted(log) == ["callee", "caller ends"]
    co_call(inner)
    assert log[-1] == "called again"


# What is refused.


def test_co_call_of_an_ended_coroutine_says_so() -> None:
    coroutine = start(lambda: None)
    with pytest.raises(RuntimeError, match=r"has ended"):
        co_call(coroutine)


def test_co_call_of_a_running_coroutine_says_so(ends: Ends) -> None:
    conn, _ = ends.pair()
    errors: Log = []

    def call_itself() -> None:
        try:
            co_call(co_current())
        except RuntimeError as error:
            errors.append(str(error))

    start(call_itself)
    assert len(errors) == 1
    assert "co_resume" in errors[0]
    with pytest.raises(RuntimeError, match="co_resume"):
        co_call(co_current())
    waiting = start(conn.readln)
    with pytest.raises(RuntimeError, match="co_resume"):
        co_call(waiting)


@pytest.mark.parametrize("function", [co_call, co_delete])
@pytest.mark.parametrize("thing", [None, 1, len])
def test_co_functions_refuse_what_is_no_coroutine(function: Any, thing: Any) -> None:
    with pytest.raises(TypeError, match="coroutine was expected"):
        function(thing)


def test_co_create_refuses_what_is_not_callable() -> None:
    with pytest.raises(TypeError, match="callable"):
        co_create(1)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="function"):
        co_create()  # type: ignore[call-arg]


def test_co_resume_in_the_main_program_is_refused() -> None:
    with pytest.raises(RuntimeError, match="main program"):
        co_resume()


def test_co_call_from_another_thread_is_refused() -> None:
    coroutine = co_create(lambda: None)
    errors: Log = []

    def call() -> None:
        for function in (co_call, co_delete):
            try:
                function(coroutine)
            except RuntimeError as error:
                errors.append(str(error))

    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    assert len(errors) == 2
    assert all("thread" in error for error in errors)


def test_co_call_after_the_hub_was_closed_is_refused() -> None:
    never_entered = co_create(lambda: None)
    conet_cleanup()
    with pytest.raises(RuntimeError, match="is closed"):
        co_call(never_entered)
    co_delete(never_entered)
    assert never_entered.done


# Handles.


def test_co_current_is_the_handle_everywhere() -> None:
    seen: Log = []
    coroutine = co_create(lambda: seen.append(co_current()))
    main = co_current()
    assert main is not None
    assert "main program" in repr(main)
    co_call(coroutine)
    assert seen == [coroutine]
    assert co_current() is main


def test_coroutine_never_entered_holds_nobody_up(hub: pycoronet.Hub) -> None:
    kept = co_create(lambda: None)
    assert hub.task_count == 0
    hub.run()  # there is nothing to run until the end
    hub.close()
    assert not kept.done


def test_coroutine_never_entered_may_be_dropped() -> None:
    class Witness:
        pass

    witness = Witness()
    reference = weakref.ref(witness)
    coroutine = co_create(id, witness)
    del witness
    assert reference() is not None
    del coroutine
    assert reference() is None


# Deleting.


def test_co_delete_of_one_never_entered_ends_it_at_once() -> None:
    log: Log = []
    coroutine = co_create(log.append, "run")
    co_delete(coroutine)
    assert coroutine.done
    assert pycoronet.get_hub().task_count == 0
    with pytest.raises(RuntimeError, match="has ended"):
        co_call(coroutine)
    pycoronet.sleep(0)
    assert log == []


def test_co_delete_of_a_suspended_one_runs_its_finally() -> None:
    log: Log = []

    def wait() -> None:
        try:
            co_resume()
        finally:
            log.append("finally")

    coroutine = start(wait)
    co_delete(coroutine)
    assert log == []
    pycoronet.sleep(0)
    assert log == ["finally"]
    assert coroutine.done
    with pytest.raises(pycoronet.Cancelled):
        coroutine.get()


def test_co_delete_of_a_waiting_one_takes_effect_in_a_dispatch(ends: Ends) -> None:
    conn, _ = ends.pair()
    coroutine = start(conn.readln)
    co_delete(coroutine)
    assert conet_events_dispatch(1) == 0
    assert coroutine.done


def test_co_delete_of_an_ended_one_does_nothing() -> None:
    coroutine = start(lambda: 42)
    co_delete(coroutine)
    assert coroutine.get() == 42


def test_co_delete_of_oneself_is_refused() -> None:
    errors: Log = []

    def delete() -> None:
        try:
            co_delete(co_current())
        except RuntimeError as error:
            errors.append(str(error))

    start(delete)
    assert errors == ["a coroutine cannot delete itself"]
    with pytest.raises(RuntimeError, match="itself"):
        co_delete(co_current())


# Readiness by conet_mod_conn.


class Bound:
    """A coroutine that notes the readiness for which co_resume() returned."""

    def __init__(self, ends: Ends, events: int) -> None:
        left, self.peer = ends.sockets()
        self.log: Log = []
        self.coroutine = start(self._run, left, events)

    def _run(self, sock: socket.socket, events: int) -> None:
        self.conn = conet_new_conn(sock, co_current())
        conet_mod_conn(self.conn, events)
        while True:
            co_resume()
            self.log.append(self.conn.revents)


def test_co_resume_returns_when_what_mod_asked_for_is_ready(ends: Ends) -> None:
    bound = Bound(ends, select.POLLIN)
    settle()
    assert bound.log == []
    bound.peer.send(b"x")
    assert turn() == 1  # it wakes a coroutine, so it counts
    assert len(bound.log) == 1
    assert bound.log[0] & select.POLLIN
    assert turn() == 0
    bound.peer.send(b"y")  # a new edge
    assert turn() == 1


def test_co_resume_takes_write_readiness_that_is_there_already(ends: Ends) -> None:
    bound = Bound(ends, select.POLLOUT)
    assert turn() == 1
    assert len(bound.log) == 1
    assert bound.log[0] & select.POLLOUT


def test_co_resume_without_interest_waits_for_a_call(ends: Ends) -> None:
    bound = Bound(ends, 0)
    bound.peer.send(b"x")
    settle()
    assert bound.log == []
    co_call(bound.coroutine)
    assert len(bound.log) == 1


def test_co_resume_hears_of_a_hang_up_and_of_a_close(ends: Ends) -> None:
    bound = Bound(ends, select.POLLOUT)
    settle()
    bound.log.clear()
    bound.peer.close()
    settle()
    assert bound.log[-1] & select.POLLHUP
    count = len(bound.log)
    bound.conn.close()
    turn()
    assert len(bound.log) == count + 1


def test_mod_conn_counts_what_is_ready_already_at_once(ends: Ends) -> None:
    left, peer = ends.sockets()
    log: Log = []

    def run() -> None:
        conn = ends.keep(conet_new_conn(left, co_current()))
        conet_readsome(conn, 1)  # registers it
        log.append("read")
        conet_mod_conn(conn, select.POLLIN)
        co_resume()
        log.append("resumed")
        os.read(conn.sfd, 100)  # behind the connection's back, as a port may
        conet_mod_conn(conn, select.POLLIN)
        co_resume()
        log.append("too early")

    start(run)
    settle()
    peer.send(b"xyz")
    assert turn() == 1
    assert log == ["read", "resumed"]
    settle()
    assert log == ["read", "resumed"]


def test_mod_conn_counts_bytes_in_the_buffer(ends: Ends) -> None:
    left, peer = ends.sockets()
    log: Log = []

    def run() -> None:
        conn = ends.keep(conet_new_conn(left, co_current()))
        hold_input(conn, peer, b"held")
        conet_mod_conn(conn, select.POLLIN)
        co_resume()
        log.append(conn.readsome(10))

    coroutine = start(run)
    settle()
    assert log == [b"held"]
    assert coroutine.done


def test_readiness_that_comes_before_co_resume_is_kept(ends: Ends) -> None:
    left, peer = ends.sockets()
    log: Log = []

    def run() -> None:
        conn = ends.keep(conet_new_conn(left, co_current()))
        conet_mod_conn(conn, select.POLLIN)
        pycoronet.sleep(5)
        co_resume()
        log.append("resumed")

    start(run)
    settle()
    peer.send(b"x")
    settle()  # the only edge is handed out while it sleeps
    run_until(lambda: log)


def test_readiness_of_a_listener_resumes_without_a_call_of_mod_each_time(ends: Ends) -> None:
    sock = socket.create_server(("127.0.0.1", 0))
    accepted: Log = []

    def run() -> None:
        conn = ends.keep(conet_new_conn(sock, co_current()))
        conet_mod_conn(conn, select.POLLIN)
        with socket.socket(fileno=os.dup(conn.sfd)) as listener:
            while True:
                co_resume()
                try:
                    while True:
                        accepted.append(ends.keep(listener.accept()[0]))
                except BlockingIOError:
                    pass

    address = sock.getsockname()
    start(run)
    settle()
    for count in range(1, 4):
        ends.keep(socket.create_connection(address))
        run_until(lambda count=count: len(accepted) == count)
    # No event is left over that comes again and again.
    settle()
    assert conet_events_wait(0) == 0


def test_co_resume_that_never_waits_lets_others_run(ends: Ends) -> None:
    left, _ = ends.sockets()
    log: Log = []
    rounds = 0

    def run() -> None:
        nonlocal rounds
        conn = ends.keep(conet_new_conn(left, co_current()))
        conet_mod_conn(conn, select.POLLOUT)
        co_resume()
        pycoronet.spawn(log.append, "run")
        while not log and rounds < 5000:
            conet_mod_conn(conn, select.POLLOUT)  # it is ready: co_resume() need not wait
            co_resume()
            rounds += 1

    coroutine = start(run)
    run_until(lambda: coroutine.done)
    assert log == ["run"]
    assert (0 if _coronet.HARD_MODE else 1) < rounds < 5000


def test_bound_coroutine_is_not_resumed_for_what_a_verb_took(ends: Ends) -> None:
    left, peer = ends.sockets()
    log: Log = []

    def run() -> None:
        conn = ends.keep(conet_new_conn(left, co_current()))
        conet_mod_conn(conn, select.POLLIN)
        log.append(conet_readsome(conn, 10))
        co_resume()
        log.append("resumed")

    start(run)
    settle()
    peer.send(b"x")
    assert turn() == 1
    settle()
    assert log == [b"x"]
