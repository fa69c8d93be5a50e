"""What a master is made of: back-off, sockets shared out, signals to select on, the link."""

from __future__ import annotations

import errno
import select
import signal
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from connections import open_descriptors

from pycoronet import Server, sleep, spawn
from pycoronet.server._arrivals import is_queued, stop_arrivals
from pycoronet.server._listeners import Listeners, open_for_workers, share_out
from pycoronet.server._signal_watch import SignalWatch, all_signals_blocked, ignore_defaults
from pycoronet.server._worker import CANCEL, DRAIN, MAX_LINE_BYTES, RETIRE, Worker
from pycoronet.server._worker_process import BackOff, WorkerProcess, describe_status

# --- Back-off ---------------------------------------------------------------------------------


def test_the_first_death_costs_nothing_and_each_quick_one_twice_as_much() -> None:
    back_off = BackOff()
    delays = [back_off.next_delay(0.01) for _ in range(12)]
    assert delays == [0.0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30.0, 30.0]
    assert [back_off.next_delay(0.01) for _ in range(5000)][-1] == 30.0


def test_who_has_lived_for_a_while_is_replaced_at_once() -> None:
    back_off = BackOff()
    for _ in range(5):
        back_off.next_delay(4.9)
    assert back_off.next_delay(5.0) == 0.0
    assert back_off.next_delay(4.9) == 0.1


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (0, "ended with status 0"),
        (3 << 8, "ended with status 3"),
        (int(signal.SIGKILL), "was killed by SIGKILL"),
        (50, "was killed by signal 50"),
        (None, "is gone"),
    ],
)
def test_a_status_in_words(status: int | None, text: str) -> None:
    assert describe_status(status) == text


# --- Sockets -----------------------------------------------------------------------------------


def group(count: int) -> list[socket.socket]:
    """Return sockets at one address."""
    first = socket.socket()
    first.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    first.bind(("127.0.0.1", 0))
    made = [first]
    for _ in range(count - 1):
        made.append(socket.socket())
        made[-1].setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        made[-1].bind(first.getsockname())
    return made


@pytest.mark.parametrize("sockets", range(1, 6))
@pytest.mark.parametrize("workers", range(1, 5))
def test_each_worker_has_each_address_and_each_socket_is_somebodys(
    sockets: int, workers: int
) -> None:
    entry = Listeners("both", group(sockets) + group(sockets))
    shares = [share_out([entry], index, workers) for index in range(workers)]
    try:
        assert set().union(*shares) == set(entry.sockets)
        for share in shares:
            assert len({sock.getsockname() for sock in share}) == 2
            assert len(share) == len(set(share))
        if sockets == workers:
            assert all(len(share) == 2 for share in shares)
    finally:
        entry.close()


@pytest.mark.linux_only
def test_own_sockets_are_at_one_port_and_closed_to_strangers() -> None:
    (entry,) = open_for_workers(("127.0.0.1", 0), count=3)
    try:
        assert entry.address == "127.0.0.1:0"
        (name,) = {sock.getsockname() for sock in entry.sockets}
        assert len(entry.sockets) == 3
        with pytest.raises(OSError, match="in use"):
            open_for_workers(name, count=3)
    finally:
        entry.close()


@pytest.mark.linux_only
def test_with_reuse_port_strangers_are_let_in() -> None:
    (entry,) = open_for_workers(("127.0.0.1", 0), count=2, reuse_port=True)
    try:
        (other,) = open_for_workers(entry.sockets[0].getsockname(), count=2, reuse_port=True)
        other.close()
    finally:
        entry.close()


def test_nothing_stays_open_if_one_address_fails() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        before = open_descriptors()
        with pytest.raises(OSError, match="in use"):
            open_for_workers([("127.0.0.1", 0), other.getsockname()], count=2)
        assert open_descriptors() == before


# --- Arrivals ------------------------------------------------------------------------------------


