#!/usr/bin/env python3
"""cnhttpload: a load generator for web servers, every connection a coroutine.

    cnhttpload.py -s 127.0.0.1 -p 8080 -n 100 -M 10000 -r 10 /mem-100 /mem-2000

It keeps NCON connections open, of which NACTIVE at a time send requests. Each connection
sends NREQS requests for one URL, the next connection takes the next URL. While it runs it
shows a table, redrawn in place in a terminal, line after line into a pipe or file:

    CONNS    connections being made, open, or waiting for their turn
    ACTIVE   of these, the ones that send requests
    TRESP    responses so far            RESPSEC  responses a second
    TBYTES   bytes of their bodies       BYTESEC  bytes a second

The rates are moving averages. Ctrl-C lets what has begun come to its end; a second one
ends at once. The options, table and error list are those of coronet's cnhttpload. Exit
codes: 0 done, 1 usage, 2 unknown host.
"""

from __future__ import annotations

import getopt
import signal
import socket
import sys
import time
from collections import Counter, deque
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from pycoronet import LineTooLongError, Task, get_hub, getaddrinfo, sk_conn, sleep, spawn

USAGE = """\
Use: {program} -s HOST -n NCON [-p PORT (80)] [-r NREQS (1)] [-S STKSIZE]
\t[-M MAXCONNS (0)] [-t TMUPD (1000)] [-a NACTIVE (NCON)] [-T TMSAMP (200)] [-h] URL ...

  -s HOST      the server's name or address
  -n NCON      how many connections to keep open
  -p PORT      the server's port
  -r NREQS     requests on each connection
  -M MAXCONNS  end after so many connections; 0: go on until Ctrl-C
  -a NACTIVE   how many connections may send requests at a time
  -t TMUPD     milliseconds between lines of the table
  -T TMSAMP    milliseconds between samples of the rates
  -S STKSIZE   has no effect: stacks grow by themselves here
  -h           print this
"""

BLOCK_SIZE = 64 * 1024
MAX_HEADER_LINES = 1000
MAX_NUMBER = 2**31 - 1

# A sample counts for one part, what was before for so many.
PAST_WEIGHT = 3

# While the system is short of descriptors or ports, trying at once again gets nowhere.
SHORTAGE_PAUSE_SECONDS = 0.1

# In the order in which they are listed.
ERROR_KINDS = (
    "Network",
    "Coroutines",
    "Connect",
    "Read",
    "Write",
    "Protocol",
    "HTTP 2xx",
    "HTTP 3xx",
    "HTTP 4xx",
    "HTTP 5xx",
)

COLUMNS = ("{:>9}", "{:>9}", "{:>9}", "{:>12}", "{:>9}", "{:>12}")
ROW = "  ".join(COLUMNS)


class UsageError(Exception):
    """The command line cannot be understood, or asks for help."""


class SessionError(Exception):
    """A session cannot go on; the message is the kind of error to count."""


@dataclass
class Options:
    """What the command line says."""

    host: str = ""
    port: int = 80
    connections: int = 0
    requests: int = 1
    max_connections: int = 0
    max_active: int = 0
    update_ms: int = 1000
    sample_ms: int = 200
    urls: list[str] = field(default_factory=list)


@dataclass
class Response:
    """The head of a response, as far as it matters here."""

    code: int
    size: int | None = None  # None: it ends with the connection
    is_chunked: bool = False
    stays: bool | None = None  # None: the server did not say


# --- The table --------------------------------------------------------------------------


class Rate:
    """A moving average of how fast a count grows, and its peak."""

    def __init__(self) -> None:
        self.value = 0.0
        self.peak = 0.0
        self._last_count = 0

    def sample(self, count: int, seconds: float) -> None:
        """Take in what a count has come to, so long after the last time."""
        now = (count - self._last_count) / seconds
        self.value = (now + PAST_WEIGHT * self.value) / (PAST_WEIGHT + 1)
        self.peak = max(self.peak, self.value)
        self._last_count = count


class Table:
    """The live table: in a terminal one line that changes, elsewhere a line each time."""

    def __init__(self) -> None:
        self._is_terminal = sys.stdout.isatty()
        print(ROW.format("CONNS", "ACTIVE", "TRESP", "TBYTES", "RESPSEC", "BYTESEC"), flush=True)

    def show(self, load: Load) -> None:
        """Show how things stand."""
        row = ROW.format(
            load.live,
            load.active,
            load.responses,
            load.body_bytes,
            f"{load.response_rate.value:.1f}",
            f"{load.byte_rate.value:.1f}",
        )
        if self._is_terminal:
            print(f"\r{row}\x1b[K", end="", flush=True)
        else:
            print(row, flush=True)

    def end(self) -> None:
        """Leave the line that has been redrawn."""
        if self._is_terminal:
            print()


# --- The load ---------------------------------------------------------------------------


