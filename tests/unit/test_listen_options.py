"""The options of listen(): what the kernel is told, and what comes of it."""

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
from connections import PEER_TIMEOUT, Ends, count_descriptors
from listener_case import needs_ipv6
from recorders import Recorder, turn

import pycoronet
from pycoronet import _binding, _sockets, listen, sleep, spawn

HOST = "127.0.0.1"
pytestmark = pytest.mark.usefixtures("virtual_hub")


FAMILIES = ["ipv4", pytest.param("ipv6", marks=needs_ipv6), "unix"]


@pytest.fixture(params=FAMILIES)
def address(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """Return an address to listen at, of each family in turn."""
    return {"ipv4": (HOST, 0), "ipv6": ("::1", 0), "unix": str(tmp_path / "socket")}[request.param]


@pytest.fixture
def opened(ends: Ends) -> Callable[..., Any]:
    """Return listen(), whose listeners are closed in the end."""
    return lambda *args, **options: ends.keep(listen(*args, **options))


def dial(ends: Ends, address: Any) -> socket.socket:
    """Return a plain client's socket."""
    if isinstance(address, str):
        client = ends.keep(socket.socket(socket.AF_UNIX))
        client.settimeout(PEER_TIMEOUT)
        client.connect(address)
        return client
    return ends.keep(socket.create_connection(address[:2], PEER_TIMEOUT))


def accept_now(listener: Any) -> Any:
    """Return what waits to be accepted, None for nothing; the connection is aborted."""
    timeout, listener.timeo = listener.timeo, 0
    try:
        conn, peer = listener.accept()
    except TimeoutError:
        return None
    finally:
        listener.timeo = timeout
    conn.abort()
    return peer


def option(listener: Any, level: int, name: int) -> bool:
    return bool(listener.getsockopt(level, name))


# --- Not blocking, and not open in other programs ------------------------------------------------


def accepted_by_task(listener: Any, client: Callable[[], Any]) -> Any:
    client()
    return listener.accept()[0]


def accepted_by_server(listener: Any, client: Callable[[], Any]) -> Any:
    accepted: list[Any] = []
    server = spawn(pycoronet.serve, listener, lambda conn, _: (accepted.append(conn), sleep(1)))
    client()
    turn()
    server.cancel()
    return accepted[0]


def accepted_by_callbacks(listener: Any, client: Callable[[], Any]) -> Any:
    accepted: list[Any] = []
    listener.set_callbacks(Recorder(open=accepted.append))
    client()
    turn()
    return accepted[0]


@pytest.mark.parametrize("close_on_exec", [True, False])
@pytest.mark.parametrize(
    "accept",
    [accepted_by_task, accepted_by_server, accepted_by_callbacks],
    ids=lambda f: f.__name__,
)
def test_no_socket_is_left_blocking_and_what_is_accepted_is_ours_alone(
    ends: Ends,
    opened: Callable[..., Any],
    address: Any,
    accept: Callable[..., Any],
    close_on_exec: bool,
) -> None:
    listener = opened(address, close_on_exec=close_on_exec)
    conn = ends.keep(accept(listener, lambda: dial(ends, listener.getsockname())))
    for fd in (listener.fileno(), conn.fileno()):
        assert not os.get_blocking(fd)
    assert not os.get_inheritable(conn.fileno())
    assert os.get_inheritable(listener.fileno()) is not close_on_exec


@pytest.mark.parametrize("close_on_exec", [True, False])
def test_an_executed_program_has_the_listener_or_not(
    opened: Callable[..., Any], address: Any, close_on_exec: bool
) -> None:
    listener = opened(address, close_on_exec=close_on_exec)
    identity = os.fstat(listener.fileno())
    program = f"""if 1:
        import os
        try:
            status = os.fstat({listener.fileno()})
            print((status.st_dev, status.st_ino) == {(identity.st_dev, identity.st_ino)})
        except OSError:
            print(False)
    """
    done = subprocess.run(
        [sys.executable, "-c", program],
        close_fds=False,
        capture_output=True,
        text=True,
        timeout=50,
        check=True,
    )
    assert done.stdout == f"{not close_on_exec}\n"


# --- Addresses and ports -------------------------------------------------------------------------


@pytest.mark.parametrize("reuse_address", [True, False])
def test_reuse_address_is_what_the_kernel_is_told(
    opened: Callable[..., Any], reuse_address: bool
) -> None:
    listener = opened((HOST, 0), reuse_address=reuse_address)
    assert option(listener, socket.SOL_SOCKET, socket.SO_REUSEADDR) is reuse_address


@pytest.mark.linux_only
def test_a_port_with_dying_connections_is_taken_only_by_reusing_the_address(
    ends: Ends, opened: Callable[..., Any]
) -> None:
    listener = opened((HOST, 0))
    address = listener.getsockname()
    client = dial(ends, address)
    conn, _ = listener.accept()
    conn.close()  # who closes first keeps the port for a minute
    assert client.recv(1) == b""
    client.close()
    listener.close()
    with pytest.raises(OSError, match="in use") as caught:
        listen(address, reuse_address=False)
    assert caught.value.errno == errno.EADDRINUSE
    assert opened(address).getsockname() == address


def test_a_port_is_shared_only_if_all_say_so(opened: Callable[..., Any]) -> None:
    first = opened((HOST, 0), reuse_port=True)
    address = first.getsockname()
    second = opened(address, reuse_port=True)
    assert second.getsockname() == address
    for listener in (first, second):
        assert option(listener, socket.SOL_SOCKET, _binding.SHARED_PORT)
    with pytest.raises(OSError, match="in use"):
        listen(address)


@needs_ipv6
@pytest.mark.parametrize(
    ("host", "ipv6_only"),
    [("::", True), ("::", False), ("", True), ("", False), ("::1", True), ("localhost", True)],
)
def test_ipv6_only_is_what_the_kernel_is_told(
    opened: Callable[..., Any], host: str, ipv6_only: bool
) -> None:
    try:
        listener = opened((host, 0), ipv6_only=ipv6_only)
    except socket.gaierror:
        assert host == "localhost"  # it need not have an IPv6 address
        return
    assert len(listener.getsockname()) == 4
    assert option(listener, socket.IPPROTO_IPV6, socket.IPV6_V6ONLY) is ipv6_only


@needs_ipv6
@pytest.mark.parametrize("host", ["::", ""])
@pytest.mark.parametrize("ipv6_only", [True, False, None])
def test_a_dual_stack_serves_ipv4_clients_too(
    ends: Ends, opened: Callable[..., Any], host: str, ipv6_only: bool | None
) -> None:
    listener = opened((host, 0), ipv6_only=ipv6_only)
    port = listener.getsockname()[1]
    dial(ends, ("::1", port))
    assert accept_now(listener)[0] == "::1"
    is_dual = ipv6_only is False or (ipv6_only is None and host == "")
    try:
        dial(ends, (HOST, port))
    except ConnectionRefusedError:
        assert not is_dual
    assert (accept_now(listener) or [None])[0] == ("::ffff:127.0.0.1" if is_dual else None)


@pytest.mark.parametrize("ipv6_only", [True, False])
def test_ipv6_only_is_refused_for_other_addresses(tmp_path: Path, ipv6_only: bool) -> None:
    before = count_descriptors()
    for address in [(HOST, 0), str(tmp_path / "socket")]:
        with pytest.raises(ValueError, match="ipv6_only is for IPv6"):
            listen(address, ipv6_only=ipv6_only)
    assert count_descriptors() == before
    assert not (tmp_path / "socket").exists()


# --- Deferred accepting --------------------------------------------------------------------------


@pytest.mark.linux_only
@pytest.mark.parametrize("host", [HOST, pytest.param("::1", marks=needs_ipv6)])
def test_a_deferred_connection_is_accepted_when_it_says_something(
    ends: Ends, opened: Callable[..., Any], host: str
) -> None:
    plain, deferred = opened((host, 0)), opened((host, 0), defer_accept=60)
    clients = [dial(ends, one.getsockname()) for one in (plain, deferred)]
    assert accept_now(plain) is not None
    assert accept_now(deferred) is None
    waiting = spawn(deferred.accept)
    turn()
    assert not waiting.done
    clients[1].sendall(b"hello")
    conn, _ = waiting.get()
    assert ends.keep(conn).recv(10) == b"hello"


@pytest.mark.linux_only
@pytest.mark.parametrize("seconds", [0.001, 1, 1.5, 60])
def test_the_kernel_is_told_how_long_to_defer(opened: Callable[..., Any], seconds: float) -> None:
    listener = opened((HOST, 0), defer_accept=seconds)
    told = listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT)
    assert told >= seconds
    assert isinstance(told, int)
    plain = opened((HOST, 0))
    assert plain.getsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT) == 0


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf"), 2**31])
def test_deferring_for_no_time_is_refused(seconds: float) -> None:
    with pytest.raises(ValueError, match="defer_accept must be"):
        listen((HOST, 0), defer_accept=seconds)


