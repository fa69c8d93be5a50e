"""Hub.run(), Hub.stop() and Hub.close() over connections with callbacks; threads and forks."""

from __future__ import annotations

from typing import Any

import pytest
from connections import Ends, drain_now
from processes import lines_of
from recorders import Recorder, turn

import pycoronet
from pycoronet import Protocol, get_hub, spawn

HOST = "127.0.0.1"
pytestmark = pytest.mark.usefixtures("virtual_hub")


# --- Running and stopping ------------------------------------------------------------------------


def test_run_returns_at_once_without_anything() -> None:
    get_hub().run()


def test_run_goes_on_while_a_connection_has_callbacks(ends: Ends) -> None:
    conn, peer = ends.pair()
    recorder = Recorder(data=lambda conn: conn.set_callbacks(None))
    conn.set_callbacks(recorder)
    get_hub().call_later(5, peer.sendall, b"x")
    start = get_hub().time
    get_hub().run()
    assert recorder.log == ["data"]
    assert get_hub().time - start >= 5


def test_run_goes_on_until_tasks_and_callbacks_have_ended(ends: Ends) -> None:
    conn, peer = ends.pair()
    conn.set_callbacks(Recorder())
    ended = []

    def task() -> None:
        pycoronet.sleep(3)
        peer.close()
        pycoronet.sleep(3)
        ended.append("task")

    spawn(task)
    get_hub().run()
    assert ended == ["task"]
    assert conn.closed


def test_stop_says_goodbye_and_sends_it(listener: Any, dial: Any) -> None:
    recorder = Recorder(shutdown=lambda conn: conn.write(b"goodbye"))
    listener.set_callbacks(recorder)
    peers = [dial(), dial()]
    hub = get_hub()
    hub.call_later(1, hub.stop)
    hub.run()
    assert recorder.log == ["open"] * 2 + ["shutdown"] * 2 + ["close"] * 2 or recorder.log == [
        "open",
        "open",
        "shutdown",
        "close",
        "shutdown",
        "close",
    ]
    assert [peer.recv(100) for peer in peers] == [b"goodbye"] * 2
    assert [peer.recv(100) for peer in peers] == [b""] * 2
    assert listener.closed
    hub.run()  # nothing is left of the stop


def test_stop_before_run_ends_that_run(ends: Ends) -> None:
    conn, _ = ends.pair()
    recorder = Recorder()
    conn.set_callbacks(recorder)
    task = spawn(pycoronet.sleep, 1000)
    hub = get_hub()
    hub.stop()
    hub.run()
    assert recorder.log == ["shutdown", "close"]
    assert not task.done
    task.cancel()
    hub.run()


def test_stop_from_a_task_and_from_another_thread(ends: Ends) -> None:
    hub = get_hub()
    for stop in (
        lambda: spawn(hub.stop),
        lambda: pycoronet.to_thread(hub.call_soon_threadsafe, hub.stop),
    ):
        conn, _ = ends.pair()
        recorder = Recorder()
        conn.set_callbacks(recorder)
        spawn(stop)
        hub.run()
        assert recorder.log == ["shutdown", "close"]
    with pytest.raises(RuntimeError, match="another thread"):
        pycoronet.to_thread(hub.stop)


def test_a_second_stop_does_not_wait_for_slow_peers(ends: Ends) -> None:
    conn, peer = ends.pair()
    recorder = Recorder(shutdown=lambda conn: conn.write(b"x" * 10_000_000))
    conn.set_callbacks(recorder)
    hub = get_hub()
    start = hub.time
    hub.stop()
    hub.call_later(2, hub.stop)
    hub.run()
    assert recorder.log == ["shutdown", "close"]
    assert 2 <= hub.time - start < 3
    assert drain_now(peer) != b""


def test_stop_ends_what_lingers_for_too_long(ends: Ends) -> None:
    conn, _ = ends.pair()
    recorder = Recorder(shutdown=lambda conn: conn.write(b"x" * 10_000_000))
    conn.set_callbacks(recorder)
    hub = get_hub()
    start = hub.time
    hub.stop()
    hub.run()
    assert recorder.log == ["shutdown", "close"]
    assert 30 <= hub.time - start < 31


def test_closing_the_hub_tells_even_those_that_linger(ends: Ends) -> None:
    conn, _ = ends.pair()
    slow = Recorder(shutdown=lambda conn: conn.write(b"x" * 10_000_000))
    conn.set_callbacks(slow)
    get_hub().close()
    assert slow.log == ["shutdown", "close"]


def test_a_closing_hub_takes_no_new_callbacks(ends: Ends, reports: list[Any]) -> None:
    conn, _ = ends.pair()
    other, _ = ends.pair()

    def start_again(_: object) -> None:
        other.set_callbacks(Recorder())

    recorder = Recorder(close=start_again)
    conn.set_callbacks(recorder)
    get_hub().close()
    assert recorder.log == ["shutdown", "close"]
    (error,) = reports
    assert "closing" in str(error)


def test_stop_of_a_closed_hub() -> None:
    hub = get_hub()
    hub.close()
    for call in (hub.stop, lambda: hub.call_soon(print)):
        with pytest.raises(RuntimeError, match="closed"):
            call()


