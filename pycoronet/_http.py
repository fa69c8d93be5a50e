r"""HTTP/1.1 for servers, by the parser h11: requests in, responses out, on one connection.

    def respond(request):
        return Response(200, [("Content-Type", "text/plain")], b"hello\n")

    def handler(conn, address):
        serve_http(conn, respond)

h11 decides what is well formed and how long a message is; here it is decided what is read
when, what an error is answered with, and when the connection ends.
"""

import functools
import os
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from email.utils import formatdate
from http.client import responses
from typing import IO, Any, NamedTuple, Protocol

from ._coronet import sk_conn
from ._coronet import timeout as time_limit

try:
    import h11
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "HTTP needs the parser h11: pip install 'pycoronet[http]'", name=error.name
    ) from None

__all__ = ["FileBody", "HTTPError", "Request", "Response", "serve_http"]

# What a head and a body may be at most, in bytes, and how much is received at once.
MAX_HEAD_BYTES = 16 * 1024
MAX_BODY_BYTES = 64 * 1024
RECEIVE_BYTES = 16 * 1024

# Files up to this size leave together with their head, in one packet if they fit.
MAX_COPIED_BYTES = 16 * 1024

# How long a request may take from its first byte to its last, and how long a client may
# neither send nor take anything, in seconds.
REQUEST_TIMEOUT = 20.0
IDLE_TIMEOUT = 60.0

# When the server closes, so long it is waited for a request that may be on its way.
LAST_REQUEST_SECONDS = 0.5

# After an error so much of what the client is still sending is thrown away, and for so
# long: closing on unread bytes resets the connection, and the response might get lost in it.
MAX_DISCARDED_BYTES = 1024 * 1024
DISCARD_SECONDS = 2.0

# These have no body, whatever their headers say.
NO_BODY_STATUSES = frozenset({204, 304})

Headers = Sequence[tuple[str, str]]


class Request(NamedTuple):
    """A request that has come whole."""

    method: str
    target: str  # as it was sent, with its escapes and its query
    headers: list[tuple[bytes, bytes]]  # the names in small letters
    body: bytes

    def header(self, name: str) -> str | None:
        """Return a header's value, its lines joined by commas; None if there is no such."""
        wanted = name.lower().encode("ascii")
        values = [value.decode("latin-1") for found, value in self.headers if found == wanted]
        return ", ".join(values) if values else None


@dataclass(frozen=True, slots=True)
class FileBody:
    """A part of an open file as a response's body; the file is closed when it is queued."""

    file: IO[bytes]
    offset: int
    length: int

    def __len__(self) -> int:
        """Return the number of bytes, which is what h11 wants to know of a body."""
        return self.length


class Response(NamedTuple):
    """What a request is answered with. Content-Length and Date are added."""

    status: int = 200
    headers: Headers = ()
    body: bytes | FileBody = b""


class HTTPError(Exception):
    """Raised by who responds: the request is answered with this status and a line of text."""

    def __init__(self, status: int, headers: Headers = ()) -> None:
        super().__init__(status)
        self.status = status
        self.headers = headers


class Server(Protocol):
    """What serve_http() asks of the server that a connection belongs to."""

    @property
    def closing(self) -> bool:
        """Whether it takes no more requests."""
        ...

    def await_input(self, conn: sk_conn, timeout: float | None = None) -> bool:
        """Wait for input or the end of it; return False if nobody should wait any longer."""
        ...


Respond = Callable[[Request], Response]


