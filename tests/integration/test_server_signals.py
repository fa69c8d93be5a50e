"""Server and signals: SIGTERM and SIGINT drain, a second one ends at once; the user's stay."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

import pytest
from processes import lines_of, run_program

SERVER = """
import socket

peers = []

@atexit.register
def end():
    say("atexit")
    for peer in peers:
        peer.close()

LOCAL = ("127.0.0.1", 0)

def kill(number=signal.SIGTERM):
    os.kill(os.getpid(), number)
    for _ in range(1000):
        pass  # where Python's own handler would run

def dial(server):
    peer = socket.create_connection(server.addresses[0], 20)
    peers.append(peer)
    return peer

def receive(peer):
    # A line, or what comes before the end.
    with peer.makefile("rb") as file:
        return file.readline()

def run(server):
    # Has a client ask; the handler sends the signal.
    server.listen()
    peer = dial(server)
    peer.sendall(b"hello\\n")
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        say("interrupted")
    else:
        say("returned")
    finally:
        try:
            say("answer", receive(peer), peer.recv(100))
        except ConnectionResetError:
            say("reset")
"""


def lines(source: str, *functions: str) -> list[str]:
    """Run a program that has SERVER and other functions in front; return its lines."""
    return lines_of("".join((SERVER, *functions)) + dedent(source))


SLOW = """
def slow(conn, _):
    line = conn.readln()
    kill(number)
    try:
        sleep(0.05)
        conn.write(line)
    finally:
        say("finally")
