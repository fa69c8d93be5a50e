"""pycoronet.testing.faults: what each operation meets, what is counted, what is refused."""

from __future__ import annotations

import errno
import socket
import threading
from pathlib import Path
from typing import Any

import pytest
from connections import Ends, unix_pair

import pycoronet
from pycoronet import get_hub, sleep, spawn
from pycoronet.testing import faults, pair, virtual_time

pytestmark = pytest.mark.usefixtures("virtual_hub")

CONTENT = bytes(range(256)) * 300


# --- Reading and writing --------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["unix", "tcp", "pipe"])
def test_a_plan_is_followed_and_no_byte_is_lost(ends: Ends, kind: str) -> None:
    conn, peer = ends.pair(kind)
    with faults({"read": ["EINTR", 1, "EAGAIN", None, "EAGAIN"]}) as injected:
        peer.sendall(b"abcdef")
        assert conn.recv(9) == b"a"
        assert conn.recv(9) == b"bcdef"
        spawn(peer.sendall, b"more")
        assert conn.read_exactly(4) == b"more"
    assert injected.counts == {"read": {"EINTR": 1, 1: 1, "EAGAIN": 2}}
    assert injected.total == 4


def test_a_storm_of_eagain_ends_and_takes_no_time(ends: Ends) -> None:
    left, right = (ends.conn(sock) for sock in ends.sockets())
    began = get_hub().time
    storm = ["EAGAIN"] * 1000
    with faults({"read": storm, "write": storm}) as injected:
        spawn(left.sendall, CONTENT)
        assert right.read_exactly(len(CONTENT)) == CONTENT
    assert injected.total == 2000
    assert get_hub().time == began


def test_who_waits_after_an_eagain_goes_on_when_the_block_is_over(ends: Ends) -> None:
    conn, peer = ends.pair()
    peer.sendall(b"x")
    with faults({"read": ["EAGAIN"] * 100}) as injected:
        reader = spawn(conn.recv, 1)
        for _ in range(3):
            sleep(0)
    assert 0 < injected.total < 100
    assert reader.get() == b"x"


def test_the_end_of_file_comes_after_eagain(ends: Ends) -> None:
    conn, peer = ends.pair()
    peer.sendall(b"x")
    peer.close()
    with faults({"read": ["EAGAIN", "EAGAIN", None, "EAGAIN"]}):
        assert conn.recv(9) == b"x"
        assert conn.recv(9) == b""


@pytest.mark.parametrize("kind", ["unix", "tcp"])
@pytest.mark.parametrize("name", ["ECONNRESET", "ETIMEDOUT"])
def test_a_reset_is_the_end_of_both_directions(ends: Ends, kind: str, name: str) -> None:
    conn, peer = ends.pair(kind)
    with faults({"read": [name]}):
        peer.sendall(b"unread")
        for _ in range(2):  # it never seems to be an end of file
            with pytest.raises(OSError, match="Errno") as raised:
                conn.recv(9)
            assert raised.value.errno == getattr(errno, name)
        with pytest.raises(BrokenPipeError):
            conn.write(b"x")
        assert peer.recv(9) == b""


def test_a_reset_wakes_who_reads_when_it_meets_the_writer(ends: Ends) -> None:
    left, right = (ends.conn(sock) for sock in ends.sockets())
    with faults({"write": ["EPIPE"]}):
        readers = [spawn(left.recv, 9), spawn(right.recv, 9)]
        sleep(0)
        with pytest.raises(BrokenPipeError):
            left.write(b"x")
        assert [reader.get() for reader in readers] == [b"", b""]


@pytest.mark.parametrize(("name", "error"), [("ENOBUFS", OSError), ("ENOMEM", MemoryError)])
def test_what_passes_is_told_once_and_the_connection_goes_on(
    ends: Ends, name: str, error: type[Exception]
) -> None:
    conn, peer = ends.pair()
    with faults({"write": [name], "read": [name]}):
        with pytest.raises(error):
            conn.write(b"lost")
        assert conn.error == getattr(errno, name)
        conn.write(b"goes")
        assert peer.recv(9) == b"goes"
        peer.sendall(b"back")
        with pytest.raises(error):
            conn.recv(9)
        assert conn.recv(9) == b"back"


def test_packets_are_whole_or_not_there(ends: Ends) -> None:
    left, right = (ends.conn(sock) for sock in ends.sockets("seqpacket"))
    with faults({"read": {"short": 0.5, "EAGAIN": 0.4}, "write": {1: 0.6}}, seed=1) as injected:
        for number in range(20):
            left.write(b"packet %d" % number)
            assert right.recv(99) == b"packet %d" % number
    assert set(injected.counts) == {"read"}
    assert set(injected.counts["read"]) == {"EAGAIN"}


