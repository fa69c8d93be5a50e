"""Small programs that do all there is to be done with system calls, and give what they got.

Each is called with a folder that has what it needs, and returns the same value each time. It
ends in any case: whoever waits is cancelled when somebody fails.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import hashlib
import os
import signal
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

from certificates import Certificates

from pycoronet import (
    READ,
    Event,
    Protocol,
    Server,
    TaskGroup,
    aio,
    connect,
    get_hub,
    getaddrinfo,
    listen,
    notify_closing,
    once,
    serve,
    signal_handler,
    sk_conn,
    sleep,
    subprocess,
    to_thread,
    wait_readable,
)

__all__ = ["SCENARIOS", "causes", "noted", "parts", "prepare", "reported"]

LOCAL = ("127.0.0.1", 0)
CONTENT = bytes(range(256)) * 4000  # more than a socket takes at once
LINES = [b"line %d\n" % number for number in range(40)]


def prepare(folder: Path, *, has_tls: bool = False) -> None:
    """Write the files that the scenarios need."""
    if has_tls:
        Certificates(folder)
    (folder / "file").write_bytes(CONTENT)


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _read_all(conn: Any) -> bytes:
    pieces = []
    while piece := conn.recv(65536):
        pieces.append(piece)
    return b"".join(pieces)


def _echo_one(listener: Any, context: ssl.SSLContext | None = None) -> None:
    conn, _ = listener.accept()
    with conn:
        if context is not None:
            conn.start_tls(context, server_side=True)
        while data := conn.recv(65536):
            conn.sendall(data)


def _exchange(conn: Any, *, is_tls: bool = False) -> str:
    """Send everything while it comes back; return what came."""

    def send() -> None:
        conn.sendall(CONTENT)
        if not is_tls:
            conn.shutdown(socket.SHUT_WR)

    with TaskGroup() as group:
        group.spawn(send)
        received = conn.read_exactly(len(CONTENT)) if is_tls else _read_all(conn)
    return _digest(received)


def _echo(address: Any) -> str:
    with listen(address) as listener, TaskGroup() as group:
        group.spawn(_echo_one, listener)
        with connect(listener.getsockname()) as conn:
            return _exchange(conn)


def echo_over_tcp(folder: Path) -> str:
    return _echo(LOCAL)


def echo_over_unix(folder: Path) -> str:
    path = folder / "socket"
    path.unlink(missing_ok=True)
    return _echo(str(path))


def lines_and_options(folder: Path) -> Any:
    """Lines that are gathered before they are sent; names and options of sockets."""

    def answer(listener: Any) -> None:
        conn, _ = listener.accept()
        with conn:
            conn.buffered = True
            for line in conn:
                conn.write(line)
            conn.flush()

    with listen(LOCAL) as listener, TaskGroup() as group:
        group.spawn(answer, listener)
        with connect(listener.getsockname(), timeout=60) as conn:
            conn.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            is_alive = conn.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            is_same = conn.getpeername() == listener.getsockname()
            for line in LINES:
                conn.enqueue(line)
            conn.flush()
            conn.shutdown(socket.SHUT_WR)
            return list(conn), is_alive, is_same


def echo_over_tls(folder: Path) -> str:
    server, client = map(ssl.SSLContext, (ssl.PROTOCOL_TLS_SERVER, ssl.PROTOCOL_TLS_CLIENT))
    server.load_cert_chain(folder / "server.pem")
    client.load_verify_locations(folder / "authority.pem")
    with listen(LOCAL) as listener, TaskGroup() as group:
        group.spawn(_echo_one, listener, server)
        with connect(listener.getsockname(), tls=client, server_hostname="localhost") as conn:
            return _exchange(conn, is_tls=True)


def sendfile(folder: Path) -> list[str]:
    """Send a file by the system's call, and, where that refuses to, by reading it."""
    results = []
    for is_refused in (False, True):
        left, right = socket.socketpair()
        if is_refused:
            flags = fcntl.fcntl(left, fcntl.F_GETFL)
            fcntl.fcntl(left, fcntl.F_SETFL, flags | os.O_APPEND)
        with _closing([left, right]) as adopt, adopt(right) as target, TaskGroup() as group:
            group.spawn(_send_file, adopt(left), folder / "file")
            results.append(_digest(_read_all(target)))
    return results