def test_a_unix_socket_cannot_defer(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="for TCP"):
        listen(str(tmp_path / "socket"), defer_accept=1)
    assert not (tmp_path / "socket").exists()


class Options:
    """Stands in for a listener; notes the options that it is given."""

    def __init__(self, error: Exception | None = None) -> None:
        self.options: list[Any] = []
        self.error = error

    def setsockopt(self, *option: Any) -> None:
        self.options.append(option)
        if self.error is not None:
            raise self.error


@pytest.mark.parametrize("system", ["freebsd14", "netbsd10", "dragonfly6"])
def test_the_bsds_have_a_filter_for_it(monkeypatch: pytest.MonkeyPatch, system: str) -> None:
    monkeypatch.delattr(socket, "TCP_DEFER_ACCEPT", raising=False)
    monkeypatch.setattr(sys, "platform", system)
    listener = Options()
    _sockets._defer_accept(listener, 5)  # type: ignore[arg-type]
    ((level, name, value),) = listener.options
    assert (level, name) == (socket.SOL_SOCKET, 0x1000)
    assert value[:10] == b"dataready\0"
    assert len(value) == 256
    with pytest.raises(OSError, match="accf_data is not loaded"):
        _sockets._defer_accept(Options(FileNotFoundError()), 5)  # type: ignore[arg-type]


