"""What `ps` and `top` ask: the snapshot, the socket, and clients that behave badly."""

from __future__ import annotations

import json
import os
import random
import socket
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from connections import Ends
from processes import lines_of

import pycoronet
from pycoronet import DeadlockError, Lock, _coronet, current, get_hub, sleep, spawn
from pycoronet._inspection import MAX_CLIENTS, _Service, socket_path, take_snapshot

PATIENCE_SECONDS = 30  # far more than anything here takes

pytestmark = pytest.mark.usefixtures("virtual_hub")


class Asker:
    """A client of the service."""

    def __init__(self, directory: Path, ends: Ends) -> None:
        self.sock = ends.keep(socket.socket(socket.AF_UNIX))
        # Not with a time-out: then a full queue of arrivals is an error.
        self.sock.connect(str(socket_path(str(directory), os.getpid())))
        self.sock.settimeout(PATIENCE_SECONDS)

    def ask(self, request: bytes) -> Any:
        self.sock.sendall(request)
        return self.answer()

    def answer(self) -> Any:
        """Return the answer; None if there is none and the connection has ended."""
        text = b""
        while not text.endswith(b"\n"):
            data = self.sock.recv(65536)
            if not data:
                assert text == b""
                return None
            text += data
        return json.loads(text)


@pytest.fixture
def connect(tmp_path: Path, ends: Ends) -> Iterator[Callable[[], Asker]]:
    """Return a function that connects to a service of this process."""
    service = _Service(str(tmp_path))
    yield lambda: Asker(tmp_path, ends)
    service.stop()


def own_hub(snapshot: Any) -> Any:
    """Return what is told of this thread's hub; threads of other tests' pools have some, too."""
    (hub,) = (hub for hub in snapshot["hubs"] if hub["id"] == id(get_hub()))
    return hub


def task_of(snapshot: Any, name: str) -> Any:
    (task,) = (task for task in own_hub(snapshot)["tasks"] if task["name"] == name)
    return task


# Snapshots


def test_snapshot_tells_what_each_task_does() -> None:
    lock = Lock()
    lock.acquire()
    task = spawn(lock.acquire, True, 10)
    task.name = "waits"
    spawn(sleep, None).name = "sleeps"
    sleep(2.5)
    fresh = spawn(int)
    fresh.name = "fresh"
    snapshot = json.loads(json.dumps(take_snapshot()))
    assert snapshot["pid"] == os.getpid()
    hub = own_hub(snapshot)
    assert (hub["thread"], hub["engine"]) == (threading.current_thread().name, "fake")
    assert [task["name"] for task in hub["tasks"]] == ["main program", "waits", "sleeps", "fresh"]
    waits = task_of(snapshot, "waits")
    # In hard mode it has given way before.
    assert (waits["state"], waits["switches"]) == ("waiting", 1 + _coronet.HARD_MODE)
    lock_text = f"<Lock at {id(lock):#x}> held by Task 'main program'"
    assert waits["waits"] == [{"for": f"acquire {lock_text}", "seconds": 2.5, "left": 7.5}]
    assert task_of(snapshot, "sleeps")["waits"][0]["left"] is None
    assert (task_of(snapshot, "fresh")["state"], task_of(snapshot, "fresh")["waits"]) == (
        "queued",
        [],
    )
    assert task_of(snapshot, "main program")["state"] == "running"
    assert hub["holder"] == "main program"
    assert "test_snapshot_tells_what_each_task_does" in "".join(hub["stack"])
    get_hub().close()


def test_snapshot_of_a_callback_that_runs() -> None:
    seen: list[Any] = []
    get_hub().call_soon(lambda: seen.append(take_snapshot()))
    sleep(1)
    hub = own_hub(seen[0])
    assert hub["holder"] is None
    assert "take_snapshot()" in "".join(hub["stack"])
    assert [task["state"] for task in hub["tasks"]] == ["waiting"]