def _send_file(conn: Any, path: Path) -> None:
    with conn, path.open("rb") as file:
        conn.sendfile(file)
        conn.write(b"end")


def pipes(folder: Path) -> Any:
    """Do what pipes do otherwise than sockets, and write to a reader that is gone."""
    reading, writing = os.pipe()
    with _closing([reading, writing]) as adopt, adopt(reading) as source, TaskGroup() as group:
        group.spawn(_gather, adopt(writing))
        received = _read_all(source)
    left, right = socket.socketpair()
    with _closing([left, right]) as adopt:
        conn = adopt(left)
        adopt(right).abort()
        try:
            _send_file(conn, folder / "file")
        except BrokenPipeError:
            return received, "broken"
    raise AssertionError("nobody reads it")


def _gather(conn: Any) -> None:
    with conn:
        for line in LINES:
            conn.enqueue(line)
        conn.flush()


def questions(folder: Path) -> Any:
    """Ask: who computes, which interface, what is ready now."""
    hub = get_hub()
    hub.wait(0)
    to_thread(hub._measure_cpu, True)
    to_thread(hub._measure_cpu, False)
    with sk_conn(_bound(socket.AF_INET6, "::1")) as one:
        one.sendto(b"packet", ("::1%lo", one.getsockname()[1]))
        wait_readable(one)
        packet = one.recvfrom(10)[0]
    left, right = socket.socketpair()
    with _closing([left, right]) as adopt, adopt(left) as conn, adopt(right) as peer:
        peer.write(b"abc")
        sleep(0)
        has_come = conn.wait_input()
        return packet, has_come, conn.read_exactly(3), _take_by_hand(conn, peer)


def _take_by_hand(conn: Any, peer: Any) -> bytes:
    """Have callbacks that receive for themselves, a little at a time, until the end."""
    received = []
    ended = Event()

    class ByHand(Heeding):
        def on_data(self, conn: Any) -> None:
            received.append(os.read(conn.fileno(), 2))

        def on_close(self, conn: Any) -> None:
            ended.set()

    with heeding_errors():
        conn.set_callbacks(ByHand(), receive=False)
        peer.write(b"abcdefgh")
        peer.close()
        ended.wait()
    return b"".join(received)


class Heeding(Protocol):
    """Callbacks that keep what they are told of."""

    errors: ClassVar[list[Exception]] = []

    def on_error(self, conn: Any, error: Exception, direction: int) -> None:
        self.errors.append(error)


@contextmanager
def heeding_errors() -> Iterator[None]:
    """Raise what callbacks were told of, unless the block raises itself."""
    Heeding.errors.clear()
    try:
        yield
    finally:
        if Heeding.errors:
            raise Heeding.errors.pop()


@contextmanager
def _closing(files: list[Any]) -> Iterator[Callable[[Any], Any]]:
    """Give a maker of connections of files; close those that have become none."""
    left = list(files)

    def adopt(file: Any) -> Any:
        conn = sk_conn(file)
        left.remove(file)
        return conn

    try:
        yield adopt
    finally:
        for file in left:
            if isinstance(file, int):
                os.close(file)
            else:
                file.close()


def _ask(address: Any) -> Any:
    with connect(address) as conn:
        for line in LINES:
            conn.write(line)
        conn.shutdown(socket.SHUT_WR)
        received = list(conn)
    if received != LINES:
        raise EOFError(f"{len(received)} lines of {len(LINES)}")
    return received


# Errors that a server counts, and tells nobody of.
noted: list[str] = []