class Load:
    """All sessions, and what they have brought in."""

    def __init__(self, options: Options, family: int, address: Any) -> None:
        self.options = options
        self.live = 0
        self.active = 0
        self.total = 0
        self.responses = 0
        self.body_bytes = 0
        self.errors: Counter[str] = Counter()
        self.response_rate = Rate()
        self.byte_rate = Rate()
        self._family = family
        self._address = address
        self._max_active = options.max_active or options.connections
        self._waiting: deque[sk_conn] = deque()
        self._next_url = 0
        self._is_stopping = False
        self._requests = [make_requests(options, url) for url in options.urls]
        self._ticker: Task | None = None

    def run(self) -> None:
        """Run all sessions, until they are over or two interrupts have come."""
        self._ticker = spawn(self._tick)
        with suppress(KeyboardInterrupt):
            try:
                self._start_sessions()
                self._ticker.join()
            except KeyboardInterrupt:
                self._drain()
        get_hub().close()

    def _drain(self) -> None:
        """Begin nothing more, and wait for the sessions that send requests."""
        self._is_stopping = True
        while self._waiting:
            self._waiting.popleft().close()
            self.live -= 1
        self._end_if_idle()
        if self._ticker is not None:
            self._ticker.join()

    def _start_sessions(self) -> None:
        """Make up for the sessions that have ended."""
        options = self.options
        while (
            not self._is_stopping
            and self.live < options.connections
            and (options.max_connections == 0 or self.total < options.max_connections)
        ):
            try:
                spawn(self._open)
            except MemoryError:
                self.errors["Coroutines"] += 1
                self._is_stopping = True
                break
            self.live += 1
            self.total += 1
        self._end_if_idle()

    def _end_if_idle(self) -> None:
        if self.live == 0 and self._ticker is not None:
            self._ticker.cancel()

    def _open(self) -> None:
        """Begin a session: connect, and take a place in the queue."""
        try:
            conn = self._connect()
        except SessionError as error:
            self.errors[str(error)] += 1
            self._end_session()
            return
        if self._is_stopping:
            conn.close()
            self._end_session()
        else:
            self._waiting.append(conn)
            self._activate()

    def _connect(self) -> sk_conn:
        try:
            conn = sk_conn(socket.socket(self._family, socket.SOCK_STREAM))
        except OSError:
            sleep(SHORTAGE_PAUSE_SECONDS)
            raise SessionError("Network") from None
        try:
            conn.connect(self._address)
        except BaseException as error:
            conn.abort()
            if isinstance(error, OSError):
                raise SessionError("Connect") from None
            raise
        return conn

    def _activate(self) -> None:
        """Let waiting connections have the places that are free."""
        while self._waiting and self.active < self._max_active:
            conn = self._waiting.popleft()
            try:
                spawn(self._use, conn)
            except MemoryError:
                self.errors["Coroutines"] += 1
                conn.close()
                self.live -= 1
            else:
                self.active += 1

    def _use(self, conn: sk_conn) -> None:
        """Go on with a session: send the requests, and leave the place to others."""
        try:
            with conn:
                self._send_requests(conn)
        except SessionError as error:
            self.errors[str(error)] += 1
        finally:
            # However it ends: a place that is not given back is lost for the whole run.
            self.active -= 1
            self._end_session()

    def _end_session(self) -> None:
        self.live -= 1
        self._activate()
        self._start_sessions()

    def _send_requests(self, conn: sk_conn) -> None:
        keeping, closing = self._requests[self._next_url]
        self._next_url = (self._next_url + 1) % len(self._requests)
        for number in range(1, self.options.requests + 1):
            if self._is_stopping:
                return
            try:
                conn.write(keeping if number < self.options.requests else closing)
            except OSError:
                raise SessionError("Write") from None
            try:
                response = read_head(conn)
                self.responses += 1
                self._read_body(conn, response)
            except OSError:
                raise SessionError("Read") from None
            except LineTooLongError:
                raise SessionError("Protocol") from None
            self.errors[f"HTTP {response.code // 100}xx"] += 1
            if response.stays is False or response.size is None:
                return

    def _read_body(self, conn: sk_conn, response: Response) -> None:
        if response.is_chunked or (response.size is None and response.stays):
            raise SessionError("Protocol")
        left = response.size
        while left is None or left > 0:
            data = conn.readsome(BLOCK_SIZE if left is None else min(left, BLOCK_SIZE))
            if not data:
                if left is None:
                    return
                raise SessionError("Read")
            self.body_bytes += len(data)
            if left is not None:
                left -= len(data)

    # The table and the rates.

    def _tick(self) -> None:
        """Sample the rates and show the table until the last session has ended."""
        table = Table()
        sampled = shown = time.monotonic()
        has_sample = False
        try:
            while True:
                sleep(self.options.sample_ms / 1000)
                now = time.monotonic()
                self._sample(now - sampled)
                sampled, has_sample = now, True
                if (now - shown) * 1000 >= self.options.update_ms:
                    table.show(self)
                    shown = now
        finally:
            # The last row has everything; a run shorter than a sample is one sample.
            seconds = time.monotonic() - sampled
            if not has_sample and seconds > 0:
                self._sample(seconds)
            table.show(self)
            table.end()

    def _sample(self, seconds: float) -> None:
        self.response_rate.sample(self.responses, seconds)
        self.byte_rate.sample(self.body_bytes, seconds)

    def print_summary(self) -> None:
        """Print the peaks, and on stderr how often what happened."""
        print(
            f"\nPeak Connection Rate ....: {self.response_rate.peak:11.1f} conn/sec\n"
            f"Peak Transfer Rate ......: {self.byte_rate.peak:11.1f} bytes/sec",
            flush=True,
        )
        print("\nError list:", file=sys.stderr)
        for kind in ERROR_KINDS:
            print(f"\t{kind:<12}  {self.errors[kind]}", file=sys.stderr)


