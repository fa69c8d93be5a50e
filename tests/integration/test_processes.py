"""Server with processes: signals, reloads and upgrades under load, and what workers have."""

from __future__ import annotations

import os
import re
import select
import signal
import socket
import time
from pathlib import Path
from typing import Any

import pytest
from master_case import (
    PATIENCE_SECONDS,
    SERVER_PREAMBLE,
    Load,
    MasterProgram,
    ask,
    connect,
    is_alive,
    kill_one_under_load,
    read_answer,
)

STRATEGIES = {
    "threadpool": 'serve(strategy="threadpool", %s)',
    "coroutine": "serve(%s)",
    "callback": 'serve(answer_what_is_there, strategy="callback", %s)',
}
SHARINGS = ["reuse_port", "exclusive"]


def program(source: str = "serve()", **options: Any) -> MasterProgram:
    return MasterProgram(source, SERVER_PREAMBLE, **options)


@pytest.fixture(params=[(name, sharing) for name in STRATEGIES for sharing in SHARINGS], ids=str)
def serve(request: pytest.FixtureRequest) -> str:
    """Return the source of a server of each strategy, with each way to share a port."""
    strategy, sharing = request.param
    return STRATEGIES[strategy] % f"sharing={sharing!r}"


def end(program: MasterProgram) -> None:
    program.signal(signal.SIGTERM)
    assert program.finish() == 0, program.output
    assert program.lines[-1] == "INFO over"
    assert "Traceback" not in program.output


def test_all_workers_serve_until_sigterm(serve: str) -> None:
    with program(serve) as server:
        address = server.wait_for_address()
        pids = server.wait_for_ready()
        with Load(address) as load:
            for pid in pids.values():
                load.wait_for(5, pid)
        assert load.counts.keys() == {"answered"}, load.problems
        end(server)
        assert not any(map(is_alive, pids.values()))


def test_a_worker_killed_under_load_harms_only_its_own_connections(serve: str) -> None:
    with program(serve) as server:
        kill_one_under_load(server)
        end(server)


def test_reloads_under_load_refuse_nothing_and_answer_everything(serve: str) -> None:
    with program(serve) as server:
        address = server.wait_for_address()
        pids = server.wait_for_ready()
        with Load(address) as load:
            for _ in range(5):
                load.wait_for(50)
                server.signal(signal.SIGHUP)
                pids = server.wait_for_ready()
                server.wait_for("INFO reloaded")
            for pid in pids.values():
                load.wait_for(5, pid)
        assert load.counts.keys() == {"answered"}, (load.counts, load.problems)
        end(server)


def test_sigterm_under_load_answers_whoever_was_connected(serve: str) -> None:
    with program(serve) as server:
        address = server.wait_for_address()
        server.wait_for_ready()
        with Load(address) as load:
            load.wait_for(200)
            assert load.counts.keys() == {"answered"}, load.problems
            server.signal(signal.SIGTERM)
            assert server.finish() == 0
        # Refused are those who came when it was over.
        assert load.counts["lost"] == 0, (load.counts, load.problems)


def test_a_worker_terminated_under_load_answers_whoever_was_connected(serve: str) -> None:
    with program(serve) as server:
        address = server.wait_for_address()
        pids = server.wait_for_ready()
        with Load(address) as load:
            for pid in pids.values():
                load.wait_for(20, pid)
                os.kill(pid, signal.SIGTERM)
                (new,) = server.wait_for_ready(1).values()
                load.wait_for(20, new)
        assert load.counts.keys() == {"answered"}, (load.counts, load.problems)
        end(server)