# What was raised where nobody could catch it.
reported: list[BaseException | None] = []


def _serve_lines(strategy: str, handler: Any, **settings: Any) -> Any:
    server = Server(LOCAL, handler, strategy=strategy, **settings)
    try:
        with server, TaskGroup() as group:
            tasks = [group.spawn(_ask, server.addresses[0]) for _ in range(3)]
    finally:
        counts = {**server.stats.shed, **server.stats.errors}
        noted.extend(kind for kind, count in counts.items() if count)
    return [task.get() for task in tasks]


def _echo_lines(conn: Any, _: object) -> None:
    for line in conn:
        conn.write(line)


def _echo_what_is_there(conn: Any, _: object) -> None:
    conn.write(conn.take(65536))


def server_of_coroutines(folder: Path) -> Any:
    return _serve_lines("coroutine", _echo_lines)


def server_of_callbacks(folder: Path) -> Any:
    return _serve_lines("callback", _echo_what_is_there)


def server_of_threads(folder: Path) -> Any:
    return _serve_lines("threadpool", _echo_lines, poolsize_min=1, poolsize_max=2)


def accept_loop(folder: Path) -> Any:
    """serve(), and a listener with callbacks."""

    class Echo(Heeding):
        def on_data(self, conn: Any) -> None:
            conn.write(conn.take(65536))

    results = []
    with listen(LOCAL) as listener, TaskGroup() as group:
        server = group.spawn(serve, listener, _echo_lines)
        results.append(_ask(listener.getsockname()))
        results.append(_ask(listener.getsockname()))
        server.cancel()
    with heeding_errors(), listen(LOCAL) as listener:
        listener.set_callbacks(Echo())
        results.append(_ask(listener.getsockname()))
        results.append(_ask(listener.getsockname()))
    return results


def datagrams(folder: Path) -> Any:
    """Packets over UDP, and a descriptor in a message over a Unix socket."""
    with sk_conn(_bound()) as one, sk_conn(_bound()) as other, TaskGroup() as group:

        def answer() -> None:
            for _ in LINES:
                data, address = other.recvfrom(2048)
                other.sendto(data, address)

        group.spawn(answer)
        received = []
        for line in LINES:
            one.sendto(line, other.getsockname())
            received.append(one.recvfrom(2048)[0])
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with _closing([left, right]) as adopt, adopt(left) as sender, adopt(right) as receiver:
        with (folder / "file").open("rb") as file:
            rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, file.fileno().to_bytes(4, "little"))
            sender.sendmsg([b"take ", b"this"], [rights])
        data, ancillary, _, _ = receiver.recvmsg(100, socket.CMSG_SPACE(4))
        passed = [int.from_bytes(entry[2], "little") for entry in ancillary]
        for fd in passed:
            os.close(fd)
    return received, data, len(passed)


def _bound(family: int = socket.AF_INET, host: str = LOCAL[0]) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_DGRAM)
    try:
        sock.bind((host, 0))
    except BaseException:
        sock.close()
        raise
    return sock


def programs(folder: Path) -> Any:
    """Start a program, feed it, read from it and wait for it."""
    done = subprocess.run(["cat"], input=CONTENT, capture_output=True, timeout=60)
    if len(done.stdout) < len(CONTENT) and CONTENT.startswith(done.stdout):
        raise BrokenPipeError(errno.EPIPE, "it was not fed to the end, as if it had ended")
    with subprocess.Popen(["sh", "-c", "exit 3"]) as process:
        status = process.wait()
    return _digest(done.stdout), done.returncode, status


def forks(folder: Path) -> Any:
    """Fork in the middle of a hub's work; the child goes on with a hub of its own."""
    reading, writing = os.pipe()
    with _closing([reading, writing]) as adopt, adopt(reading) as result:
        sleep(0)
        child = os.fork()
        if child == 0:
            _tell_parent(writing)
        with adopt(writing):
            pass
        said = _read_all(result).decode()
        _, status = os.waitpid(child, 0)
    if said.startswith("errno "):
        raise OSError(int(said[6:]), "in the child")
    return said, status