def test_snapshot_has_the_hubs_of_all_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYCORONET_ENGINE", "fake")
    came, go = threading.Event(), threading.Event()
    sleep(0)  # this thread has a hub, before the others have
    before = [hub["thread"] for hub in take_snapshot()["hubs"]]

    def work() -> None:
        current()
        came.set()
        go.wait()

    threads = [threading.Thread(target=work, name=f"worker {number}") for number in range(2)]
    for thread in threads:
        thread.start()
        assert came.wait(PATIENCE_SECONDS)
        came.clear()
    names = [hub["thread"] for hub in take_snapshot()["hubs"]]
    go.set()
    for thread in threads:
        thread.join()
    assert names == [*before, "worker 0", "worker 1"]
    assert threading.current_thread().name in before
    assert [hub["thread"] for hub in take_snapshot()["hubs"]] == before


def test_snapshot_names_circles() -> None:
    first = spawn(lambda: second.join())
    second = spawn(first.join)
    sleep(1)
    (circle,) = take_snapshot()["circles"]
    assert circle.endswith(": a circle")
    first.cancel()
    second.join()


def test_description_that_fails_spoils_nothing() -> None:
    class Broken(float):
        def __repr__(self) -> str:
            raise ZeroDivisionError

    task = spawn(sleep, Broken(5))
    task.name = "broken"
    sleep(1)
    (wait,) = task_of(take_snapshot(), "broken")["waits"]
    assert wait["for"] == "sleep <Broken: ZeroDivisionError>"
    task.cancel()
    sleep(0)


def test_ids_of_tasks_stay_the_same() -> None:
    spawn(sleep, 5).name = "x"
    sleep(1)
    assert task_of(take_snapshot(), "x")["id"] == task_of(take_snapshot(), "x")["id"]
    sleep(5)


# CPU time


def burn() -> None:
    """Use some CPU time."""
    clock = pycoronet.get_hub  # anything that takes a little
    for _ in range(20_000):
        clock()


def test_cpu_time_is_measured_while_somebody_wants_it() -> None:
    def work() -> None:
        while True:
            burn()
            sleep(1)

    task = spawn(work)
    task.name = "busy"
    spawn(sleep, None).name = "lazy"
    sleep(1.5)
    assert task_of(take_snapshot(), "busy")["cpu"] == 0
    get_hub()._measure_cpu(True)
    sleep(2)
    snapshot = take_snapshot()
    first = task_of(snapshot, "busy")["cpu"]
    assert first > task_of(snapshot, "lazy")["cpu"] == 0
    sleep(1)
    second = task_of(take_snapshot(), "busy")["cpu"]
    assert second > first
    get_hub()._measure_cpu(False)
    get_hub()._measure_cpu(False)  # once too often
    sleep(1)
    assert task_of(take_snapshot(), "busy")["cpu"] == second
    task.cancel()
    get_hub().close()


def test_cpu_time_of_callbacks_is_the_hub_s() -> None:
    get_hub()._measure_cpu(True)
    before = own_hub(take_snapshot())["cpu"]
    get_hub().call_soon(burn)
    sleep(1)
    assert own_hub(take_snapshot())["cpu"] > before
    get_hub()._measure_cpu(False)


def test_cpu_time_of_who_never_waits_is_known_meanwhile() -> None:
    program = """
    from pycoronet._inspection import take_snapshot
    hub = get_hub()
    stop = threading.Event()
    def look():
        def cpu():
            return take_snapshot()["hubs"][0]["tasks"][1]["cpu"]
        hub._measure_cpu(True)
        while cpu() == 0 and sys.platform != "darwin": pass
        say("seen")
        stop.set()
    def burn():
        threading.Thread(target=look).start()
        while not stop.is_set(): pass
    spawn(burn).join()
    """
    assert lines_of(program) == ["seen"]


# The socket


def test_socket_is_its_owner_s_alone_and_goes(tmp_path: Path) -> None:
    service = _Service(str(tmp_path))
    path = socket_path(str(tmp_path), os.getpid())
    try:
        info = path.stat()
        assert stat.S_ISSOCK(info.st_mode)
        assert stat.S_IMODE(info.st_mode) == 0o600
        with pytest.raises(DeadlockError):
            sleep(None)  # its thread is no reason to go on waiting
    finally:
        service.stop()
    assert list(tmp_path.iterdir()) == []
    assert "pycoronet ps" not in [thread.name for thread in threading.enumerate()]
    with pytest.raises(DeadlockError):
        sleep(None)