@pytest.mark.parametrize("sharing", SHARINGS)
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGHUP])
def test_what_is_queued_at_a_worker_is_answered(sharing: str, signum: int) -> None:
    with program(f"serve(processes=1, sharing={sharing!r})") as server:
        address = server.wait_for_address()
        pid = server.wait_for_ready(1)[0]
        os.kill(pid, signal.SIGSTOP)
        queued = [connect(address) for _ in range(5)]
        for sock in queued:
            sock.sendall(b"queued\n")
        server.signal(signum)
        if signum == signal.SIGTERM:
            server.wait_for("stopping")
            by = pid
        else:
            by = server.wait_for_ready(1)[0]
            assert {read_answer(sock) for sock in queued} == {b"%d queued\n" % by}
        os.kill(pid, signal.SIGCONT)
        if signum == signal.SIGTERM:
            assert {read_answer(sock) for sock in queued} == {b"%d queued\n" % by}
            assert server.finish() == 0
        else:
            end(server)
        for sock in queued:
            sock.close()


def test_an_idle_connection_is_closed_and_a_first_request_waited_for() -> None:
    with program() as server:
        address = server.wait_for_address()
        server.wait_for_ready()
        with connect(address) as idle, connect(address) as silent:
            idle.sendall(b"one\n")
            assert read_answer(idle).endswith(b"one\n")
            server.signal(signal.SIGTERM)
            assert idle.recv(100) == b""
            silent.sendall(b"two\n")
            assert read_answer(silent).endswith(b"two\n")
            assert silent.recv(100) == b""
        assert server.finish() == 0


def test_a_handler_in_the_master_may_close_but_not_wait_nor_serve() -> None:
    source = """
    def handle(signum, frame):
        for call in (server.stop, server.serve_forever):
            try:
                call()
            except RuntimeError as error:
                logging.info("refused: %s", error)
        server.close()
    signal.signal(signal.SIGUSR1, handle)
    server = Server(("127.0.0.1", 0), answer, processes=1)
    server.listen()
    logging.info("listening %r", server.addresses[0])
    server.serve_forever()
    logging.info("over")
    """
    with program(source) as server:
        address = server.wait_for_address()
        server.wait_for_ready(1)
        with connect(address) as sock:
            sock.sendall(b"one\n")
            read_answer(sock)
            server.signal(signal.SIGUSR1)
            server.wait_for("refused: .* cannot wait in a master process")
            server.wait_for("refused: the server is serving already")
            assert sock.recv(100) == b""
        assert server.finish() == 0, server.output
        assert server.lines[-1] == "INFO over"


def test_what_does_not_end_within_the_drain_timeout_is_cancelled() -> None:
    source = """
    import pycoronet
    def stay(conn, address):
        conn.write(b"%d here\\n" % os.getpid())
        try:
            conn.readln()
            conn.readln()
        finally:
            logging.info("cleaned up")
    serve(stay, drain_timeout=0.3)
    """
    with program(source) as server:
        address = server.wait_for_address()
        server.wait_for_ready()
        with connect(address) as sock:
            assert read_answer(sock).endswith(b"here\n")
            server.signal(signal.SIGTERM)
            server.wait_for("cleaned up")
            assert sock.recv(100) == b""
        assert server.finish() == 0
        assert "killed" not in server.output


def test_a_second_signal_cancels_what_is_left() -> None:
    source = """
    def stay(conn, address):
        conn.write(b"%d here\\n" % os.getpid())
        try:
            conn.readln()
        finally:
            logging.info("cleaned up")
    serve(stay, drain_timeout=None)
    """
    with program(source) as server:
        address = server.wait_for_address()
        server.wait_for_ready()
        with connect(address) as sock:
            read_answer(sock)
            server.signal(signal.SIGINT)
            server.wait_for("stopping")
            server.signal(signal.SIGINT)
            server.wait_for("cleaned up")
        assert server.finish() == -signal.SIGINT
        assert "killed" not in server.output
        assert "Error" not in server.output


def test_a_handler_that_blocks_its_worker_is_killed_in_the_end() -> None:
    source = """
    import time
    from pycoronet.server import _master
    _master.GRACE_SECONDS = 0.1
    def block(conn, address):
        conn.write(b"%d here\\n" % os.getpid())
        conn.flush()
        while True:
            time.sleep(1)
    serve(block, drain_timeout=0.1)
    """
    with program(source) as server:
        address = server.wait_for_address()
        pids = server.wait_for_ready()
        with connect(address) as sock:
            read_answer(sock)
            server.signal(signal.SIGTERM)
            assert server.finish() == 0
        server.wait_for("WARNING worker . .* takes too long and is killed")
        assert not any(map(is_alive, pids.values()))


