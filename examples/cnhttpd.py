#!/usr/bin/env python3
"""cnhttpd: a small web server, every client a straight-line coroutine.

    cnhttpd.py -p 8080 -r /srv/www

It answers GET and HEAD: `/mem-N` with N bytes out of memory, to measure with, and
everything else with the documents below ROOTFS. It takes no requests with a body.
Connections stay open as the HTTP version and the `Connection` header ask, an idle one for
ever. Ctrl-C ends the server and prints what it has done.

The options, routes, counters and exit codes are those of coronet's cnhttpd: 0 ended by
Ctrl-C, 1 usage or start, 2 socket, 3 bind, 4 coroutine.
"""

from __future__ import annotations

import getopt
import mimetypes
import os
import signal
import socket
import stat
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

from pycoronet import LineTooLongError, get_hub, serve, shield, sk_conn, spawn, to_thread

USAGE = """\
Use: {program} [-p PORT (80)] [-b ADDRESS (0.0.0.0)] [-r ROOTFS ('.')]
\t[-L LSNBKLOG (1024)] [-S STKSIZE] [-h]

  -p PORT      port to listen on; 0 takes a free one
  -b ADDRESS   address or name to listen on; 0.0.0.0 is all interfaces, :: IPv6 too
  -r ROOTFS    folder with the documents
  -L LSNBKLOG  how many connections may wait to be accepted
  -S STKSIZE   has no effect: stacks grow by themselves here
  -h           print this
"""

# A head and body that fit this leave in one write; longer bodies leave in such chunks.
CHUNK_SIZE = 8 * 1024
MAX_LINE_SIZE = 8 * 1024
HEADER_LINES = range(100)  # made once, since a range costs more than a turn of its loop

# A file is read in blocks. Up to the second size it is read on the spot: handing a block to
# a thread and back costs more than copying it. Larger ones may have to come off a slow disk.
BLOCK_SIZE = 64 * 1024
MAX_SIZE_READ_ON_THE_SPOT = 256 * 1024

# N of /mem-N may have so many digits: a Content-Length that clients can hold.
MAX_DIGITS = 18

# After an error so much of what the client is still sending is thrown away, and for so
# long: closing on unread bytes resets the connection, and the reply might get lost in it.
MAX_DISCARDED_BYTES = 1024 * 1024
DISCARD_SECONDS = 2

# Text, so that it may be looked at in a terminal.
MEMORY = (b"Sixty-three bytes of text, over and over, and then a line feed\n" * 131)[:CHUNK_SIZE]

LETTERS = b"abcdefghijklmnopqrstuvwxyz"
NAME_CHARACTERS = LETTERS + LETTERS.upper() + b"0123456789!#$%&'*+-.^_`|~"
# No header that we heed begins with one of these, so most need no closer look.
UNHEEDED_INITIALS = frozenset(LETTERS + LETTERS.upper()) - frozenset(b"CcTt")
# As a number: given a bytes object, `in` tries it as a number first and raises inside.
COLON = ord(":")

REASONS = {
    200: b"OK",
    400: b"Bad Request",
    403: b"Forbidden",
    404: b"Not Found",
    431: b"Request Header Fields Too Large",
    500: b"Internal Server Error",
}

HAS_CORK = hasattr(socket, "TCP_CORK")


@dataclass(slots=True)
class Statistics:
    """What is printed in the end."""

    connections: int = 0
    requests: int = 0
    total_bytes: int = 0

    def __str__(self) -> str:
        return (
            f"Connections .....: {self.connections}\n"
            f"Requests ........: {self.requests}\n"
            f"Total Bytes .....: {self.total_bytes}"
        )


@dataclass(slots=True)
class Options:
    """What the command line says."""

    port: int = 80
    address: str = "0.0.0.0"
    root: Path = Path()
    backlog: int = 1024


class UsageError(Exception):
    """The command line cannot be understood, or asks for help."""


class StartError(Exception):
    """The server cannot start."""

    def __init__(self, text: str, exit_code: int) -> None:
        super().__init__(text)
        self.exit_code = exit_code