def test_each_request_has_an_answer(connect: Callable[[], Asker]) -> None:
    asker = connect()
    for request in (b"ps\n", b"top\n", b"ps\n"):
        assert [task["name"] for task in own_hub(asker.ask(request))["tasks"]] == ["main program"]
    asker.sock.sendall(b"ps\nps")
    assert "hubs" in asker.answer()
    assert "hubs" in asker.ask(b"\n")


def test_measuring_ends_with_the_connection(connect: Callable[[], Asker]) -> None:
    def is_measured() -> bool:
        before = get_hub()._cpu_ns
        get_hub().call_soon(burn)
        sleep(1)
        return get_hub()._cpu_ns > before

    assert not is_measured()
    first, second = connect(), connect()
    for asker in (first, second, first):
        asker.ask(b"top\n")
    assert is_measured()
    first.sock.close()
    connect().ask(b"ps\n")  # it has heard of the end by then
    assert is_measured()
    second.sock.close()
    connect().ask(b"ps\n")
    assert not is_measured()


@pytest.mark.parametrize(
    "garbage", [b"\n", b"xx\n", b"x" * 100, b"\0\xff\n", b"psx\n", b"GET / HTTP/1.0\r\n\r\n"]
)
def test_garbage_is_refused(connect: Callable[[], Asker], garbage: bytes) -> None:
    asker, other = connect(), connect()
    assert asker.ask(garbage) == {"error": "a request is ps or top"}
    try:
        assert asker.answer() is None
    except ConnectionResetError:
        pass  # it had sent more than was read
    assert "hubs" in other.ask(b"ps\n")


def test_random_garbage_harms_nothing(connect: Callable[[], Asker]) -> None:
    choose = random.Random(7)
    for _ in range(200):
        asker = connect()
        data = choose.randbytes(choose.randrange(40)) + choose.choice([b"", b"\n", b"ps\n"])
        try:
            asker.sock.sendall(data)
            if choose.random() < 0.5:
                asker.sock.shutdown(socket.SHUT_WR)
            if choose.random() < 0.3:
                asker.sock.setblocking(False)
                asker.sock.recv(choose.randrange(1, 100))
        except OSError:
            pass
        finally:
            asker.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            asker.sock.close()
    assert "hubs" in connect().ask(b"ps\n")


def test_client_that_reads_nothing_holds_up_nobody(connect: Callable[[], Asker]) -> None:
    tasks = [spawn(sleep, None) for _ in range(2000)]
    sleep(0)
    silent = connect()
    silent.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    silent.sock.sendall(b"ps\n" * 5)
    assert len(own_hub(connect().ask(b"ps\n"))["tasks"]) == 2001
    assert len(own_hub(silent.answer())["tasks"]) == 2001
    for task in tasks:
        task.cancel()
    sleep(0)


def test_who_was_silent_for_longest_makes_room(connect: Callable[[], Asker]) -> None:
    askers = [connect() for _ in range(MAX_CLIENTS)]
    for asker in askers:
        asker.ask(b"ps\n")
    askers[0].ask(b"ps\n")
    connect().ask(b"ps\n")
    assert askers[1].answer() is None
    assert "hubs" in askers[0].ask(b"ps\n")


# The directory


def check_refused(directory: Path, text: str) -> None:
    with pytest.raises(OSError, match=text):
        _Service(str(directory))


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777, 0o1777])
def test_directory_that_others_can_write_to_is_refused(tmp_path: Path, mode: int) -> None:
    tmp_path.chmod(mode)
    check_refused(tmp_path, "PYCORONET_INSPECT: the path can be written to by others")
    tmp_path.chmod(0o700)
    assert list(tmp_path.iterdir()) == []


def test_directory_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    check_refused(tmp_path / "file", "is no directory")
    check_refused(tmp_path / "missing", "No such file")


def test_directory_of_somebody_else_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    check_refused(tmp_path, "belongs to somebody else")