# --- HTTP -------------------------------------------------------------------------------


def make_requests(options: Options, url: str) -> tuple[bytes, bytes]:
    """Return the request for a URL that keeps the connection, and the one that ends it."""
    host = f"[{options.host}]" if ":" in options.host else options.host
    if options.port != 80:
        host += f":{options.port}"
    request = f"GET {url} HTTP/1.1\r\nHost: {host}\r\nConnection: {{}}\r\nContent-Length: 0\r\n\r\n"
    keeping, closing = (request.replace("{}", word) for word in ("keep-alive", "close"))
    return keeping.encode(), closing.encode()


def read_head(conn: sk_conn) -> Response:
    """Read a response up to its blank line; raises SessionError for what is none."""
    words = read_line(conn).split(None, 2)
    if len(words) < 2 or not words[0].startswith(b"HTTP/") or not words[1].isdigit():
        raise SessionError("Protocol")
    code = int(words[1][:4])
    if not 200 <= code < 600:
        raise SessionError("Protocol")
    response = Response(code)
    for _ in range(MAX_HEADER_LINES):
        line = read_line(conn)
        if line in (b"\r\n", b"\n"):
            if code in (204, 304):
                response.size = 0  # these never have a body
            return response
        read_header(response, line)
    raise SessionError("Protocol")


def read_line(conn: sk_conn) -> bytes:
    """Read a whole line."""
    line = conn.readln()
    if not line.endswith(b"\n"):
        raise SessionError("Read")  # the stream has ended
    return line


def read_header(response: Response, line: bytes) -> None:
    """Note what one header says."""
    name, _, value = line.partition(b":")
    name = name.lower()
    value = value.strip().lower()
    if name == b"content-length":
        if not value.isdigit() or len(value) > 18:
            raise SessionError("Protocol")
        response.size = int(value)
    elif name == b"transfer-encoding":
        response.is_chunked = b"chunked" in value
    elif name == b"connection":
        response.stays = b"close" not in value


# --- The program ------------------------------------------------------------------------


def read_options(arguments: list[str]) -> Options:
    """Read the command line; raises UsageError."""
    options = Options()
    try:
        found, options.urls = getopt.getopt(arguments, "s:n:p:r:S:M:a:t:T:h")
    except getopt.GetoptError as error:
        raise UsageError(str(error)) from None
    for letter, value in found:
        if letter == "-s":
            options.host = value
        elif letter == "-n":
            options.connections = read_number(value, 1)
        elif letter == "-p":
            options.port = read_number(value, 1, 65535)
        elif letter == "-r":
            options.requests = read_number(value, 1)
        elif letter == "-S":
            read_number(value, 0)
        elif letter == "-M":
            options.max_connections = read_number(value, 0)
        elif letter == "-a":
            options.max_active = read_number(value, 0)
        elif letter == "-t":
            options.update_ms = read_number(value, 1)
        elif letter == "-T":
            options.sample_ms = read_number(value, 1)
        else:
            raise UsageError
    if not options.host or not options.connections or not options.urls:
        raise UsageError("-s HOST, -n NCON and a URL are needed")
    for url in options.urls:
        if not url or not url.isascii() or not url.isprintable() or " " in url:
            raise UsageError(f"not a URL: {url!r}")
    return options


def read_number(text: str, minimum: int, maximum: int = MAX_NUMBER) -> int:
    """Convert an option's value; raises UsageError."""
    try:
        number = int(text)
    except ValueError:
        number = -1
    if not minimum <= number <= maximum:
        raise UsageError(f"not a number from {minimum} to {maximum}: {text!r}")
    return number


def main(arguments: list[str]) -> int:
    """Run the program and return its exit code."""
    # Also where the shell has started us with the signal ignored, in the background.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        options = read_options(arguments[1:])
    except UsageError as error:
        if str(error):
            print(f"cnhttpload: {error}", file=sys.stderr)
        print(USAGE.format(program=arguments[0]), end="", file=sys.stderr)
        return 1
    try:
        found = getaddrinfo(options.host, options.port, type=socket.SOCK_STREAM)
    except OSError:
        print(f"Unable to resolve: {options.host}", file=sys.stderr)
        return 2
    # IPv4 first, as cnhttpd listens if it is not told otherwise.
    family, _, _, _, address = min(found, key=lambda entry: entry[0] != socket.AF_INET)
    load = Load(options, family, address)
    load.run()
    load.print_summary()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