class RequestError(Exception):
    """The request is answered with an error status."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


@dataclass(slots=True)
class Request:
    """A request line, and the reply to it if that is short and always the same."""

    method: bytes
    target: bytes
    stays: bool  # the client, as far as this line says
    replies: tuple[bytes, bytes] | None = None  # to who leaves, and to who stays
    body_size: int = 0


statistics = Statistics()
options = Options()

# Requests for short /mem-N, by request line. A full table starts again.
short_requests: dict[bytes, Request] = {}
MAX_SHORT_REQUESTS = 64


# --- Requests ---------------------------------------------------------------------------


def serve_client(conn: sk_conn, address: Any) -> None:
    """Answer one client's requests, until one of us wants no more."""
    statistics.connections += 1
    # What ends a connection without a word concerns this client alone.
    with suppress(OSError):
        try:
            answer_requests(conn)
        except RequestError as error:
            refuse(conn, error.status)
        except LineTooLongError:
            refuse(conn, 431)


def answer_requests(conn: sk_conn) -> None:
    """Read and answer, read and answer.

    Raises RequestError for anything but a well-formed request without a body.
    """
    readline = conn.readline
    stays = True
    while stays and (line := readline(MAX_LINE_SIZE)):
        request = short_requests.get(line) or parse_request_line(line)
        statistics.requests += 1
        stays = request.stays
        for _ in HEADER_LINES:
            line = readline(MAX_LINE_SIZE)
            if line == b"\r\n":
                break
            if COLON not in line or line[0] not in UNHEEDED_INITIALS:
                stays = heed_header(line, stays)
        else:
            raise RequestError(431)
        if request.replies is not None:
            conn.write(request.replies[stays])
            statistics.total_bytes += request.body_size
        elif request.target.startswith(b"/mem-"):
            send_memory(conn, request, stays)
        else:
            send_document(conn, request, stays)


def parse_request_line(line: bytes) -> Request:
    """Take a request line apart."""
    try:
        method, target, version = line.split()
    except ValueError:
        raise RequestError(400) from None
    method = method.upper()
    if method not in (b"GET", b"HEAD") or version not in (b"HTTP/1.1", b"HTTP/1.0"):
        raise RequestError(400)
    return Request(method, target, version == b"HTTP/1.1")


def heed_header(line: bytes, stays: bool) -> bool:
    """Look closer at a header; return whether the client stays as far as it is known now."""
    name, colon, value = line.partition(b":")
    # "Content-Length :" must not pass for a header that means nothing to us.
    if not colon or not name or name.translate(None, NAME_CHARACTERS):
        raise RequestError(400)
    name = name.lower()
    value = value.strip().lower()
    if name == b"connection":
        words = [word.strip() for word in value.split(b",")]
        return b"close" not in words and (stays or b"keep-alive" in words)
    if name == b"transfer-encoding":
        raise RequestError(400)
    if name == b"content-length" and (not value or value.strip(b"0")):
        raise RequestError(400)
    return stays


# --- Replies ----------------------------------------------------------------------------


def make_head(status: int, stays: bool, size: int, content_type: str = "") -> bytes:
    """Return the head of a reply, blank line and all."""
    return b"HTTP/1.1 %d %b\r\nConnection: %b\r\n%bContent-Length: %d\r\n\r\n" % (
        status,
        REASONS[status],
        b"keep-alive" if stays else b"close",
        b"Content-Type: %b\r\n" % content_type.encode() if content_type else b"",
        size,
    )


def refuse(conn: sk_conn, status: int) -> None:
    """Send an error, then read on until the client has seen it."""
    conn.write(make_head(status, False, 0))
    conn.shutdown(socket.SHUT_WR)
    conn.set_timeo(DISCARD_SECONDS)
    discarded = 0
    while discarded < MAX_DISCARDED_BYTES and (data := conn.readsome(BLOCK_SIZE)):
        discarded += len(data)


def set_cork(conn: sk_conn, is_on: bool) -> None:
    """Have TCP send full segments only, or again everything at once; for long bodies."""
    if HAS_CORK:
        conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, is_on)