"""


def test_sigterm_drains_and_ends_well_with_everything_cleaned_up() -> None:
    assert lines("number = signal.SIGTERM\nrun(Server(LOCAL, slow))", SLOW) == [
        "finally",
        "answer b'hello\\n' b''",
        "atexit",
    ]


def test_sigint_drains_and_is_raised_then() -> None:
    assert lines("number = signal.SIGINT\nrun(Server(LOCAL, slow))", SLOW) == [
        "finally",
        "interrupted",
        "answer b'hello\\n' b''",
        "atexit",
    ]


def test_sigint_drains_though_the_hub_has_run_before() -> None:
    assert lines("number = signal.SIGINT\nsleep(0.001)\nrun(Server(LOCAL, slow))", SLOW) == [
        "finally",
        "interrupted",
        "answer b'hello\\n' b''",
        "atexit",
    ]


def test_one_that_comes_while_the_handler_is_imported_ends_the_server(tmp_path: Path) -> None:
    module = (
        "import os, signal, pycoronet\nos.kill(os.getpid(), signal.SIGTERM)\npycoronet.sleep(0.01)"
    )
    (tmp_path / "waiting.py").write_text(module + "\nhandler = print\n")
    program = f"""
    sys.path.insert(0, {str(tmp_path)!r})
    server = Server(LOCAL, "waiting:handler")
    server.listen()
    try:
        server.serve_forever()
    finally:
        say(server.is_listening)
    """
    assert lines(program) == ["False", "atexit"]


def test_in_a_task_of_its_own_it_ends_the_main_program() -> None:
    program = """
    number = signal.SIGTERM
    server = Server(LOCAL, slow)
    server.listen()
    peer = dial(server)
    peer.sendall(b"hello\\n")
    spawn(server.serve_forever)
    try:
        sleep(60)
    finally:
        say("answer", receive(peer))
    """
    assert lines(program, SLOW) == ["finally", "answer b'hello\\n'", "atexit"]


@pytest.mark.parametrize("number", ["SIGTERM", "SIGINT"])
def test_a_second_one_ends_at_once(number: str) -> None:
    program = f"""
    def stubborn(conn, _):
        conn.readln()
        try:
            kill(signal.{number})
            sleep(0.001)
            say("closing", conn.server.closing)
            get_hub().call_soon(kill, signal.{number})
            sleep(60)
        finally:
            say("finally")
    run(Server(LOCAL, stubborn))
    """
    said = ["interrupted"] if number == "SIGINT" else []
    assert lines(program) == ["closing True", *said, "answer b'' b''", "atexit", "finally"]


@pytest.mark.parametrize("number", ["SIGTERM", "SIGINT"])
@pytest.mark.parametrize("strategy", ["coroutine", "callback"])
def test_a_second_one_ends_a_handler_that_never_waits(number: str, strategy: str) -> None:
    program = f"""
    def busy(conn, _):
        conn.take(100) if conn.callbacks else conn.readln()
        try:
            kill(signal.{number})
            say("closing", conn.server.closing)
            kill(signal.{number})
            while True:
                pass
        except Exception as error:
            say("caught", error)
        finally:
            say("finally")
    run(Server(LOCAL, busy, strategy="{strategy}"))
    """
    said = ["interrupted"] if number == "SIGINT" else []
    assert lines(program) == ["closing False", "finally", *said, "answer b'' b''", "atexit"]


def test_a_second_one_ends_a_handler_that_stops_to_wait_during_the_drain() -> None:
    program = """
    def busy(conn, _):
        conn.readln()
        kill()
        while not conn.server.closing:
            sleep(0.001)
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            while True:
                pass
        finally:
            say("finally")
    run(Server(LOCAL, busy))
    """
    assert lines(program) == ["finally", "answer b'' b''", "atexit"]


def test_handlers_of_the_user_s_are_left_alone() -> None:
    program = """
    def mine(number, frame):
        say("mine", signal.Signals(number).name)
        server.stop(wait=False)

    def handler(conn, _):
        say(all(signal.getsignal(each) is mine for each in (signal.SIGTERM, signal.SIGINT)))
        kill(signal.SIGINT)
        kill(signal.SIGTERM)
        conn.write(conn.readln())

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, mine)
    server = Server(LOCAL, handler)
    run(server)
    say(signal.getsignal(signal.SIGTERM) is mine)
    """
    assert lines(program) == [
        "True",
        "mine SIGINT",
        "mine SIGTERM",
        "returned",
        "answer b'hello\\n' b''",
        "True",
        "atexit",
    ]


def test_one_handler_of_the_user_s_leaves_the_other_signal_to_the_server() -> None:
    program = """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    number = signal.SIGTERM
    def handler(conn, address):
        kill(signal.SIGINT)
        slow(conn, address)
    run(Server(LOCAL, handler))
    """
    assert lines(program, SLOW) == ["finally", "answer b'hello\\n' b''", "atexit"]


def test_what_was_there_before_comes_back_and_a_server_may_serve_again() -> None:
    program = """
    number = signal.SIGINT
    def handlers():
        return [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)]
    sleep(0)
    before = handlers()
    for _ in range(2):
        run(Server(LOCAL, slow))
        say(handlers() == before)
    """
    assert lines(program, SLOW) == [
        *["finally", "interrupted", "answer b'hello\\n' b''", "True"] * 2,
        "atexit",
    ]


def test_a_handler_set_while_it_serves_stays() -> None:
    program = """
    def mine(number, frame):
        say("mine")
        server.stop(wait=False)
    def handler(conn, _):
        signal.signal(signal.SIGTERM, mine)
        kill()
        conn.write(conn.readln())
    server = Server(LOCAL, handler)
    run(server)
    say(signal.getsignal(signal.SIGTERM) is mine)
    """
    assert lines(program) == ["mine", "returned", "answer b'hello\\n' b''", "True", "atexit"]


def test_all_servers_of_the_process_are_drained_those_of_other_threads_too() -> None:
    program = """
    def handler(conn, _):
        line = conn.readln()
        sleep(conn.server.owner)
        conn.write(line)

    def serve():
        with contextlib.suppress(KeyboardInterrupt):
            elsewhere.serve_forever()

    import contextlib
    servers = [Server(LOCAL, handler, owner=seconds) for seconds in (0.02, 0.1, 0.15, 0.2)]
    here, beside, started, elsewhere = servers
    for server in servers:
        server.listen()
        dial(server).sendall(b"hello\\n")
    threading.Thread(target=serve, daemon=True).start()
    started.start()
    spawn(beside.serve_forever)
    while not all(server.stats.open for server in servers[1:]):
        sleep(0.001)
    get_hub().call_later(0.01, kill, signal.SIGINT)
    try:
        here.serve_forever()
    except KeyboardInterrupt:
        say("interrupted")
    say([receive(peer) for peer in peers])
    say([server.is_listening for server in servers])
    """
    assert lines(program) == [
        "interrupted",
        str([b"hello\n"] * 4),
        str([False] * 4),
        "atexit",
    ]


def test_a_second_one_does_not_wait_for_other_threads() -> None:
    program = """
    def handler(conn, _):
        conn.readln()
        try:
            sleep(60)
        finally:
            ended.set()

    ended = threading.Event()
    here, elsewhere = Server(LOCAL, handler), Server(LOCAL, handler)
    elsewhere.listen()
    dial(elsewhere).sendall(b"hello\\n")
    thread = threading.Thread(target=elsewhere.serve_forever)
    thread.start()
    while not elsewhere.stats.open:
        time.sleep(0.001)
    get_hub().call_later(0.01, kill)
    get_hub().call_later(0.02, kill)
    try:
        here.serve_forever()
    finally:
        ended.wait(20)
        say("ended", ended.is_set())
    """
    assert lines(program) == ["ended True", "atexit"]


def test_a_forked_child_has_the_signals_as_they_were() -> None:
    program = """
    def handler(conn, _):
        child = os.fork()
        if child == 0:
            if conn.readln() == b"wait\\n":
                pass
            kill()
            os._exit(3)
        say(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM)
        conn.write(b"served")
        conn.server.stop(wait=False)
    run(Server(LOCAL, handler))
    """
    assert lines(program) == ["True", "returned", "answer b'served' b''", "atexit"]


def test_in_another_thread_signals_are_left_alone() -> None:
    program = """
    server = Server(LOCAL, lambda conn, _: conn.write(conn.readln()))
    thread = threading.Thread(target=server.serve_forever)
    before = [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)]
    thread.start()
    while not server.addresses:
        time.sleep(0.001)
    peer = dial(server)
    peer.sendall(b"hello\\n")
    say(receive(peer))
    say([signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)] == before)
    server.stop(wait=False)
    thread.join()
    say("joined")
    """
    assert lines(program) == [r"b'hello\n'", "True", "joined", "atexit"]


# --- SIGPIPE -----------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", ["coroutine", "callback"])
def test_sigpipe_never_kills_though_the_program_has_its_default_back(strategy: str) -> None:
    program = f"""
    def handler(conn, _):
        if conn.server.strategy == "callback":
            conn.take(10)
        peers[0].close()
        for _ in range(50):
            if conn.closed:
                break
            conn.write(bytes(1 << 16))
            if conn.server.strategy == "coroutine":
                sleep(0.001)

    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    server = Server(LOCAL, handler, strategy="{strategy}")
    server.start()
    dial(server).sendall(b"x")
    while not server.stats.connections_served:
        sleep(0.001)
    say(server.stats.errors["reset"], signal.getsignal(signal.SIGPIPE) is signal.SIG_DFL)
    server.stop()
    """
    assert lines(program) == ["1 True", "atexit"]


def test_a_handler_of_the_user_s_for_sigpipe_stays() -> None:
    program = """
    def mine(number, frame):
        say("mine")

    signal.signal(signal.SIGPIPE, mine)
    number = signal.SIGTERM
    server = Server(LOCAL, slow)
    try:
        run(server)
    finally:
        say(signal.getsignal(signal.SIGPIPE) is mine)
    """
    assert lines(program, SLOW) == [
        "finally",
        "answer b'hello\\n' b''",
        "True",
        "atexit",
    ]


# --- The end of the program --------------------------------------------------------------------


def test_a_server_that_is_left_running_ends_with_the_program() -> None:
    program = """
    def handler(conn, _):
        try:
            conn.read(100)
        finally:
            say("finally")
    server = Server(LOCAL, handler, max_connections=1, max_per_address=1)
    server.start()
    dial(server)
    sleep(0.01)
    """
    done = run_program(SERVER + dedent(program))
    # The hub is closed after what the program has registered itself.
    assert (done.returncode, done.stdout.splitlines()) == (0, ["atexit", "finally"])
    (line,) = done.stderr.splitlines()
    assert "ResourceWarning: unclosed <sk_conn" in line  # the listener


def test_the_thread_of_a_server_may_end_before_it() -> None:
    program = """
    server = Server(LOCAL, print)
    thread = threading.Thread(target=server.start)
    thread.start()
    thread.join()
    say(stop_all())
    say(server.is_listening)
    server.close()
    """
    done = run_program(SERVER + dedent(program))
    assert done.stdout.splitlines() == ["0", "False", "atexit"], done.stderr
    assert "Traceback" not in done.stderr
