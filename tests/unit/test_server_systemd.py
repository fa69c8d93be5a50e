"""What systemd passes and is told, by its documented variables."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from connections import PEER_TIMEOUT, count_descriptors

from pycoronet.server import _systemd
from pycoronet.server._addresses import open_listeners
from pycoronet.server._systemd import find_passed, forget_passed, notify

HOST = "127.0.0.1"
FIRST = 200  # no test opens so many descriptors

Pass = Callable[..., list[int]]


@pytest.fixture
def pass_sockets(monkeypatch: pytest.MonkeyPatch) -> Iterator[Pass]:
    """Return a function that passes sockets to this process, as systemd does to a new one."""
    descriptors: list[int] = []
    monkeypatch.setattr(_systemd, "FIRST_PASSED", FIRST)
    monkeypatch.setattr(_systemd, "_passed", None)
    for variable in ("LISTEN_PID", "LISTEN_PIDFDID", "LISTEN_FDS", "LISTEN_FDNAMES"):
        monkeypatch.delenv(variable, raising=False)

    def pass_them(count: int, names: str | None = None, pid: int | None = None) -> list[int]:
        for fd in range(FIRST, FIRST + count):
            with socket.create_server((HOST, 0)) as sock:
                os.dup2(sock.fileno(), fd)
                descriptors.append(fd)
        monkeypatch.setenv("LISTEN_PID", str(os.getpid() if pid is None else pid))
        monkeypatch.setenv("LISTEN_FDS", str(count))
        if names is not None:
            monkeypatch.setenv("LISTEN_FDNAMES", names)
        return descriptors

    yield pass_them
    for fd in descriptors:
        try:
            os.close(fd)
        except OSError:
            pass  # the test has closed it


def test_nothing_is_passed_to_others(pass_sockets: Pass) -> None:
    pass_sockets(1, pid=1)
    assert find_passed() == []
    assert os.get_inheritable(FIRST)
    with pytest.raises(OSError, match="systemd has passed no such socket") as caught:
        open_listeners("systemd")
    assert caught.value.errno == errno.ENOENT
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("pass_sockets")
def test_nothing_is_passed_without_systemd() -> None:
    assert find_passed() == []


def test_all_sockets_or_those_of_one_name(pass_sockets: Pass) -> None:
    first, second, third, fourth = pass_sockets(4, "web:admin:web:")
    assert find_passed() == [first, second, third, fourth]
    assert find_passed("web") == [first, third]
    assert find_passed("admin") == [second]
    assert find_passed("nobody") == []
    assert not any(os.get_inheritable(fd) for fd in (first, second, third, fourth))


@pytest.mark.parametrize("names", [None, "", "web"])
def test_sockets_without_a_name_are_unknown(pass_sockets: Pass, names: str | None) -> None:
    pass_sockets(2, names)
    assert find_passed("unknown") == [FIRST, FIRST + 1][bool(names) :]


def test_environment_is_left_clean(pass_sockets: Pass, monkeypatch: pytest.MonkeyPatch) -> None:
    pass_sockets(1, "web")
    monkeypatch.setenv("LISTEN_PIDFDID", "7")
    find_passed()
    assert [name for name in os.environ if name.startswith("LISTEN_")] == []
    assert find_passed() == [FIRST]  # though it is only remembered now


@pytest.mark.parametrize("count", ["many", "-1", "1.5"])
def test_a_count_that_is_none_is_said(
    pass_sockets: Pass, monkeypatch: pytest.MonkeyPatch, count: str
) -> None:
    pass_sockets(0)
    monkeypatch.setenv("LISTEN_FDS", count)
    with pytest.raises(ValueError, match="LISTEN_FDS should be a number"):
        find_passed()


def test_a_count_that_is_too_high_is_an_error(pass_sockets: Pass) -> None:
    pass_sockets(1)
    os.close(FIRST)
    with pytest.raises(OSError, match="cannot listen on systemd: ") as caught:
        open_listeners("systemd")
    assert caught.value.errno == errno.EBADF


def test_a_socket_is_taken_once(pass_sockets: Pass) -> None:
    pass_sockets(3, "web:admin:web")
    (admin,) = open_listeners("systemd:admin")
    web = open_listeners(["systemd:web", (HOST, 0)])
    assert [sock.fileno() for sock in [admin, *web[:2]]] == [FIRST + 1, FIRST, FIRST + 2]
    assert find_passed() == []
    for sock in [admin, *web]:
        sock.close()
    with pytest.raises(OSError, match="cannot listen on systemd:admin: systemd has passed no"):
        open_listeners("systemd:admin")


def test_sockets_stay_there_when_another_address_fails(pass_sockets: Pass) -> None:
    pass_sockets(1)
    before = count_descriptors()
    with pytest.raises(OSError, match="no such address"):
        open_listeners(["systemd", ("192.0.2.1", 80)])
    assert count_descriptors() == before
    (sock,) = open_listeners("systemd")
    sock.close()


def test_the_same_socket_by_two_addresses_is_refused(pass_sockets: Pass) -> None:
    pass_sockets(1, "web")
    with pytest.raises(ValueError, match="given twice"):
        open_listeners(["systemd", "systemd:web"])
    assert find_passed() == [FIRST]


def test_forgetting_what_was_never_passed_is_allowed(pass_sockets: Pass) -> None:
    forget_passed([FIRST])
    pass_sockets(1)
    forget_passed([FIRST + 1])
    assert find_passed() == [FIRST]


def test_a_program_has_what_it_was_passed() -> None:
    """The whole way, through an exec, with the third descriptor as the first one."""
    supervise = """if 1:
        import os, sys
        os.dup2(int(sys.argv[1]), 3)
        os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1", LISTEN_FDNAMES="web")
        os.execv(sys.executable, [sys.executable, "-c", sys.argv[2]])
    """
    program = """if 1:
        import os
        from pycoronet.server._addresses import open_listeners
        (listener,) = open_listeners("systemd:web")
        conn, _ = listener.accept()
        conn.sendall(b"%d %r" % (listener.fileno(), "LISTEN_FDS" in os.environ))
    """
    with socket.create_server((HOST, 0)) as sock:
        command = [sys.executable, "-c", supervise, str(sock.fileno()), program]
        process = subprocess.Popen(command, pass_fds=[sock.fileno()])
        with process, socket.create_connection(sock.getsockname(), PEER_TIMEOUT) as client:
            try:
                assert client.recv(100) == b"3 False"
            finally:
                process.kill()


# --- What it is told -----------------------------------------------------------------------------


@pytest.fixture(params=["path", pytest.param("abstract", marks=pytest.mark.linux_only)])
def supervisor(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[socket.socket]:
    """Return a socket where news are read."""
    name = os.fspath(tmp_path / "notify")
    if request.param == "abstract":
        name = f"@pycoronet {os.getpid()} notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(name.replace("@", "\0"))
        sock.settimeout(PEER_TIMEOUT)
        monkeypatch.setenv("NOTIFY_SOCKET", name)
        yield sock


def test_news_are_one_message(supervisor: socket.socket) -> None:
    assert notify("READY=1", "STATUS=grüß dich", "MAINPID=7")
    assert supervisor.recv(1000).decode() == "READY=1\nSTATUS=grüß dich\nMAINPID=7"
    assert notify("STOPPING=1")
    assert supervisor.recv(1000) == b"STOPPING=1"


def test_a_reload_has_its_time(supervisor: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.clock_gettime_ns", lambda clock: 12_345_678)
    assert notify("RELOADING=1", "STATUS=busy")
    assert supervisor.recv(1000) == b"RELOADING=1\nSTATUS=busy\nMONOTONIC_USEC=12345"


@pytest.mark.parametrize(
    "name", [None, "", "relative", "vsock:2:1", "/none/notify", "/" + "x" * 200]
)
def test_nobody_to_tell_is_no_error(monkeypatch: pytest.MonkeyPatch, name: str | None) -> None:
    before = count_descriptors()
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    if name is not None:
        monkeypatch.setenv("NOTIFY_SOCKET", name)
    assert not notify("READY=1")
    assert count_descriptors() == before