def test_a_killed_master_leaves_nobody_behind() -> None:
    with program() as server:
        address = server.wait_for_address()
        server.wait_for_ready()
        with connect(address) as silent, Load(address, clients=4) as load:
            load.wait_for(20)
            server.process.kill()
            silent.sendall(b"two\n")
            assert read_answer(silent).endswith(b"two\n")
            server.finish()
        assert load.counts["lost"] == 0, load.problems


def test_all_processes_may_be_told_at_once() -> None:
    for signum in (signal.SIGTERM, signal.SIGINT):
        with program(start_new_session=True) as server:
            address = server.wait_for_address()
            server.wait_for_ready()
            with Load(address, clients=4) as load:
                load.wait_for(20)
                os.killpg(server.pid, signum)
                assert server.finish() == (0 if signum == signal.SIGTERM else -signum)
            assert load.counts["lost"] == 0, load.problems
            assert "Traceback" not in server.output.replace("Traceback", "", signum == 2)


# --- A socket that is not the server's ----------------------------------------------------------


@pytest.fixture(params=["AF_INET", "AF_UNIX"])
def theirs(request: pytest.FixtureRequest, ends: Any, tmp_path: Path) -> socket.socket:
    """Return a listening socket that somebody else has too."""
    family = socket.AddressFamily[request.param]
    sock: socket.socket = ends.keep(socket.socket(family))
    sock.bind(str(tmp_path / "theirs") if family is socket.AF_UNIX else ("127.0.0.1", 0))
    sock.listen(8)
    sock.settimeout(PATIENCE_SECONDS)
    return sock


def accept_one(listener: socket.socket) -> bytes:
    """Accept who waits; return what that one says."""
    conn, _ = listener.accept()
    with conn:
        return conn.recv(100)


def test_a_socket_that_others_have_too_keeps_its_queue(theirs: socket.socket, ends: Any) -> None:
    source = f"serve(address='fd:{theirs.fileno()}')"
    with program(source, pass_fds=[theirs.fileno()]) as server:
        pids = server.wait_for_ready().values()
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        early = ends.keep(connect(theirs.getsockname()))
        early.sendall(b"early")
        server.signal(signal.SIGTERM)
        server.wait_for("stopping")
        late = ends.keep(connect(theirs.getsockname()))
        late.sendall(b"late")
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        assert server.finish() == 0, server.output
    assert [accept_one(theirs) for _ in range(2)] == [b"early", b"late"]


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGKILL])
def test_a_socket_that_others_have_too_outlives_the_server(
    theirs: socket.socket, signum: int
) -> None:
    source = f"serve(address='fd:{theirs.fileno()}')"
    with program(source, pass_fds=[theirs.fileno()]) as server:
        server.wait_for_ready()
        ask(theirs.getsockname())
        server.signal(signum)
        server.finish()
    with connect(theirs.getsockname()) as peer:
        peer.sendall(b"later")
        assert accept_one(theirs) == b"later"


# --- Misuse, and what goes wrong at the start -------------------------------------------------


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("Server(('127.0.0.1', 0), answer, processes=2).start()", "RuntimeError: .*serve_forever"),
        ("Server(('127.0.0.1', 0), answer, processes=0)", "ValueError: processes must be at least"),
        ("Server(('127.0.0.1', 0), answer, sharing='x')", "ValueError: sharing must be one of"),
        ("serve(processes=None, handover='/x')", "ValueError: .* are for servers with processes"),
        ("serve(handover=5)", "TypeError: handover must be a path, not 5"),
        ("serve(handover='/no/such/folder/x')", "FileNotFoundError: .*handover.*/no/such/folder/x"),
        ("serve(handover='/etc/passwd')", "FileExistsError: .*'/etc/passwd' is there and is no"),
        ("import pycoronet; pycoronet.sleep(0); serve()", "RuntimeError: .*hub"),
        ("serve(tls=('/no/such/file', None))", "FileNotFoundError: .*'/no/such/file'"),
    ],
)
def test_misuse_is_told_in_one_line(source: str, message: str) -> None:
    with program(source) as server:
        server.wait_for(f"^{message}")
        assert server.finish() == 1