def test_callbacks_run_when_driven_by_hand(ends: Ends) -> None:
    conn, peer = ends.pair()
    echo = Recorder(data=lambda conn: conn.write(echo.received))
    conn.set_callbacks(echo)
    hub = get_hub()
    hub.dispatch()
    peer.sendall(b"by hand")
    assert hub.wait(1) == 1
    assert echo.log == []
    assert hub.dispatch() == 1
    assert echo.log == ["data"]
    hub.wait(0)  # sends what was written
    assert peer.recv(100) == b"by hand"
    peer.close()
    hub.wait(1)
    hub.dispatch()
    assert echo.log == ["data", "eof", "close"]


def test_dispatch_keeps_to_its_budget_and_ends(ends: Ends) -> None:
    hub = get_hub()
    pairs = [ends.pair() for _ in range(4)]
    recorder = Recorder()
    for conn, peer in pairs:
        conn.set_callbacks(recorder)
        peer.sendall(b"x")
    assert hub.wait(1) == 4
    assert hub.dispatch(1) == 1
    assert recorder.log == ["data"]
    assert hub.dispatch(2) == 2
    assert recorder.log == ["data"] * 3


def test_dispatch_ends_though_a_stream_goes_on(ends: Ends) -> None:
    hub = get_hub()
    conn, peer = ends.pair()
    stream = Recorder(data=lambda _: peer.send(b"x") if len(stream.log) < 100 else None)
    conn.set_callbacks(stream)
    peer.sendall(b"x")
    assert hub.wait(1) == 1
    assert hub.dispatch() == 1
    assert 0 < len(stream.log) < 10
    before = len(stream.log)
    hub.dispatch()
    assert before < len(stream.log) < 20
    turn(30)
    assert len(stream.log) == 100


def test_callbacks_of_a_thread_that_ends_are_forgotten(ends: Ends) -> None:
    program = """
class Quiet(Protocol):
    def on_close(self, conn):
        say("closed")
def work():
    import socket, warnings
    warnings.simplefilter("ignore", ResourceWarning)
    left, right = socket.socketpair()
    sk_conn(left).set_callbacks(Quiet())
    right.close()
    other, peer = socket.socketpair()
    conn = sk_conn(other)
    conn.set_callbacks(Quiet())
    conn.close()
    peer.close()
thread = threading.Thread(target=work)
thread.start()
thread.join()
say("done")
"""
    assert lines_of(program) == ["done"]


# --- Forks ---------------------------------------------------------------------------------------

FORK = """
import socket, warnings
warnings.filterwarnings("ignore", "This process .* is multi-threaded")
parent = os.getpid()
def where():
    return "parent" if os.getpid() == parent else "child"
class Told(Protocol):
    def on_data(self, conn):
        say("data", where())
        conn.take(100)
    def on_shutdown(self, conn):
        say("shutdown", where())
    def on_close(self, conn):
        say("close", where())
left, right = socket.socketpair()
conn = sk_conn(left)
conn.set_callbacks(Told())
hub = get_hub()
hub.call_later(0.001, say, "timer")
def status_of(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
"""


def test_in_a_forked_child_callbacks_are_the_parents() -> None:
    program = (
        FORK
        + """
closing, other = socket.socketpair()
closing = sk_conn(closing)
closing.set_callbacks(Told())
closing.close()
pid = os.fork()
if pid == 0:
    right.sendall(b"x")
    sleep(0.01)
    assert conn.callbacks is None
    hub.run()
    assert conn.recv(1) == b"x"
    right.sendall(b"for the parent")
    conn.set_callbacks(None)
    sys.exit(5)
assert status_of(pid) == 5
sleep(0.05)
right.close()
hub.run()
other.close()
"""
    )
    assert lines_of(program) == [
        "close parent",
        "data parent",
        "timer",
        "close parent",
    ] or lines_of(program) == ["close parent", "timer", "data parent", "close parent"]


def test_a_fork_in_a_callback() -> None:
    program = (
        FORK
        + """
class Forks(Told):
    def on_data(self, conn):
        conn.take(100)
        self.pid = os.fork()
        say("forked", where()) if self.pid else os.write(2, b"")
        if not self.pid:
            conn.close()
forks = Forks()
conn.set_callbacks(forks)
right.sendall(b"x")
def main():
    if where() == "child":
        os._exit(3)
    say("status", status_of(forks.pid))
    right.close()
hub.call_later(0.01, main)
sleep(0.02)
if where() == "child":
    os._exit(3)
hub.run()
"""
    )
    assert lines_of(program) == ["forked parent", "timer", "status 3", "close parent"]


def test_protocol_does_nothing_but_close_at_the_end(ends: Ends) -> None:
    conn, peer = ends.pair()
    plain = Protocol()
    conn.settimeout(1)
    conn.set_callbacks(plain)
    peer.sendall(b"x")
    pycoronet.sleep(5)
    assert conn.take(10) == b"x"
    peer.close()
    turn()
    assert conn.closed
    for name in ("on_open", "on_ready", "on_shutdown", "on_close"):
        assert getattr(plain, name)(conn) is None
    assert plain.on_error(conn, ValueError(), pycoronet.READ) is None