def _tell_parent(writing: int) -> None:
    """Do something in the child, tell what came of it, and end."""
    status = 1
    try:
        said = _echo(LOCAL)
        status = 0
    except BaseException as error:
        numbers = [
            errno.ENOMEM if isinstance(each, MemoryError) else getattr(each, "errno", None)
            for each in (*reported, *causes(error))
        ]
        said = next((f"errno {number}" for number in numbers if number), repr(error))
    finally:
        os.write(writing, said.encode())
        os._exit(status)


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """Give an exception, what groups have in them, and what was being handled."""
    for each in parts(error):
        yield each
        for cause in (each.__cause__, each.__context__):
            if cause is not each:
                yield from causes(cause)


def parts(error: BaseException | None) -> Iterator[BaseException]:
    """Give an exception, or those that a group has in it."""
    if hasattr(error, "exceptions"):
        for each in error.exceptions:
            yield from parts(each)
    elif error is not None:
        yield error


def threads_and_names(folder: Path) -> Any:
    """Look-ups and functions in threads, and what threads ask of the hub."""
    hub = get_hub()
    found = getaddrinfo("127.0.0.1", 80, type=socket.SOCK_STREAM)
    squares = [to_thread(pow, number, 2) for number in range(5)]
    called: list[int] = []
    to_thread(lambda: hub.call_soon_threadsafe(called.append, 1))
    while not called:
        sleep(0.001)
    return found, squares, called


def signals(folder: Path) -> Any:
    """Signals while everybody waits."""
    seen: list[int] = []
    handle = signal_handler(signal.SIGUSR1, lambda *_: seen.append(1))
    try:
        for _ in range(3):
            count = len(seen)
            os.kill(os.getpid(), signal.SIGUSR1)
            while len(seen) == count:
                sleep(0.001)
        sleep(0.03)  # if what has been told is told again, this is a busy loop
    finally:
        handle.cancel()
    return seen


def waits_for_descriptors(folder: Path) -> Any:
    """Descriptors that are no connections."""
    reading, writing = os.pipe()
    called: list[int] = []
    try:
        os.write(writing, b"1")
        wait_readable(reading)
        once(reading, READ, lambda *_: called.append(1))
        while not called:
            sleep(0.001)
        return os.read(reading, 10), called
    finally:
        notify_closing(reading)
        try:
            os.close(reading)
        finally:
            os.close(writing)


def guest_of_asyncio(folder: Path) -> Any:
    """Asyncio in the hub: streams, and coroutines beside them."""
    failures: list[Any] = []

    async def main() -> Any:
        task = asyncio.current_task()

        def heed(_: object, context: dict[str, Any]) -> None:
            failures.append(context.get("exception"))
            task.cancel()  # or it would wait for what asyncio has given up

        asyncio.get_running_loop().set_exception_handler(heed)

        async def answer(reader: Any, writer: Any) -> None:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
            writer.close()

        server = await asyncio.start_server(answer, *LOCAL)
        async with server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            received = []
            for line in LINES:
                writer.write(line)
                received.append(await reader.readline())
            writer.close()
            await writer.wait_closed()
        return received

    try:
        return aio.run(main())
    except BaseException:
        if failures:
            raise failures[0] from None
        raise


SCENARIOS: dict[str, Callable[[Path], Any]] = {
    function.__name__: function
    for function in (
        echo_over_tcp,
        echo_over_unix,
        lines_and_options,
        echo_over_tls,
        sendfile,
        pipes,
        questions,
        server_of_coroutines,
        server_of_callbacks,
        server_of_threads,
        accept_loop,
        datagrams,
        programs,
        forks,
        threads_and_names,
        signals,
        waits_for_descriptors,
        guest_of_asyncio,
    )
}
