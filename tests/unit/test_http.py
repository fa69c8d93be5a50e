"""HTTP on one connection: what is read, answered and refused, and when it ends."""

from __future__ import annotations

import importlib
import os
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pycoronet import sk_conn, sleep, spawn, timeout, wait_readable
from pycoronet.testing import Pair, pair

pytest.importorskip("h11", reason="h11, the parser of pycoronet[http], is not installed")

from pycoronet._http import FileBody, HTTPError, Request, Response, serve_http

pytestmark = pytest.mark.usefixtures("virtual_hub")

GET = b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n"


class FakeServer:
    """What a server is to serve_http(); looks around each moment of virtual time."""

    closing = False

    def await_input(self, conn: sk_conn, timeout: float | None = None) -> bool:
        left = 1000.0 if timeout is None else timeout
        while not self.closing and left > 0:
            try:
                wait_readable(conn, 0.01)
                return True
            except TimeoutError:
                left -= 0.01
        return False


class Client:
    """The client's end, and the task that serves it."""

    def __init__(self, ends: Pair, respond: Callable[[Request], Response], **options: Any) -> None:
        self.conn, self.served = ends
        self.task = spawn(self._serve, respond, options)

    def _serve(self, respond: Callable[[Request], Response], options: Any) -> None:
        with self.served:
            try:
                serve_http(self.served, respond, **options)
            finally:
                self.was_closed, self.left = self.served.closed, self.served.pending

    def send(self, data: bytes) -> None:
        self.conn.write(data)

    def reply(self, *, has_body: bool = True) -> tuple[int, dict[str, str], bytes]:
        """Read one response."""
        status = int(self.conn.readln().split()[1])
        headers = {}
        while (line := self.conn.readln().decode().strip()) != "":
            name, _, value = line.partition(": ")
            headers[name.lower()] = value
        length = int(headers.get("content-length", 0))
        return status, headers, self.conn.read_exactly(length) if has_body else b""

    def rest(self) -> bytes:
        """Read until the server has ended the stream."""
        data = b""
        while block := self.conn.recv(65536):
            data += block
        return data


@pytest.fixture
def ends() -> Iterator[Pair]:
    with pair() as both:
        yield both


@pytest.fixture
def start(ends: Pair) -> Callable[..., Client]:
    """Return a function that serves the pair's second end."""

    def serve(respond: Callable[[Request], Response] = echo, **options: Any) -> Client:
        return Client(ends, respond, **options)

    return serve


def echo(request: Request) -> Response:
    """Answer with what was asked."""
    text = f"{request.method} {request.target} ".encode() + request.body
    return Response(200, [("Content-Type", "text/plain")], text)


def test_http_without_the_parser_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "h11", None)
    monkeypatch.delitem(sys.modules, "pycoronet._http")
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'pycoronet\[http\]'"):
        importlib.import_module("pycoronet._http")


# Requests and responses.


def test_http_requests_on_one_connection_are_answered_in_turn(start):
    client = start()
    for number in range(3):
        client.send(GET % number)
        status, headers, body = client.reply()
        assert (status, body) == (200, b"GET /%d " % number)
        assert headers["content-type"] == "text/plain"
        assert headers["date"].endswith(" GMT")
        assert "connection" not in headers
    client.conn.close()
    client.task.get()


def test_http_pipelined_requests_are_answered_in_order(start):
    client = start()
    client.send(b"".join(GET % number for number in range(100)))
    assert [client.reply()[2] for _ in range(100)] == [b"GET /%d " % n for n in range(100)]


@pytest.mark.optimisation("requests that came together are there at once")
@pytest.mark.parametrize("is_file", [False, True])
def test_http_pipelined_responses_leave_together(start, is_file):
    waiting = []

    def respond(request: Request) -> Response:
        waiting.append(client.served.pending)
        body = FileBody(make_file(b"small"), 0, 5) if is_file else b"small"
        return Response(200, [], body)

    client = start(respond)
    client.send(b"".join(GET % number for number in range(5)))
    for _ in range(5):
        client.reply()
    assert waiting == [number * waiting[1] for number in range(5)]
    assert waiting[1] > 0