def test_messages(ends: Ends) -> None:
    left, right = (ends.conn(sock) for sock in ends.sockets())
    with faults({"read": ["EINTR", "EAGAIN", 3], "write": ["EINTR", "EAGAIN", 4, 1]}) as injected:
        assert left.sendmsg([b"ab", b"cdef"]) == 4
        assert left.sendmsg([b"ef"]) == 1
        assert right.recvmsg(99)[0] == b"abc"
        assert right.recvmsg(99)[0] == b"de"
    assert injected.total == 7


@pytest.mark.parametrize("seed", range(3))
def test_a_file_is_sent_whole(ends: Ends, tmp_path: Path, seed: int) -> None:
    path = tmp_path / "file"
    path.write_bytes(CONTENT * 10)
    left, right = (ends.conn(sock) for sock in ends.sockets())
    rules: Any = {
        "sendfile": {"short": 0.4, "EINTR": 0.2, "EAGAIN": 0.2, "EOPNOTSUPP": 0.02},
        "file": {"short": 0.5, "EINTR": 0.2},
    }
    with faults(rules, seed=seed) as injected, path.open("rb") as file:
        sender = spawn(left.sendfile, file)
        assert right.read_exactly(len(CONTENT) * 10) == CONTENT * 10
        sender.join()
    assert injected.total > 0


# --- Accepting, connecting, opening ---------------------------------------------------------------


def test_connecting_goes_on_when_it_is_interrupted(ends: Ends, listener: Any) -> None:
    with faults({"connect": ["EINTR", "EINPROGRESS", "ECONNREFUSED"]}):
        for _ in range(2):
            conn = ends.keep(pycoronet.connect(listener.getsockname()))
            accepted, _ = listener.accept()
            conn.write(b"x")
            assert ends.keep(accepted).recv(1) == b"x"
        with pytest.raises(ConnectionRefusedError):
            pycoronet.connect(listener.getsockname())


def test_the_full_queue_of_a_unix_listener_is_told(ends: Ends, tmp_path: Path) -> None:
    listener = ends.keep(pycoronet.listen(str(tmp_path / "s")))
    with faults({"connect": ["EAGAIN"]}):
        with pytest.raises(BlockingIOError):
            pycoronet.connect(listener.getsockname())
        ends.keep(pycoronet.connect(listener.getsockname()))
        ends.keep(listener.accept()[0])


def test_accepting_again_after_eagain_and_eintr(ends: Ends, listener: Any, dial: Any) -> None:
    with faults({"accept": ["EINTR", "EAGAIN", "EAGAIN"]}) as injected:
        dial()
        ends.keep(listener.accept()[0])
    assert injected.total == 3


@pytest.mark.parametrize("name", ["ENOBUFS", "ENOMEM"])
@pytest.mark.parametrize("strategy", ["coroutine", "callback"])
def test_a_server_goes_on_after_a_shortage(serve: Any, call: Any, strategy: str, name: str) -> None:
    server = serve(greet, strategy)
    with faults({"accept": [name] * 3}) as injected:
        peer = call(server)
        peer.sendall(b"x")
        sleep(10)
        assert peer.recv(9) == b"hello"
    assert injected.total == 3


@pytest.mark.parametrize("name", ["EMFILE", "ENFILE"])
def test_a_server_without_descriptors_sends_away_who_comes(
    serve: Any, call: Any, name: str
) -> None:
    server = serve(greet, "coroutine")
    with faults({"accept": [name]}) as injected:
        peer = call(server)
        sleep(10)
        assert peer.recv(9) == b""
        peer = call(server)
        sleep(10)
        assert peer.recv(9) == b"hello"
    assert injected.total == 1


def greet(conn: Any, *_: Any) -> None:
    conn.take(9)
    conn.write(b"hello")
    conn.close()


def test_no_descriptor_for_a_new_socket(ends: Ends, listener: Any) -> None:
    with faults({"open": ["EMFILE"]}):
        with pytest.raises(OSError, match="Errno") as raised:
            pycoronet.connect(listener.getsockname())
        assert raised.value.errno == errno.EMFILE
        ends.keep(pycoronet.connect(listener.getsockname()))


# --- Which calls ----------------------------------------------------------------------------------


def test_only_what_was_named_is_concerned_until_it_is_closed(ends: Ends) -> None:
    left, right = (ends.conn(sock) for sock in ends.sockets())
    with faults({"read": {"ENOBUFS": 1.0}}, only=[right]):
        left.write(b"x")
        right.write(b"y")
        assert left.recv(1) == b"y"
        with pytest.raises(OSError, match="Errno"):
            right.recv(1)
        fd = right.fileno()
        right.close()
        other, peer = socket.socketpair()
        other, peer = ends.keep(other), ends.keep(peer)
        assert other.fileno() == fd
        peer.sendall(b"z")
        assert ends.conn(other).recv(1) == b"z"