def test_path_that_is_too_long_is_an_error(tmp_path: Path) -> None:
    directory = tmp_path / ("x" * 200)
    directory.mkdir(0o700)
    check_refused(directory, "PYCORONET_INSPECT: .*too long")
    assert list(directory.iterdir()) == []


def leave_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
        sock.listen()


def test_sockets_of_processes_that_have_ended_go(tmp_path: Path) -> None:
    ended = 2**22 + 17  # more than there can be
    leave_socket(socket_path(str(tmp_path), ended))
    leave_socket(socket_path(str(tmp_path), os.getpid()))
    leave_socket(socket_path(str(tmp_path), os.getppid()))
    leave_socket(tmp_path / "other.sock")
    (tmp_path / f"{ended + 1}.sock").touch()
    service = _Service(str(tmp_path))
    names = {path.name for path in tmp_path.iterdir()}
    service.stop()
    assert names == {
        f"{os.getpid()}.sock",
        f"{os.getppid()}.sock",
        "other.sock",
        f"{ended + 1}.sock",
    }


def test_path_that_somebody_serves_is_left_alone(tmp_path: Path, ends: Ends) -> None:
    path = socket_path(str(tmp_path), os.getpid())  # of another machine with the same directory
    other = ends.keep(socket.socket(socket.AF_UNIX))
    other.bind(str(path))
    other.listen()
    check_refused(tmp_path, "PYCORONET_INSPECT: .*in use")
    assert stat.S_ISSOCK(path.stat().st_mode)


def test_failure_is_reported_and_the_program_goes_on(tmp_path: Path) -> None:
    program = """
    sys.unraisablehook = lambda report: say(report.exc_type.__name__, report.exc_value)
    sleep(0)
    thread = threading.Thread(target=sleep)
    thread.start()
    thread.join()
    say("on")
    """
    missing = str(tmp_path / "missing")
    lines = lines_of(program, environment={"PYCORONET_INSPECT": missing})
    assert lines == [
        f"FileNotFoundError [Errno 2] No such file or directory: {missing!r}",
        "on",
    ]


# Processes


LIST = """
    def names():
        return [int(name.partition(".")[0]) for name in os.listdir(os.environ["PYCORONET_INSPECT"])]
"""


def test_process_has_a_socket_while_it_has_a_hub(tmp_path: Path) -> None:
    program = (
        LIST
        + """
    say(names())
    sleep(0)
    say(names() == [os.getpid()])
    try: sleep(None)
    except DeadlockError: say("deadlock")
    """
    )
    lines = lines_of(program, environment={"PYCORONET_INSPECT": str(tmp_path)})
    assert lines == ["[]", "True", "deadlock"]
    assert list(tmp_path.iterdir()) == []


def test_forked_child_has_a_socket_of_its_own(tmp_path: Path) -> None:
    program = (
        LIST
        + """
    import socket
    sleep(0)
    parent = os.getpid()
    def child(end):
        say("child", names() == [parent])
        sleep(0)
        say("child", set(names()) == {parent, os.getpid()})
        end(0)
    for end in (sys.exit, os._exit):
        pid = os.fork()
        if pid == 0:
            child(end)
        os.waitpid(pid, 0)
        say(names() == [parent])
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(os.environ["PYCORONET_INSPECT"] + f"/{parent}.sock")
    sock.sendall(b"ps\\n")
    say(len(sock.recv(10)))
    def forks():
        pid = os.fork()
        if pid == 0:
            sleep(0)
            say("orphan", os.getpid() in names())
            return
        os.waitpid(pid, 0)
        say(pid in names())
    spawn(forks).join()
    """
    )
    lines = lines_of(
        program, environment={"PYCORONET_INSPECT": str(tmp_path), "PYTHONWARNINGS": "ignore"}
    )
    assert lines[:2] == ["child True", "child True"]
    assert lines[2] == "True"
    # os._exit() leaves one behind, which the next one removes.
    assert lines[3:5] == ["child True", "child True"]
    assert lines[5:] == ["False", "10", "orphan True", "False"]
    assert list(tmp_path.iterdir()) == []