@pytest.mark.parametrize("sharing", SHARINGS)
def test_a_port_that_another_server_has_is_refused(sharing: str) -> None:
    with program(f"serve(sharing={sharing!r})") as server:
        address = server.wait_for_address()
        server.wait_for_ready()
        with program(f"serve(address={address!r}, sharing={sharing!r})") as other:
            other.wait_for("^OSError: .*the address is in use")
            assert other.finish() == 1
        end(server)


def test_a_worker_that_cannot_start_ends_the_server_in_one_line() -> None:
    with program("serve('no_such_module:handler')") as server:
        server.wait_for("^RuntimeError: no worker can start: .*no module 'no_such_module'")
        assert server.finish() == 1


# --- What workers have ------------------------------------------------------------------------


@pytest.fixture
def app(tmp_path: Path) -> Path:
    """Return a file for handlers, which programs can import as "app"."""
    return tmp_path / "app.py"


def use(app: Path) -> str:
    return f"sys.path.insert(0, {str(app.parent)!r}); sys.dont_write_bytecode = True\n"


def test_a_reload_brings_new_code(app: Path) -> None:
    handler = "def handler(conn, address): conn.write(b'%s\\n')\n"
    app.write_text(handler % "old")
    with program(use(app) + "serve('app:handler')") as server:
        address = server.wait_for_address()
        server.wait_for_ready()
        assert hear(address) == b"old\n"
        app.write_text("nonsense")
        server.signal(signal.SIGHUP)
        server.wait_for("not reloaded, the old workers stay: .*NameError")
        assert hear(address) == b"old\n"
        app.write_text(handler % "new")
        server.signal(signal.SIGHUP)
        server.wait_for("INFO reloaded")
        while hear(address) == b"old\n":
            pass  # an old one accepts until it has heard of it
        assert hear(address) == b"new\n"
        server.signal(signal.SIGTERM)
        assert server.finish() == 0


def hear(address: Any) -> bytes:
    with connect(address) as sock:
        return read_answer(sock)


def test_what_is_done_at_the_end_is_done_once_where_it_was_asked_for() -> None:
    source = """
    import atexit
    def note(*words):
        logging.info("%s in %s", words[-1], "master" if os.getpid() == master_pid else "worker")
    master_pid = os.getpid()
    server = Server(("127.0.0.1", 0), answer, processes=1)
    server.add_shutdown_callback(lambda server: note("shutdown"))
    atexit.register(note, "atexit")
    class Handler:
        def __call__(self, conn, address):
            atexit.register(note, "atexit")
            answer(conn, address)
    server.handler = Handler()
    server.listen()
    logging.info("listening %r", server.addresses[0])
    server.serve_forever()
    """
    with program(source) as server:
        address = server.wait_for_address()
        server.wait_for_ready(1)
        ask(address)
        server.signal(signal.SIGTERM)
        assert server.finish() == 0
        said = [line for line in server.lines if line.endswith(("in worker", "in master"))]
        assert said == ["INFO atexit in worker", "INFO shutdown in master", "INFO atexit in master"]


def test_stop_in_a_signal_handler_of_the_users_ends_all() -> None:
    source = """
    server = Server(("127.0.0.1", 0), answer, processes=2)
    signal.signal(signal.SIGTERM, lambda *_: server.stop(wait=False))
    server.serve_forever()
    logging.info("returned %s", server.is_listening)
    """
    with program(source) as server:
        server.wait_for_ready()
        server.signal(signal.SIGTERM)
        assert server.finish() == 0
        assert server.lines[-1] == "INFO returned False"


