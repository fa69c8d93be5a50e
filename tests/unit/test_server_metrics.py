"""The page of a server's statistics: what it says, and who cannot harm whom by reading it."""

from __future__ import annotations

import errno
import socket
import sys
from collections.abc import Callable
from typing import Any

import pytest
from connections import open_descriptors
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from recorders import turn
from server_case import HANDLERS, LOCAL, echo

from pycoronet import Server, get_hub, sleep, spawn, stop_all
from pycoronet.server import _metrics

pytestmark = pytest.mark.usefixtures("virtual_hub")


@pytest.fixture(params=list(HANDLERS))
def server(request: pytest.FixtureRequest) -> Any:
    """Return a server with a page, by each of the strategies; not started."""
    server = Server(LOCAL, HANDLERS[request.param], strategy=request.param, metrics=LOCAL)
    yield server
    server.close()


@pytest.fixture
def call(ends: Any) -> Callable[[Any], socket.socket]:
    """Return a function that connects to an address from outside."""

    def connect(address: Any) -> socket.socket:
        return ends.keep(socket.create_connection(address, 20))

    return connect


def receive(peer: socket.socket) -> tuple[int, dict[str, str], bytes]:
    """Return the status, the headers and the body of one response."""
    file = peer.makefile("rb")
    status = int(file.readline().split()[1])
    headers = {}
    while (line := file.readline()) != b"\r\n":
        name, _, value = line.decode().partition(":")
        headers[name.lower()] = value.strip()
    return status, headers, file.read(int(headers["content-length"]))


def ask(
    peer: socket.socket, target: str = "/metrics", *, method: str = "GET"
) -> tuple[int, dict[str, str], bytes]:
    """Send a request, and return what comes back after a turn of the server."""
    peer.sendall(f"{method} {target} HTTP/1.1\r\nHost: here\r\n\r\n".encode())
    turn()
    return receive(peer)


def values_of(page: bytes) -> dict[str, float]:
    """Return the samples of a page that have no labels."""
    return {
        sample.name.removeprefix("pycoronet_"): sample.value
        for family in text_string_to_metric_families(page.decode())
        for sample in family.samples
        if not sample.labels
    }


def test_the_page_says_what_the_server_has_counted(server: Any, call: Any) -> None:
    server.start()
    client, reader = call(server.addresses[0]), call(server.metrics_addresses[0])
    client.sendall(b"hello\n")
    turn()
    status, headers, page = ask(reader)
    assert status == 200
    assert headers["content-type"] == ("application/openmetrics-text; version=1.0.0; charset=utf-8")
    values = values_of(page)
    assert values["start_time_seconds"] == server.stats.created
    assert (values["connections_open"], values["connections_accepted_total"]) == (1, 1)
    assert (values["received_bytes_total"], values["sent_bytes_total"]) == (6, 6)
    client.close()
    turn()
    values = values_of(ask(reader)[2])  # on the same connection
    assert (values["connections_open"], values["connections_served_total"]) == (0, 1)
    assert values["connections_accepted_total"] == 1  # those who read the page do not count


def test_the_page_is_at_two_places_and_answers_two_methods(server: Any, call: Any) -> None:
    server.start()
    reader = call(server.metrics_addresses[0])
    assert ask(reader, "/")[0] == 200
    assert ask(reader, "/metrics?name[]=x")[0] == 200
    assert ask(reader, "/other")[0] == 404
    status, headers, _ = ask(reader, method="POST")
    assert (status, headers["allow"]) == (405, "GET, HEAD")
    reader.sendall(b"HEAD / HTTP/1.0\r\n\r\n")
    turn()
    head = reader.recv(10000)
    assert head.startswith(b"HTTP/1.1 200 ")
    assert head.endswith(b"\r\n\r\n")


def test_without_the_setting_there_is_no_page() -> None:
    with Server(LOCAL, echo) as server:
        assert server.metrics_addresses == []


def test_the_page_may_be_at_several_addresses_and_on_unix_sockets(tmp_path: Any) -> None:
    path = tmp_path / "metrics"
    with Server(LOCAL, echo, metrics=[LOCAL, "localhost:0", path]) as server:
        assert server.metrics_addresses[-1] == str(path)
        with socket.socket(socket.AF_UNIX) as reader:
            reader.connect(str(path))
            assert ask(reader)[0] == 200
    assert not path.exists()


# --- Readers that do harm ---------------------------------------------------------------------


