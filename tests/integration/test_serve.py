"""serve() and listen(): many clients, handlers that fail, shortages, and how it ends."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from connections import open_descriptors

import pycoronet
from pycoronet import connect, get_hub, listen, serve, sleep, spawn

HOST = "127.0.0.1"


def echo(conn: Any, _: object) -> None:
    for line in conn:
        conn.write(line)


def start(handler: Callable[..., object], address: Any = (HOST, 0)) -> tuple[Any, Any]:
    """Return the address of a server and its task."""
    listener = listen(address)
    return listener, spawn(serve, listener, handler)


def stop(listener: Any, server: Any) -> None:
    listener.close()
    assert server.get() is None
    get_hub().run()


def ask(address: Any, *lines: bytes) -> bytes:
    """Send lines to an echo server and return what comes until the end."""
    with connect(address) as conn:
        for line in lines:
            conn.write(line)
        conn.shutdown(socket.SHUT_WR)
        return bytes(conn.read(1 << 30))


# --- Serving ----------------------------------------------------------------------------------


def test_many_clients_at_once() -> None:
    listener, server = start(echo)
    address = listener.getsockname()
    results: dict[int, bytes] = {}

    def client(number: int) -> None:
        with connect(address) as conn:
            for turn in range(5):
                conn.printf(b"%d %d\n", number, turn)
                results[number] = results.get(number, b"") + conn.readln()

    clients = [spawn(client, number) for number in range(200)]
    for task in clients:
        task.get()
    assert results == {
        number: b"".join(b"%d %d\n" % (number, turn) for turn in range(5)) for number in range(200)
    }
    stop(listener, server)


def test_the_handler_gets_the_peers_address_and_its_connection_is_closed() -> None:
    seen: list[Any] = []

    def handler(conn: Any, address: Any) -> str:
        seen.append((conn, address))
        conn.write(b"hello")
        return "whatever"

    listener, server = start(handler)
    with connect(listener.getsockname()) as client:
        own = client.getsockname()
        assert client.read(100) == b"hello"
    ((conn, address),) = seen
    assert address == own
    assert conn.closed
    stop(listener, server)


def test_a_handler_may_close_its_connection_itself() -> None:
    def handler(conn: Any, _: object) -> None:
        conn.write(b"bye")
        conn.close()
        sleep(0)

    listener, server = start(handler)
    with connect(listener.getsockname()) as client:
        assert client.read(100) == b"bye"
    stop(listener, server)


def test_a_handler_that_raises_is_reported_once_and_the_others_go_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reports: list[Any] = []
    monkeypatch.setattr(
        sys,
        "unraisablehook",
        lambda report: reports.append(
            (report.exc_type, str(report.exc_value), repr(report.object))
        ),
    )

    def picky_handler(conn: Any, _: object) -> None:
        for line in conn:
            if line == b"bad\n":
                raise ValueError("a bad line")
            conn.write(line)

    listener, server = start(picky_handler)
    address = listener.getsockname()
    with connect(address) as steady:
        steady.write(b"one\n")
        assert steady.readln() == b"one\n"
        assert ask(address, b"good\n", b"bad\n") == b"good\n"
        assert reports == [(ValueError, "a bad line", reports[0][2])]
        assert "picky_handler" in reports[0][2]
        steady.write(b"two\n")
        assert steady.readln() == b"two\n"
        assert ask(address, b"later\n") == b"later\n"
    stop(listener, server)
    assert len(reports) == 1


def test_a_handler_that_is_not_callable() -> None:
    listener = listen((HOST, 0))
    with pytest.raises(TypeError, match="callable"):
        serve(listener, None)  # type: ignore[arg-type]
    assert not listener.closed
    listener.close()


def test_serving_an_address_and_being_cancelled(unused_port: int) -> None:
    server = spawn(serve, (HOST, unused_port), echo)
    sleep(0)
    assert ask((HOST, unused_port), b"x\n") == b"x\n"
    server.cancel()
    with pytest.raises(pycoronet.Cancelled):
        server.get()
    with pytest.raises(ConnectionRefusedError):
        connect((HOST, unused_port))
    get_hub().run()


@pytest.fixture
def unused_port() -> int:
    with socket.create_server((HOST, 0)) as sock:
        return int(sock.getsockname()[1])


def test_handlers_go_on_when_the_server_ends() -> None:
    listener, server = start(echo)
    client = connect(listener.getsockname())
    client.write(b"one\n")
    assert client.readln() == b"one\n"
    listener.close()
    assert server.get() is None
    client.write(b"two\n")
    assert client.readln() == b"two\n"
    client.close()
    get_hub().run()


def test_closing_the_listener_from_a_handler() -> None:
    listener = listen((HOST, 0))

    def handler(conn: Any, _: object) -> None:
        conn.write(conn.readln())
        listener.close()

    client = spawn(ask, listener.getsockname(), b"last one\n")
    serve(listener, handler)  # returns
    assert client.get() == b"last one\n"


def test_serving_in_the_main_program_ends_by_an_interrupt() -> None:
    code = """if 1:
        import os, signal
        import pycoronet
        def handler(conn, address):
            conn.write(b"x")
            os.kill(os.getpid(), signal.SIGINT)
            try:
                conn.read(10)
            finally:
                print("cleaned up")
        listener = pycoronet.listen(("127.0.0.1", 0))
        client = pycoronet.connect(listener.getsockname())
        try:
            pycoronet.serve(listener, handler)
        except KeyboardInterrupt:
            print("interrupted", listener.closed)
    """
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "interrupted True\ncleaned up\n"


def test_a_listener_nobody_accepts_from_does_not_spin() -> None:
    listener = listen((HOST, 0))
    listener.timeo = 0
    with pytest.raises(TimeoutError):
        listener.accept()  # it is registered, and then nobody waits
    hub = get_hub()
    clients = [socket.create_connection(listener.getsockname()) for _ in range(3)]
    sleep(0.01)
    before = os.times()
    switches = hub.switch_count
    sleep(0.5)
    after = os.times()
    assert hub.switch_count - switches <= 2
    # Spinning would take all of the half second.
    assert after.user + after.system - before.user - before.system < 0.25
    listener.timeo = None
    for _ in clients:
        conn, _ = listener.accept()  # they are all still there
        conn.close()
    for client in clients:
        client.close()
    listener.close()


# --- Shortages ----------------------------------------------------------------------------------

SHORTAGE = """if 1:
    import errno, os, resource, socket, time
    import pycoronet
    from pycoronet import get_hub, listen, serve, sleep, spawn

    def handler(conn, address):
        conn.write(conn.readln())

    listener = listen(("127.0.0.1", 0))
    address = listener.getsockname()
    server = spawn(serve, listener, handler)
    sleep(0)
    clients = [socket.socket() for _ in range(20)]
    highest = max(int(name) for name in os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, highest + 1))
    hogs = []
    try:
        while True:
            hogs.append(os.dup(0))
    except OSError as error:
        assert error.errno == errno.EMFILE
    for client in clients:
        client.connect(address)
        client.sendall(b"hello\\n")
    began, switches = time.process_time(), get_hub().switch_count
    sleep(1.0)
    assert get_hub().switch_count - switches < 60, get_hub().switch_count - switches
    assert time.process_time() - began < 0.5
    assert not server.done
    for fd in hogs[:5]:
        os.close(fd)
    for client in clients:
        pycoronet.wait_readable(client, 20)
        assert client.recv(100) == b"hello\\n"
        assert client.recv(100) == b""
        client.close()
    listener.close()
    server.get()
    print("all served")