@pytest.fixture(params=["tcp", "unix"])
def listener(request: pytest.FixtureRequest, tmp_path: object) -> Iterator[socket.socket]:
    """Return a listening socket of each kind."""
    if request.param == "tcp":
        sock = socket.create_server(("127.0.0.1", 0))
    else:
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(f"{tmp_path}/socket")
        sock.listen(5)
    sock.setblocking(False)
    yield sock
    sock.close()


@pytest.mark.linux_only
def test_stop_arrivals_keeps_the_queue_and_lets_nobody_else_in(listener: socket.socket) -> None:
    with socket.socket(listener.family) as early, socket.socket(listener.family) as late:
        early.connect(listener.getsockname())
        early.sendall(b"early")
        assert is_queued(listener)
        assert stop_arrivals(listener)
        assert stop_arrivals(listener)  # again does no harm
        late.setblocking(False)
        assert late.connect_ex(listener.getsockname()) != 0
        conn, _ = listener.accept()
        with conn:
            assert conn.recv(10) == b"early"
            conn.sendall(b"answer")
            assert early.recv(10) == b"answer"
        with pytest.raises(BlockingIOError):
            listener.accept()


def test_elsewhere_arrivals_go_on(listener: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "darwin")
    assert not stop_arrivals(listener)
    with socket.socket(listener.family) as client:
        client.connect(listener.getsockname())
        listener.accept()[0].close()


@pytest.mark.linux_only
def test_if_filters_are_forbidden_arrivals_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pycoronet.server._arrivals._DROP_SYN", b"")
    with socket.create_server(("127.0.0.1", 0)) as sock:
        assert not stop_arrivals(sock)
        assert sock.fileno() >= 0


# --- Signals -------------------------------------------------------------------------------------


def test_a_signal_makes_the_watch_readable_and_is_taken_once() -> None:
    with SignalWatch([signal.SIGUSR1, signal.SIGUSR2]) as watch:
        assert select.select([watch], [], [], 0)[0] == []
        signal.raise_signal(signal.SIGUSR2)
        signal.raise_signal(signal.SIGUSR1)
        assert select.select([watch], [], [], 0)[0] == [watch]
        assert watch.take() == [signal.SIGUSR2, signal.SIGUSR1]
        assert select.select([watch], [], [], 0)[0] == []
        assert watch.take() == []
        watch.post(0)
        assert select.select([watch], [], [], 0)[0] == [watch]
        assert watch.take() == [0]
    assert signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL


def test_the_users_handlers_and_wakeup_descriptor_stay() -> None:
    seen: list[int] = []
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    signal.set_wakeup_fd(writer.fileno())
    signal.signal(signal.SIGUSR1, lambda number, _: seen.append(number))
    try:
        with SignalWatch([signal.SIGUSR1]) as watch:
            signal.raise_signal(signal.SIGUSR1)
            assert seen == [signal.SIGUSR1]
            assert watch.take() == []  # it is the user's
        assert signal.set_wakeup_fd(-1) == writer.fileno()
    finally:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGUSR1, signal.SIG_DFL)
        reader.close()
        writer.close()


def test_what_is_posted_before_and_after_the_block_harms_nobody() -> None:
    watch = SignalWatch([signal.SIGUSR1])
    watch.post(0)
    with watch:
        assert watch.take() == [0]
    watch.post(0)


def test_a_flood_of_signals_loses_at_most_what_is_more_than_many() -> None:
    with SignalWatch([signal.SIGUSR1]) as watch:
        for _ in range(3000):
            signal.raise_signal(signal.SIGUSR1)
        assert set(watch.take()) == {signal.SIGUSR1}


def test_blocked_signals_are_handled_after_the_block() -> None:
    with SignalWatch([signal.SIGUSR1]) as watch:
        with all_signals_blocked():
            signal.raise_signal(signal.SIGUSR1)
            assert watch.take() == []
        assert watch.take() == [signal.SIGUSR1]


def test_ignoring_leaves_handlers_alone() -> None:
    def handle(*_: object) -> None:
        pass

    signal.signal(signal.SIGUSR1, handle)
    try:
        ignore_defaults([signal.SIGUSR1, signal.SIGUSR2])
        assert signal.getsignal(signal.SIGUSR1) is handle
        signal.raise_signal(signal.SIGUSR2)  # would end the process
    finally:
        for number in (signal.SIGUSR1, signal.SIGUSR2):
            signal.signal(number, signal.SIG_DFL)