def test_readers_that_say_nothing_stop_neither_clients_nor_others_for_long(
    server: Any, call: Any
) -> None:
    server.start()
    silent = [call(server.metrics_addresses[0]) for _ in range(_metrics.MAX_READERS)]
    turn()
    reader = call(server.metrics_addresses[0])
    reader.sendall(b"GET / HTTP/1.0\r\n\r\n")
    client = call(server.addresses[0])
    client.sendall(b"hello\n")
    turn()
    assert client.recv(10) == b"hello\n"
    reader.setblocking(False)
    with pytest.raises(BlockingIOError):
        reader.recv(1)
    sleep(_metrics.REQUEST_TIMEOUT)
    turn()
    assert receive(reader)[0] == 200
    assert [peer.recv(1) for peer in silent] == [b""] * len(silent)


def test_a_reader_that_sends_byte_by_byte_is_answered_in_the_end(server: Any, call: Any) -> None:
    server.start()
    reader = call(server.metrics_addresses[0])
    for _ in range(int(_metrics.REQUEST_TIMEOUT) - 1):
        reader.sendall(b"G")
        sleep(1)
    sleep(2)
    assert receive(reader)[0] == 408


def test_a_reader_that_does_not_read_is_closed(server: Any, call: Any) -> None:
    server.start()
    reader = call(server.metrics_addresses[0])
    reader.setblocking(False)
    with pytest.raises(BlockingIOError):
        while True:
            reader.send(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n" * 1000)
            turn()
    sleep(_metrics.REQUEST_TIMEOUT + 1)
    with pytest.raises(ConnectionResetError):
        while reader.recv(1 << 20):
            pass


def test_a_reader_that_stays_has_to_come_again(server: Any, call: Any) -> None:
    server.start()
    reader = call(server.metrics_addresses[0])
    began = get_hub().time
    while get_hub().time - began < _metrics.TOTAL_TIMEOUT - 5:
        assert ask(reader)[0] == 200
        sleep(4)
    sleep(5)
    assert reader.recv(1) == b""


# --- Life -------------------------------------------------------------------------------------


@pytest.mark.parametrize("stop", [Server.stop, lambda server: stop_all()])
def test_the_page_is_there_until_the_last_handler_has_ended(
    call: Any, stop: Callable[[Any], int]
) -> None:
    def handler(conn: Any, _: object) -> None:
        sleep(5)

    server = Server(LOCAL, handler, metrics=LOCAL)
    server.start()
    call(server.addresses[0])
    turn()
    address = server.metrics_addresses[0]
    reader = call(address)
    assert ask(reader)[0] == 200
    stopping = spawn(stop, server)
    sleep(1)
    assert server.closing
    assert values_of(ask(reader)[2])["connections_open"] == 1
    assert stopping.get() == 0
    assert reader.recv(1) == b""
    assert server.metrics_addresses == []
    with pytest.raises(ConnectionRefusedError):
        call(address)


def test_the_page_begins_again_with_its_server_and_leaves_nothing_open(
    server: Any, call: Any
) -> None:
    before = open_descriptors()
    for _ in range(3):
        with server, call(server.metrics_addresses[0]) as reader:
            assert ask(reader)[0] == 200
    server.start()
    server.close()
    server.listen()
    server.close()
    turn()
    assert open_descriptors() == before


def test_the_setting_is_checked_and_fixed_by_listen(server: Any) -> None:
    for wrong in ("9100", [], 3.5, ("127.0.0.1", "9100")):
        with pytest.raises((TypeError, ValueError)):
            server.metrics = wrong
    server.metrics = "127.0.0.1:0"
    server.listen()
    with pytest.raises(RuntimeError, match=r"metrics has to be set before listen\(\)"):
        server.metrics = None


def test_a_port_in_use_is_one_clear_line_and_leaves_nothing_open() -> None:
    with socket.create_server(LOCAL) as other:
        port = other.getsockname()[1]
        taken = ("127.0.0.1", port)
        before = open_descriptors()
        for addresses in ((LOCAL, taken), (taken, LOCAL)):
            server = Server(addresses[0], echo, metrics=addresses[1])
            with pytest.raises(OSError, match=f"127.0.0.1:{port}") as caught:
                server.listen()
            assert caught.value.errno == errno.EADDRINUSE
            assert not server.is_listening
            assert server.metrics_addresses == []
            assert open_descriptors() == before


def test_without_the_parser_the_page_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "h11", None)
    monkeypatch.delitem(sys.modules, "pycoronet._http", raising=False)
    server = Server(LOCAL, echo, metrics=LOCAL)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'pycoronet\[http\]'"):
        server.listen()
    assert not server.is_listening
    server.metrics = None
    server.listen()
    server.close()