def test_http_request_that_comes_byte_by_byte_is_answered(start, ends):
    client = start(request_timeout=1000.0)
    ends.short_reads(1)
    client.send(b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody")
    assert client.reply()[2] == b"POST /x body"


@pytest.mark.parametrize(
    "head",
    [
        b"GET /x HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
        b"CONNECT /x HTTP/1.1\r\nHost: a\r\n\r\n",
    ],
)
def test_http_offer_to_speak_something_else_is_passed_over(start, head):
    client = start(lambda request: Response(404))
    client.send(head + GET % 1)
    assert [client.reply()[0] for _ in range(2)] == [404, 404]


def test_http_chunked_body_is_put_together(start):
    client = start()
    client.send(b"PUT /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
    client.send(b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nTrailer: t\r\n\r\n")
    assert client.reply()[2] == b"PUT /x abcde"


def test_http_header_joins_its_lines_and_ignores_case(start):
    seen = []

    def respond(request: Request) -> Response:
        seen.extend([request.header("X-A"), request.header("x-b"), request.header("X-C")])
        return Response(204)

    client = start(respond)
    client.send(b"GET / HTTP/1.1\r\nHost: a\r\nx-a: 1\r\nX-A: \xe4\r\nX-B:\r\n\r\n")
    status, headers, _ = client.reply()
    assert (status, headers.get("content-length")) == (204, None)
    assert seen == ["1, \xe4", "", None]


def test_http_head_gets_the_length_and_no_body(start):
    client = start()
    client.send(b"HEAD /x HTTP/1.1\r\nHost: a\r\n\r\n")
    status, headers, _ = client.reply(has_body=False)
    assert (status, headers["content-length"]) == (200, "8")
    client.send(GET % 1)
    assert client.reply()[2] == b"GET /1 "


def test_http_not_modified_has_no_body_and_no_length(start):
    client = start(lambda request: Response(304, [("ETag", '"x"')], b"never sent"))
    client.send(GET % 1 + GET % 2)
    for _ in range(2):
        status, headers, _ = client.reply()
        assert (status, headers.get("content-length")) == (304, None)


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET / HTTP/1.0\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    ],
)
def test_http_connection_ends_where_the_client_asks_for_it(start, request_bytes):
    client = start()
    client.send(request_bytes)
    status, headers, body = client.reply()
    assert (status, headers["connection"], body) == (200, "close", b"GET / ")
    assert client.rest() == b""
    client.task.get()


def test_http_continue_is_said_only_when_the_client_waits_for_it(start):
    client = start()
    head = b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n"
    client.send(head)
    assert client.reply(has_body=False)[0] == 100
    client.send(b"ab")
    assert client.reply()[2] == b"POST /x ab"
    client.send(head + b"cd")
    assert client.reply()[2] == b"POST /x cd"


# Files.


def make_file(content: bytes) -> Any:
    file = tempfile.TemporaryFile()  # noqa: SIM115  its user closes it
    file.write(content)
    file.flush()
    return file


@pytest.mark.parametrize("size", [10, 300_000])
def test_http_file_is_sent_from_its_offset_and_closed(start, size):
    content = bytes(range(256)) * (size // 256 + 1)
    files = []

    def respond(request: Request) -> Response:
        files.append(make_file(content))
        return Response(200, [], FileBody(files[-1], 3, size))

    client = start(respond)
    client.send(GET % 1 + GET % 2)
    for _ in range(2):
        assert client.reply()[2] == content[3 : 3 + size]
    assert [file.closed for file in files] == [True, True]


@pytest.mark.parametrize("headers", [[], [("Bad\n", "x")]])
def test_http_file_that_is_not_sent_is_closed(start, headers, ends):
    file = make_file(b"x" * 100)
    client = start(lambda request: Response(200, headers, FileBody(file, 0, 100)))
    client.send(b"HEAD / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    client.rest()
    client.task.join()
    assert file.closed


@pytest.mark.parametrize("size", [1000, 300_000])
def test_http_file_that_is_shorter_than_was_said_ends_the_connection(start, size):
    content = b"x" * 100
    client = start(lambda request: Response(200, [], FileBody(make_file(content), 0, size)))
    client.send(GET % 1 + GET % 2)
    assert client.rest().count(b"HTTP/1.1") <= 1
    client.task.get()
    assert client.was_closed


def test_http_file_that_shrinks_while_it_is_sent_ends_the_connection(start):
    file = make_file(b"x" * 1_000_000)
    twin = os.dup(file.fileno())
    client = start(lambda request: Response(200, [], FileBody(file, 0, 1_000_000)))
    client.send(GET % 1 + GET % 2)
    received = client.conn.recv(1000)
    os.truncate(twin, 500_000)
    os.close(twin)
    received += client.rest()
    assert (received.count(b"HTTP/1.1"), len(received) < 600_000) == (1, True)
    client.task.get()


# Refusals: a status, then the end.


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", 400),  # no Host
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"what is this?\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01", 400),  # TLS
        (b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length : 3\r\n\r\nabc", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", 400),
        (
            b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n%s"
            % b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
        ),
        (b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nz\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
        (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
        (b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 70_000 + b"\r\n\r\n", 431),
        (b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 70000\r\n\r\n", 413),
        (b"HEAD / HTTP/1.1\r\nHost: a\r\nContent-Length: 70000\r\n\r\n", 413),
        (
            b"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n11171\r\n"
            + b"x" * 70_000,
            413,
        ),
    ],
)
def test_http_what_cannot_be_answered_is_refused(start, request_bytes, status):
    client = start()
    sender = spawn(client.send, request_bytes)
    found, headers, _ = client.reply(has_body=not request_bytes.startswith(b"HEAD"))
    assert (found, headers["connection"]) == (status, "close")
    assert client.rest() == b""
    sender.get()
    client.conn.close()
    client.task.get()


def test_http_refusal_behind_a_request_for_a_head_has_a_body(start):
    client = start()
    client.send(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\nnonsense\r\n\r\n")
    client.reply(has_body=False)
    assert client.reply()[2] == b"400 Bad Request\n"


def test_http_refused_client_that_stays_is_left_soon(start, virtual_hub):
    client = start()
    client.send(b"nonsense\r\n\r\n")
    client.reply()
    began = virtual_hub.time
    client.task.get()
    assert virtual_hub.time - began < 5.0


def test_http_returns_when_all_is_sent(start, ends):
    client = start(lambda request: Response(200, [], b"x" * 1_000_000))
    client.send(b"GET / HTTP/1.0\r\n\r\n")
    assert len(client.rest()) > 1_000_000
    client.task.get()
    assert client.left == 0


def test_http_stream_that_ends_in_a_request_is_refused(start):
    client = start()
    client.send(b"GET / HTTP/1.1\r\nHo")
    client.conn.shutdown(socket.SHUT_WR)
    assert client.reply()[0] == 400


def test_http_body_that_is_too_long_is_refused_before_it_is_sent(start):
    client = start(max_body=3)
    client.send(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n")
    assert client.reply()[0] == 413


def test_http_refusal_reaches_a_client_that_goes_on_sending(start):
    client = start()
    client.send(b"nonsense\r\n\r\n")
    client.send(b"x" * 200_000)  # would break off if the server did not read on
    assert client.reply()[0] == 400
    client.conn.close()
    client.task.get()


def test_http_error_raised_by_who_responds_is_its_answer(start):
    def respond(request: Request) -> Response:
        raise HTTPError(405, [("Allow", "GET")])

    client = start(respond)
    client.send(GET % 1 + GET % 2)
    for _ in range(2):
        status, headers, body = client.reply()
        assert (status, headers["allow"], body) == (405, "GET", b"405 Method Not Allowed\n")


@pytest.mark.leaves_something("the traceback of an error that is a parameter")
@pytest.mark.parametrize(
    "response",
    [
        ZeroDivisionError("the test's"),
        ConnectionResetError("not the client's"),
        Response(42),
        Response(200, [("Bad Name", "x")]),
        Response(200, [("X", "\N{SNOWMAN}")]),
        Response(200, [("Content-Length", "7")], b"four"),
        None,
    ],
)
def test_http_failure_of_who_responds_is_500_and_is_raised(start, response):
    def respond(request: Request) -> Any:
        if isinstance(response, Exception):
            raise response
        return response

    client = start(respond)
    client.send(GET % 1 + GET % 2)
    status, headers, body = client.reply()
    assert (status, headers["connection"], body) == (500, "close", b"500 Internal Server Error\n")
    assert client.rest() == b""
    client.conn.close()
    with pytest.raises(Exception) as caught:  # noqa: PT011  each has its own
        client.task.get()
    assert caught.value is response or not isinstance(response, Exception)


# Time.


def test_http_request_that_never_ends_is_given_up(start, virtual_hub):
    client = start(request_timeout=5.0)
    sleep(30.0)  # it has not begun
    began = virtual_hub.time
    spawn(trickle, client, b"GET / HTTP/1.1\r\nX: " + b"x" * 1000)
    status, headers, _ = client.reply()
    assert (status, headers["connection"]) == (408, "close")
    assert 5.0 <= virtual_hub.time - began < 6.0


def trickle(client: Client, data: bytes) -> None:
    """Send a byte each second, until the other end is gone."""
    try:
        for at in range(len(data)):
            client.conn.write(data[at : at + 1])
            client.conn.flush()
            sleep(1.0)
    except OSError:
        pass


def test_http_body_that_never_comes_is_given_up(start):
    client = start(request_timeout=5.0)
    client.send(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nab")
    assert client.reply()[0] == 408


@pytest.mark.parametrize("server", [None, FakeServer()])
def test_http_idle_client_is_let_go_without_a_word(start, virtual_hub, server):
    client = start(server=server, idle_timeout=7.0)
    client.send(GET % 1)
    client.reply()
    began = virtual_hub.time
    assert client.rest() == b""
    assert 7.0 <= virtual_hub.time - began < 7.4
    client.task.get()


def test_http_timeout_of_the_connection_comes_first(start, virtual_hub, ends):
    ends.partner(next(iter(ends))).settimeout(3.0)
    began = virtual_hub.time
    client = start()
    assert client.rest() == b""
    assert 3.0 <= virtual_hub.time - began < 4.0


def test_http_client_that_does_not_read_is_let_go(start, ends, virtual_hub):
    client = start(lambda request: Response(200, [], b"x" * 10_000_000), idle_timeout=7.0)
    client.send(GET % 1)
    client.task.get()
    assert client.was_closed


def test_http_client_that_breaks_off_concerns_nobody(start, ends):
    client = start(lambda request: Response(200, [], b"x" * 10_000_000))
    client.send(GET % 1)
    client.conn.recv(100)
    ends.reset()
    client.task.get()


def test_http_client_that_breaks_off_is_told_to_a_server(start, ends):
    client = start(lambda request: Response(200, [], b"x" * 10_000_000), server=FakeServer())
    client.send(GET % 1)
    client.conn.recv(100)
    ends.reset()
    with pytest.raises(ConnectionError):
        client.task.get()


def test_http_client_that_does_not_read_is_told_to_a_server(start):
    client = start(
        lambda request: Response(200, [], b"x" * 10_000_000), server=FakeServer(), idle_timeout=7.0
    )
    client.send(GET % 1)
    with pytest.raises(TimeoutError):
        client.task.get()
    assert client.was_closed


# A server that closes.


def test_http_closing_server_says_which_response_is_the_last(start):
    server = FakeServer()
    client = start(server=server)
    client.send(GET % 1)
    assert "connection" not in client.reply()[1]
    client.send(GET % 2)
    sleep(0)
    server.closing = True
    client.send(GET % 3)
    while "connection" not in (reply := client.reply())[1]:
        pass
    assert reply[1]["connection"] == "close"
    assert client.rest() == b""
    client.conn.close()
    client.task.get()


def test_http_closing_server_answers_what_is_on_its_way(start):
    server = FakeServer()
    client = start(server=server)
    client.send(GET % 1)
    client.reply()
    server.closing = True
    sleep(0.2)  # the server has seen that it is closing, and nobody has asked
    client.send(GET % 2)
    status, headers, body = client.reply()
    assert (status, headers["connection"], body) == (200, "close", b"GET /2 ")


def test_http_closing_server_lets_idle_clients_go(start, virtual_hub):
    server = FakeServer()
    client = start(server=server, idle_timeout=None)
    server.closing = True
    with timeout(2.0):
        assert client.rest() == b""
    client.task.get()