"""


@pytest.mark.linux_only
def test_out_of_descriptors_the_server_keeps_serving() -> None:
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-c", SHORTAGE],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "all served\n"
    assert "Error" not in done.stderr


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS])
def test_closing_the_listener_during_a_shortage_ends_the_server(
    number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pycoronet._accepting, "SHORTAGE_PAUSE", 0.01)
    listener, server = start(echo)

    calls = []

    class Short:
        closed = property(lambda _: listener.closed)

        def __enter__(self) -> Short:
            return self

        def __exit__(self, *_: object) -> None:
            listener.close()

        def fileno(self) -> int:
            return int(listener.fileno())

        def accept(self) -> None:
            calls.append(1)
            raise OSError(number, os.strerror(number))

    stop(listener, server)
    listener = listen((HOST, 0))
    waiting = socket.create_connection(listener.getsockname(), 20)
    monkeypatch.setattr(pycoronet._sockets, "listen", lambda *_, **__: Short())
    server = spawn(serve, (HOST, 0), echo)
    while len(calls) < 3:
        sleep(0.01)
    listener.close()
    assert server.get() is None
    waiting.close()


def test_other_failures_of_accept_end_it(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        closed = False

        def __enter__(self) -> Broken:
            return self

        def __exit__(self, *_: object) -> None:
            self.closed = True

        def accept(self) -> None:
            raise OSError(errno.EINVAL, "not listening")

    broken = Broken()
    monkeypatch.setattr(pycoronet._sockets, "listen", lambda *_, **__: broken)
    with pytest.raises(OSError, match="not listening"):
        serve((HOST, 0), echo)
    assert broken.closed


# --- Listening ------------------------------------------------------------------------------------


def test_ipv4() -> None:
    with listen((HOST, 0)) as listener:
        host, port = listener.getsockname()
        assert host == HOST
        assert port > 0
        assert listener.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR) != 0


def needs_ipv6() -> None:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            pass
    except OSError:
        pytest.skip("needs IPv6")


def test_ipv6() -> None:
    needs_ipv6()
    listener, server = start(echo, ("::1", 0))
    address = listener.getsockname()
    assert address[0] == "::1"
    assert listener.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY) != 0
    assert ask(address[:2], b"six\n") == b"six\n"
    assert ask(address, b"six\n") == b"six\n"
    stop(listener, server)


def test_all_interfaces_of_both_families() -> None:
    needs_ipv6()
    listener, server = start(echo, ("", 0))
    port = listener.getsockname()[1]
    assert ask((HOST, port), b"four\n") == b"four\n"
    assert ask(("::1", port), b"six\n") == b"six\n"
    stop(listener, server)


def test_all_interfaces_without_ipv6(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "has_dualstack_ipv6", lambda: False)
    with listen(("", 0)) as listener:
        assert listener.getsockname()[0] == "0.0.0.0"


def test_a_host_name() -> None:
    with listen(("localhost", 0)) as listener:
        assert listener.getsockname()[0] in ("127.0.0.1", "::1")


@pytest.mark.parametrize("form", [str, os.fsencode, Path])
def test_a_unix_path(tmp_path: Path, form: Callable[[str], Any]) -> None:
    address = form(str(tmp_path / "socket"))
    listener, server = start(echo, address)
    assert ask(address, b"local\n") == b"local\n"
    stop(listener, server)


@pytest.mark.linux_only
@pytest.mark.parametrize("form", [str, os.fsencode])
def test_the_abstract_namespace(form: Callable[[str], Any]) -> None:
    address = form(f"\0pycoronet-test-{os.getpid()}")
    listener, server = start(echo, address)
    assert ask(address, b"local\n") == b"local\n"
    stop(listener, server)


def test_an_address_in_use(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    with listen((HOST, 0)) as listener, listen(path):
        sleep(0.001)
        before = open_descriptors()
        for address in (listener.getsockname(), path):
            with pytest.raises(OSError, match="in use") as caught:
                listen(address)
            assert caught.value.errno == errno.EADDRINUSE
        assert open_descriptors() == before


def test_reuse_port() -> None:
    with listen((HOST, 0), reuse_port=True) as first:
        address = first.getsockname()
        with listen(address, reuse_port=True) as second:
            assert second.getsockname() == address
        with pytest.raises(OSError, match="in use"):
            listen(address)


def test_the_backlog_is_kept() -> None:
    with listen((HOST, 0), backlog=1) as listener:
        clients = [socket.socket() for _ in range(8)]
        results = []
        for client in clients:
            client.setblocking(False)
            results.append(client.connect_ex(listener.getsockname()))
        sleep(0.05)
        established = 0
        listener.timeo = 0
        for _ in range(8):
            try:
                conn, _ = listener.accept()
            except TimeoutError:
                break
            conn.close()
            established += 1
        assert established < 8
        for client in clients:
            client.close()


@pytest.mark.parametrize(
    ("address", "error"),
    [
        (None, TypeError),
        (5, TypeError),
        ((HOST,), TypeError),
        ((HOST, "port"), TypeError),
        ((HOST, 70000), (OverflowError, OSError)),
        ((HOST, -1), (OverflowError, OSError)),
        (("192.0.2.1", 0), OSError),
        (("no such host", 0), OSError),
        ("x" * 1000, OSError),
    ],
)
def test_wrong_addresses(address: Any, error: type[Exception]) -> None:
    sleep(0.001)
    before = open_descriptors()
    for call in (lambda: listen(address), lambda: serve(address, echo)):
        with pytest.raises(error):
            call()
    assert open_descriptors() == before