def test_other_threads_meet_none(ends: Ends) -> None:
    conn, _ = ends.pair()
    seen: list[Any] = []

    def write_elsewhere() -> None:
        with pair() as (left, right):
            left.write(b"x")
            seen.append(right.recv(1))
        get_hub().close()

    with faults({"write": {"ENOBUFS": 1.0}}):
        thread = threading.Thread(target=write_elsewhere)
        thread.start()
        thread.join()
        with pytest.raises(OSError, match="Errno"):
            conn.write(b"x")
    assert seen == [b"x"]


def test_the_same_seed_gives_the_same_faults() -> None:
    def run(seed: int) -> Any:
        with virtual_time(), pair() as (left, right), faults(seed=seed) as injected:
            spawn(left.sendall, CONTENT)
            assert right.read_exactly(len(CONTENT)) == CONTENT
            return injected.counts

    assert run(5) == run(5)
    assert run(5) != run(6)


def test_a_set_begins_anew_each_time(ends: Ends) -> None:
    conn, peer = ends.pair()
    injected = faults({"write": ["ENOBUFS"]})
    assert injected.counts == {}
    for _ in range(2):
        with injected, pytest.raises(OSError, match="Errno"):
            conn.write(b"x")
        assert injected.counts == {"write": {"ENOBUFS": 1}}
    assert "ENOBUFS" in repr(injected)
    conn.write(b"y")
    assert peer.recv(9) == b"y"


def test_one_set_at_a_time(ends: Ends) -> None:
    with faults():
        with pytest.raises(RuntimeError, match="one set at a time"), faults():
            pass
        conn, _ = unix_pair(ends.keep)
        conn.write(b"x")
    with faults() as injected, pytest.raises(RuntimeError, match="one set at a time"):
        injected.__enter__()
    with pytest.raises(RuntimeError, match="not injected in this thread"):
        injected.__exit__(None, None, None)


@pytest.mark.parametrize(
    ("rules", "text"),
    [
        ({"reed": []}, "no operation 'reed'"),
        ({"read": ["EWHAT"]}, "no fault of this kind: 'EWHAT'"),
        ({"read": ["errorcode"]}, "no fault of this kind"),
        ({"read": [0]}, "1 byte or more, not 0"),
        ({"read": [True]}, "no fault of this kind: True"),
        ({"read": [1.5]}, "no fault of this kind: 1.5"),
        ({"read": "EINTR"}, "a sequence of steps"),
        ({"accept": ["short"]}, "cannot be cut short"),
        ({"accept": [3]}, "cannot be cut short"),
        ({"file": ["EAGAIN"]}, "no fault of this kind: 'EAGAIN'"),
        ({"open": {"EINTR": 0.5}}, "no fault of this kind: 'EINTR'"),
        ({"read": {"short": 1.5}}, "shares are from 0 to 1"),
        ({"read": {"short": -0.5}}, "shares are from 0 to 1"),
        ({"read": {"short": float("nan")}}, "shares are from 0 to 1"),
        ({"read": {"short": 0.6, "ENOMEM": 0.6}}, "shares are from 0 to 1"),
        ({"read": {"EINTR": 0.5, "EAGAIN": 0.5}}, "nothing would ever go on"),
        ({"read": list(range(1, 40))}, "at most 16 kinds"),
    ],
)
def test_what_cannot_happen_is_refused(rules: Any, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        faults(rules)


def test_wrong_descriptors_are_refused(ends: Ends) -> None:
    conn, _ = ends.pair()
    conn.close()
    with pytest.raises(OSError, match="Errno"):
        faults(only=[-1])
    with pytest.raises((OSError, ValueError)):
        faults(only=[conn])
    with pytest.raises(AttributeError):
        faults(only=["x"])


def test_the_core_refuses_what_it_cannot_use() -> None:
    core = pycoronet._coronet._Faults
    none = ((), None)
    for wrong in [(), ((none,) * 6, 0, None), ((none,) * 7, 0, 5), ((none,) * 7, "x", None)]:
        with pytest.raises((TypeError, ValueError)):
            core(*wrong)
    for rule in [None, (), ([], None), (((1,),), None), ((("x", 0, 0.0),), None)]:
        with pytest.raises((TypeError, ValueError)):
            core((rule,) + (none,) * 6, 0, None)
    with pytest.raises(TypeError):
        core((none,) * 7, 0, ["x"])
    made = core((none,) * 7, 0, None)
    with pytest.raises(RuntimeError, match="not injected"):
        made.stop()
    made.start()
    try:
        with pytest.raises(RuntimeError, match="already"):
            made.start()
    finally:
        made.stop()