def test_a_system_without_deferring_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(socket, "TCP_DEFER_ACCEPT", raising=False)
    monkeypatch.setattr(sys, "platform", "darwin")
    before = count_descriptors()
    with pytest.raises(OSError, match="cannot defer") as caught:
        listen((HOST, 0), defer_accept=1)
    assert caught.value.errno == errno.EOPNOTSUPP
    assert count_descriptors() == before


# --- Listening -----------------------------------------------------------------------------------


def test_listening_needs_a_socket_of_that_kind(ends: Ends) -> None:
    with pytest.raises(TypeError, match="sk_conn"):
        _sockets._listen(5, 5)  # type: ignore[arg-type]
    conn, _ = ends.pair()
    with pytest.raises(OSError, match=r".") as caught:
        _sockets._listen(conn, 5)
    assert caught.value.errno in (errno.EINVAL, errno.EOPNOTSUPP)
    datagrams = ends.conn(socket.socket(type=socket.SOCK_DGRAM))
    with pytest.raises(OSError, match=r"."):
        _sockets._listen(datagrams, 5)
    conn.close()
    with pytest.raises(pycoronet.ClosedError):
        _sockets._listen(conn, 5)


@pytest.mark.parametrize("backlog", [-1, 0])
def test_a_backlog_of_nothing_still_accepts(
    ends: Ends, opened: Callable[..., Any], backlog: int
) -> None:
    listener = opened((HOST, 0), backlog=backlog)
    dial(ends, listener.getsockname())
    assert accept_now(listener) is not None


@pytest.mark.parametrize("address", [None, 80, object(), (), ("127.0.0.1",), {80}])
def test_what_is_no_address_is_told_so(address: Any) -> None:
    # CPython's own error for the call that this would become leaks its text.
    with pytest.raises(TypeError, match=r"an address is \(host, port\)"):
        pycoronet.listen(address)