def serve_http(
    conn: sk_conn,
    respond: Respond,
    *,
    server: Server | None = None,
    max_body: int = MAX_BODY_BYTES,
    request_timeout: float | None = REQUEST_TIMEOUT,
    idle_timeout: float | None = IDLE_TIMEOUT,
) -> None:
    """Answer a client's requests, until one of us wants no more.

    respond: called as respond(request) for each request that has come whole; it returns a
    Response or raises HTTPError. Anything else that it raises is answered with 500, ends the
    connection and is raised in the end.
    server: tells how long to stay. Between two requests its await_input() is waited in, and
    once it is closing, each response says that it is the last.
    max_body: bytes that a request's body may have; more is answered with 413.
    request_timeout: seconds for a request to come whole once it has begun, else it is answered
    with 408. idle_timeout: seconds that a client may neither send nor take anything, for a
    connection without a timeout of its own. None is no limit for either.

    Switches. Returns when the connection is to be closed. A client that breaks off, or does not
    read, concerns itself alone: an OSError is raised only with a server, which counts it.
    """
    conn.buffered = True  # responses to pipelined requests leave together
    if conn.gettimeout() is None:
        conn.settimeout(idle_timeout)
    session = _Session(conn, respond, server, max_body)
    try:
        session.run(request_timeout)
        if not conn.closed:
            conn.flush()
    except OSError:
        conn.abort()  # nobody takes what is left, and closing need not tell of it
        if server is not None:
            raise
    if session.failure is not None:
        raise session.failure