# --- The link ------------------------------------------------------------------------------------


@pytest.fixture
def link() -> Iterator[tuple[WorkerProcess, Worker]]:
    """Return the two ends, of a worker that is no process."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    worker = Worker(0, [], theirs)
    yield WorkerProcess(worker, ours, 0.0), worker
    ours.close()
    worker.close()


def test_lines_go_both_ways(link: tuple[WorkerProcess, Worker]) -> None:
    process, worker = link
    assert process.take_messages() == ([], False)
    assert worker.take_commands() == []
    worker.notify_ready()
    worker.notify_leaving()
    worker.notify_closed(were_emptied=True)
    worker.notify_failed(ValueError("two\n  lines"))
    worker.notify_failed(SystemExit("text"))
    assert process.take_messages() == (
        ["ready", "leaving", "emptied", "failed ValueError: two lines", "failed text"],
        False,
    )
    assert process.tell(RETIRE)
    assert process.tell("shared")
    assert process.tell(CANCEL)
    assert worker.take_commands() == [RETIRE, CANCEL]
    assert worker.is_shared


def test_half_a_line_waits_for_the_rest(link: tuple[WorkerProcess, Worker]) -> None:
    process, worker = link
    worker.link.send(b"rea")
    assert process.take_messages() == ([], False)
    worker.link.send(b"dy\nclo")
    assert process.take_messages() == (["ready"], False)


def test_a_long_reason_is_cut(link: tuple[WorkerProcess, Worker]) -> None:
    process, worker = link
    worker.notify_failed(ValueError("ä" * 100_000))
    worker.notify_ready()
    (reason, ready), _ = process.take_messages()
    assert len(reason.encode(errors="replace")) <= MAX_LINE_BYTES
    assert ready == "ready"


@pytest.mark.parametrize(("before", "command"), [("", DRAIN), ("shared", RETIRE)])
def test_without_a_master_a_worker_drains_unless_there_is_another(
    link: tuple[WorkerProcess, Worker], before: str, command: str
) -> None:
    process, worker = link
    if before:
        process.tell(before)
    process.link.close()
    assert worker.take_commands() == [command]
    assert worker.is_orphaned
    assert worker.owns_sockets == worker.takes_queues == (command == DRAIN)
    worker.notify_ready()  # nobody hears it


def test_last_words_come_before_the_end(link: tuple[WorkerProcess, Worker]) -> None:
    process, worker = link
    worker.notify_failed(KeyError())
    worker.close()
    assert process.take_messages() == (["failed KeyError"], True)
    assert not process.tell(DRAIN)


def test_a_process_that_was_reaped_is_sent_no_signal(
    link: tuple[WorkerProcess, Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    process, _ = link
    process.pid = 12345
    monkeypatch.setattr("os.waitpid", lambda pid, _: (pid, 0))
    assert process.reap() == (True, 0)
    monkeypatch.setattr("os.kill", lambda *_: pytest.fail("that may be anybody's by now"))
    process.signal(signal.SIGTERM)


@pytest.mark.linux_only
@pytest.mark.usefixtures("virtual_hub")
def test_a_server_that_stops_lets_nobody_in_and_serves_who_is_there() -> None:
    def echo(conn: Any, _: object) -> None:
        conn.write(conn.readln())

    server = Server(("127.0.0.1", 0), echo)
    server.start()
    stopping = spawn(server.stop)
    with socket.socket() as early, socket.socket() as late:
        early.connect(server.addresses[0])
        early.sendall(b"early\n")
        sleep(0.01)
        late.setblocking(False)
        assert late.connect_ex(server.addresses[0]) == errno.EINPROGRESS
        assert select.select([], [late], [], 0)[1] == []  # there is no answer
        stopping.get()
        assert early.recv(10) == b"early\n"
    assert server.stats.accepted == 1