def test_stop_in_a_handler_ends_that_worker_alone() -> None:
    source = """
    def handler(conn, address):
        for line in conn:
            conn.write(b"%d %s" % (os.getpid(), line))
            if line == b"stop\\n":
                conn.server.stop(wait=False)
    serve(handler)
    """
    with program(source) as server:
        address = server.wait_for_address()
        pids = server.wait_for_ready()
        with connect(address) as sock:
            sock.sendall(b"stop\n")
            pid = int(read_answer(sock).split()[0])
            (index,) = server.wait_for_ready(1)  # while the other one drains
            assert pids[index] == pid
            sock.sendall(b"more\n")
            assert read_answer(sock) == b"%d more\n" % pid
        end(server)


# --- Statistics --------------------------------------------------------------------------------


def scrape(address: Any) -> dict[str, int]:
    with connect(address) as sock:
        sock.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        page = b"".join(iter(lambda: sock.recv(65536), b"")).decode()
    return {name: int(value) for name, value in re.findall(r"^(\w+) (\d+)$", page, re.M)}


def test_any_worker_shows_what_all_have_counted(tmp_path: Path) -> None:
    pytest.importorskip("h11")
    source = f"""
    def handler(conn, address):
        answer(conn, address)
    server = Server(("127.0.0.1", 0), answer, processes=2, delay=0.01,
                    metrics=("127.0.0.1", 0), handover={str(tmp_path / "handover")!r})
    server.listen()
    logging.info("listening %r", server.addresses[0])
    logging.info("page %r", server.metrics_addresses[0])
    try:
        server.serve_forever()
    finally:
        logging.info("served %d", server.stats.connections_served)
    """
    with program(source) as server:
        address = server.wait_for_address()
        page = eval(server.wait_for("page (.*)")[1])
        server.wait_for_ready()
        for _ in range(20):
            ask(address)
        server.signal(signal.SIGHUP)
        server.wait_for("INFO reloaded")
        for _ in range(20):
            ask(address)
        name = "pycoronet_connections_served_total"
        while (counts := scrape(page))[name] < 40:
            pass  # a worker says every 0.01 s what it has counted
        assert counts[name] == 40
        assert counts["pycoronet_workers_started_total"] == 4
        while scrape(page)["pycoronet_workers"] != 2:
            pass  # the old ones end
        server.signal(signal.SIGTERM)
        assert server.finish() == 0
        assert server.lines[-1] == "INFO served 40"


def test_the_page_goes_over_to_a_new_program(tmp_path: Path) -> None:
    pytest.importorskip("h11")
    source = f"""
    serve(metrics="unix:{tmp_path}/page", handover={str(tmp_path / "handover")!r})
    """
    with program(source) as old:
        old.wait_for_ready()
        with program(source) as new:
            new.wait_for_ready()
            assert old.finish() == 0
            assert scrape(f"{tmp_path}/page")["pycoronet_workers"] == 2
            end(new)
    assert list(tmp_path.iterdir()) == []


def test_a_new_program_alone_shows_the_page_while_the_old_one_drains(tmp_path: Path) -> None:
    pytest.importorskip("h11")
    page = f"{tmp_path}/page"
    handover = str(tmp_path / "handover")
    source = f"serve(metrics='unix:{page}', handover={handover!r}, drain_timeout=None)"
    with program(source) as old:
        address = old.wait_for_address()
        old.wait_for_ready()
        # One who has not asked yet is waited for.
        with connect(address) as silent, program(source) as new:
            pids = new.wait_for_ready().values()
            old.wait_for("a new master serves")
            for pid in pids:
                os.kill(pid, signal.SIGSTOP)
            deadline = time.monotonic() + PATIENCE_SECONDS / 4
            try:
                while is_answered(page):
                    assert time.monotonic() < deadline
            finally:
                for pid in pids:
                    os.kill(pid, signal.SIGCONT)
            assert scrape(page)["pycoronet_workers"] == 2
            silent.sendall(b"hello\n")
            assert read_answer(silent).endswith(b" hello\n")
            silent.close()
            assert old.finish() == 0
            end(new)


def is_answered(page: str) -> bool:
    with connect(page) as sock:
        sock.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        return bool(select.select([sock], [], [], 0.3)[0])