class _Session:
    """One connection, from its first request to its last."""

    def __init__(
        self, conn: sk_conn, respond: Respond, server: Server | None, max_body: int
    ) -> None:
        self._conn = conn
        self._respond = respond
        self._server = server
        self._max_body = max_body
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD_BYTES)
        self._wants_body = True  # the client's request is not HEAD
        self.failure: Exception | None = None  # of our side: what respond() raised

    def run(self, request_timeout: float | None) -> None:
        """Read and answer, read and answer; raises OSError when the connection fails."""
        while self._await_request():
            try:
                with time_limit(request_timeout):
                    request = self._read_request()
            except TimeoutError:
                return self._refuse(408)
            except HTTPError as error:
                return self._refuse(error.status)
            except h11.RemoteProtocolError as error:
                return self._refuse(error.error_status_hint)
            if request is None:
                return None
            self._answer(request)
            if self._http.our_state is not h11.DONE:
                return None
            self._http.start_next_cycle()
        return None

    # --- Reading ------------------------------------------------------------------------

    def _await_request(self) -> bool:
        """Wait for a request to begin; return False if there will be none."""
        if self._http.trailing_data[0]:
            return True  # it came together with the one before
        if self._server is None:
            self._receive()
        elif not self._server.await_input(self._conn, self._conn.gettimeout()):
            if not self._server.closing:
                return False
            return self._await_last_request()
        return True

    def _await_last_request(self) -> bool:
        """Wait a moment for a request that is on its way: it is answered still."""
        try:
            with time_limit(LAST_REQUEST_SECONDS):
                self._receive()
        except TimeoutError:
            return False
        return True

    def _receive(self) -> None:
        self._http.receive_data(self._conn.recv(RECEIVE_BYTES))

    def _next_event(self) -> Any:
        while (event := self._http.next_event()) is h11.NEED_DATA:
            if self._http.they_are_waiting_for_100_continue:
                self._send(h11.InformationalResponse(status_code=100, headers=[]))
            self._receive()
        return event

    def _read_request(self) -> Request | None:
        """Return the next request, or None at the end of the stream.

        Raises HTTPError and h11.RemoteProtocolError for what is to be refused.
        """
        self._wants_body = True
        head = self._next_event()
        if isinstance(head, h11.ConnectionClosed):
            return None
        self._wants_body = head.method != b"HEAD"
        if head.http_version[:1] != b"1":
            raise HTTPError(505)
        fields = dict(head.headers)
        if b"content-length" in fields and b"transfer-encoding" in fields:
            raise HTTPError(400)  # a proxy may have read another length out of it
        # By its head, so that a client that waits for our consent does not send the body.
        if int(fields.get(b"content-length", 0)) > self._max_body:
            raise HTTPError(413)
        body = bytearray()
        while isinstance(event := self._next_event(), h11.Data):
            body += event.data
            if len(body) > self._max_body:
                raise HTTPError(413)
        method, target = head.method.decode("ascii"), head.target.decode("ascii")
        return Request(method, target, list(head.headers), bytes(body))

    # --- Answering ----------------------------------------------------------------------

    def _answer(self, request: Request) -> None:
        """Respond to a request, and say goodbye if that is the last."""
        response, head = self._compose(request)
        try:
            self._send_response(head, response)
        finally:
            _let_go(response.body)
        if self._is_closing():
            self._see_off()

    def _is_closing(self) -> bool:
        return self.failure is not None or (self._server is not None and self._server.closing)

    def _compose(self, request: Request) -> tuple[Response, h11.Response]:
        """Return the response to a request and its head, which can be sent as they are."""
        body: bytes | FileBody = b""
        try:
            response = self._respond(request)
            body = response.body
            return response, _make_head(response, is_last=self._is_closing())
        except HTTPError as error:
            response = make_error(error.status, error.headers)
        except Exception as error:
            _let_go(body)
            self.failure = error
            response = make_error(500)
        return response, _make_head(response, is_last=self._is_closing())

    def _send_response(self, head: h11.Response, response: Response) -> None:
        self._send(head)
        if self._wants_body and response.status not in NO_BODY_STATUSES and len(response.body):
            self._send_body(response.body)
        self._send(h11.EndOfMessage())

    def _send(self, event: Any) -> None:
        if data := self._http.send(event):
            self._conn.write(data)

    def _send_body(self, body: Any) -> None:
        # h11 frames whatever has a length and passes it on, so that no file has to be read.
        for part in self._http.send_with_data_passthrough(h11.Data(data=body)) or ():
            if isinstance(part, FileBody):
                self._send_file(part)
            else:
                self._conn.write(part)

    def _send_file(self, body: FileBody) -> None:
        if body.length <= MAX_COPIED_BYTES:
            data = os.pread(body.file.fileno(), body.length, body.offset)
            count = self._conn.write(data)
        else:
            count = self._conn.sendfile(body.file, body.offset, body.length)
        if count != body.length:
            raise BrokenPipeError("the file has become shorter than its head says")

    def _refuse(self, status: int) -> None:
        """Answer what is no request that could be responded to, as the last."""
        response = make_error(status)
        self._send_response(_make_head(response, is_last=True), response)
        self._see_off()

    def _see_off(self) -> None:
        """End the stream, then read on until the client has seen it."""
        self._conn.shutdown(socket.SHUT_WR)
        discarded = 0
        with suppress(OSError), time_limit(DISCARD_SECONDS):
            while discarded < MAX_DISCARDED_BYTES and (data := self._conn.recv(RECEIVE_BYTES)):
                discarded += len(data)  # not reached: a client that sends on


def make_error(status: int, headers: Headers = ()) -> Response:
    """Return a response that says in one line what its status means."""
    text = f"{status} {responses[status]}\n"
    content_type = ("Content-Type", "text/plain; charset=utf-8")
    return Response(status, [content_type, *headers], text.encode("ascii"))


def _make_head(response: Response, *, is_last: bool) -> h11.Response:
    """Return a response's head; raises what h11 does if HTTP cannot say it."""
    headers = [*response.headers, ("Date", format_date(int(time.time())))]
    if response.status not in NO_BODY_STATUSES:
        headers.append(("Content-Length", str(len(response.body))))
    if is_last:
        headers.append(("Connection", "close"))
    reason = responses.get(response.status, "")
    return h11.Response(status_code=response.status, headers=headers, reason=reason)


def _let_go(body: bytes | FileBody) -> None:
    if isinstance(body, FileBody):
        body.file.close()


@functools.lru_cache(1024)
def format_date(seconds: int) -> str:
    """Return a time as HTTP writes it."""
    return formatdate(seconds, usegmt=True)