def send_memory(conn: sk_conn, request: Request, stays: bool) -> None:
    """Answer /mem-N with N bytes, or with 404 if that is no number."""
    digits = request.target[len(b"/mem-") :].partition(b"?")[0]
    if not digits.isdigit() or len(digits) > MAX_DIGITS:
        conn.write(make_head(404, stays, 0))
        return
    size = int(digits)
    head = make_head(200, stays, size, "text/plain")
    if request.method == b"HEAD":
        conn.write(head)
    elif len(head) + size <= CHUNK_SIZE:
        conn.write(head + MEMORY[:size])
        statistics.total_bytes += size
        remember(request, size)
    else:
        set_cork(conn, True)
        conn.write(head)
        for _ in range(size // CHUNK_SIZE):
            statistics.total_bytes += conn.write(MEMORY)
        statistics.total_bytes += conn.write(MEMORY[: size % CHUNK_SIZE])
        set_cork(conn, False)


def remember(request: Request, size: int) -> None:
    """Keep the replies to a request for `size` bytes, for the next time it comes."""
    leaving, staying = (make_head(200, stays, size, "text/plain") for stays in (False, True))
    request.replies = leaving + MEMORY[:size], staying + MEMORY[:size]
    request.body_size = size
    if len(short_requests) >= MAX_SHORT_REQUESTS:
        short_requests.clear()
    version = b"HTTP/1.1" if request.stays else b"HTTP/1.0"
    short_requests[b"GET %b %b\r\n" % (request.target, version)] = request


# --- Documents --------------------------------------------------------------------------


def send_document(conn: sk_conn, request: Request, stays: bool) -> None:
    """Answer with a file below the root, or with the reason why not."""
    if not request.target.startswith(b"/"):
        raise RequestError(400)  # here it is the request that is bad, so it goes further up
    try:
        path = find_document(request.target)
        # For the file that has just been found these flags mean nothing; they are there for
        # what may have taken its place since. Opening a FIFO must not stop the server.
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except RequestError as error:
        conn.write(make_head(error.status, stays, 0))
        return
    except PermissionError:
        conn.write(make_head(403, stays, 0))
        return
    except OSError:
        conn.write(make_head(500, stays, 0))
        return
    try:
        send_file(conn, file, get_content_type(path), stays, request.method == b"GET")
    finally:
        os.close(file)


def find_document(target: bytes) -> Path:
    """Return the regular file that a target names; a folder stands for its index.html.

    Raises RequestError: 403 for what is outside the root or is no regular file, 404 for
    what is not there.
    """
    name = unquote_to_bytes(target.partition(b"?")[0])
    if b"\0" in name:
        raise RequestError(403)
    # Joined to a folder, a name that begins with a slash would replace it.
    path = resolve(options.root / os.fsdecode(name.lstrip(b"/")))
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            path = resolve(path / "index.html")
            mode = path.stat().st_mode
    except PermissionError:
        raise RequestError(403) from None
    except OSError:
        raise RequestError(404) from None
    if not stat.S_ISREG(mode):
        raise RequestError(403)
    return path


def resolve(path: Path) -> Path:
    """Return where a path leads, ".." and links followed, if that is below the root."""
    try:
        path = path.resolve()
    except (OSError, RuntimeError):  # links that lead in a circle
        raise RequestError(404) from None
    if not path.is_relative_to(options.root):
        raise RequestError(403)
    return path


def get_content_type(path: Path) -> str:
    """Return what a file's name says about its content."""
    content_type, encoding = mimetypes.guess_type(path.name)
    if encoding is not None:
        # Named after the packing: a client that is told of both unpacks what it stores.
        return "application/gzip" if encoding == "gzip" else "application/octet-stream"
    if content_type is None:
        return "application/octet-stream"
    return content_type + "; charset=utf-8" if content_type.startswith("text/") else content_type


def send_file(conn: sk_conn, file: int, content_type: str, stays: bool, with_body: bool) -> None:
    """Answer with the content of an open file."""
    status = os.fstat(file)
    if not stat.S_ISREG(status.st_mode):
        conn.write(make_head(403, stays, 0))
        return
    size = status.st_size
    head = make_head(200, stays, size, content_type)
    if not with_body:
        conn.write(head)
    elif len(head) + size <= CHUNK_SIZE:
        body = os.read(file, size)
        conn.write(make_head(200, stays, len(body), content_type) + body)
        statistics.total_bytes += len(body)
    else:
        set_cork(conn, True)
        conn.write(head)
        left = size
        while left > 0:
            block = read_block(file, min(left, BLOCK_SIZE), size)
            if not block:
                raise ConnectionAbortedError("the file became shorter than its head says")
            left -= conn.write(block)
            statistics.total_bytes += len(block)
        set_cork(conn, False)


def read_block(file: int, block_size: int, file_size: int) -> bytes:
    """Read a block of a file, in a thread if that may take its time."""
    if file_size <= MAX_SIZE_READ_ON_THE_SPOT:
        return os.read(file, block_size)
    # Shielded, so that the descriptor is not closed, and its number used again, meanwhile.
    with shield():
        return to_thread(os.read, file, block_size)


# --- The program ------------------------------------------------------------------------


def read_options(arguments: list[str]) -> None:
    """Store the command line in `options`; raises UsageError."""
    try:
        found, others = getopt.getopt(arguments, "p:b:r:L:S:h")
        for letter, value in found:
            if letter == "-p":
                options.port = read_number(value, 65535)
            elif letter == "-b":
                options.address = value
            elif letter == "-r":
                options.root = Path(value)
            elif letter == "-L":
                options.backlog = read_number(value, 2**31 - 1)
            elif letter == "-S":
                read_number(value, 2**31 - 1)
            else:
                raise UsageError
    except getopt.GetoptError as error:
        raise UsageError(str(error)) from None
    if others:
        raise UsageError(f"what is {others[0]!r}?")


def read_number(text: str, maximum: int) -> int:
    """Convert an option's value; raises UsageError."""
    try:
        number = int(text)
    except ValueError:
        number = -1
    if not 0 <= number <= maximum:
        raise UsageError(f"not a number from 0 to {maximum}: {text!r}")
    return number


def open_listener() -> socket.socket:
    """Return a listening socket; raises StartError."""
    address = options.address
    try:
        family, kind, protocol, _, bound_to = socket.getaddrinfo(
            address, options.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except socket.gaierror as error:
        raise StartError(f"bind {address}: {error.strerror}", 3) from None
    try:
        sock = socket.socket(family, kind, protocol)
    except OSError as error:
        raise StartError(f"socket: {error.strerror}", 2) from None
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(bound_to)
        sock.listen(options.backlog)
    except OSError as error:
        sock.close()
        raise StartError(f"bind {address} port {options.port}: {error.strerror}", 3) from None
    return sock


def start() -> None:
    """Serve until Ctrl-C; raises StartError if it does not come to that."""
    mimetypes.init()  # reads files, so not while serving
    try:
        options.root = options.root.resolve(strict=True)
        get_hub()
    except OSError as error:
        raise StartError(str(error), 1) from None
    listener = open_listener()
    host, port = listener.getsockname()[:2]
    conn = sk_conn(listener)
    try:
        acceptor = spawn(serve, conn, serve_client)
    except (OSError, MemoryError) as error:
        conn.close()
        raise StartError(f"cannot create a coroutine: {error}", 4) from None
    shown_host = f"[{host}]" if ":" in host else host
    print(f"cnhttpd: {options.root} is at http://{shown_host}:{port}/", file=sys.stderr, flush=True)
    acceptor.get()


def main(arguments: list[str]) -> int:
    """Run the program and return its exit code."""
    # Also where the shell has started us with the signal ignored, in the background.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        read_options(arguments[1:])
        start()
    except UsageError as error:
        if str(error):
            print(f"cnhttpd: {error}", file=sys.stderr)
        print(USAGE.format(program=arguments[0]), end="", file=sys.stderr)
        return 1
    except StartError as error:
        print(f"cnhttpd: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        get_hub().close()
    print(statistics)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
