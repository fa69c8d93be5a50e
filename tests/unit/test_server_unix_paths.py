"""The files of Unix sockets: when they are replaced, when removed, and when left alone."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from connections import PEER_TIMEOUT
from listener_case import Listeners, dial, is_served, leave_stale, refuse

from pycoronet._coronet import sk_conn
from pycoronet.server._unix_paths import adopt_path, disown_path, unlink_path


@pytest.fixture
def opened() -> Iterator[Listeners]:
    """Return open_listeners(), whose sockets are closed in the end."""
    with Listeners() as listeners:
        yield listeners


@pytest.mark.parametrize("kind", [str, os.fsencode, Path])
def test_a_path_is_there_until_it_is_removed(
    opened: Listeners, tmp_path: Path, kind: Callable[[Any], Any]
) -> None:
    path = tmp_path / "socket"
    (listener,) = opened(kind(path))
    assert is_served(listener)
    assert not listener.get_inheritable()
    assert unlink_path(listener)
    assert not path.exists()
    assert not unlink_path(listener)


def test_a_relative_path_is_removed_from_elsewhere(
    opened: Listeners, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (listener,) = opened("unix:socket")
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path / "folder")
    assert unlink_path(listener)
    assert not (tmp_path / "socket").exists()


@pytest.mark.linux_only
def test_an_abstract_name_has_no_file(opened: Listeners) -> None:
    name = f"pycoronet {os.getpid()} server"
    (listener,) = opened(f"unix:@{name}")
    assert listener.getsockname() == b"\0" + name.encode()
    assert is_served(listener)
    assert not unlink_path(listener)
    number, text = refuse(f"unix:@{name}")
    assert number == errno.EADDRINUSE
    assert text == f"cannot listen on unix:@{name}: a server listens there"


@pytest.mark.parametrize("mode", [0o600, 0o666])
def test_a_path_has_the_mode_that_was_asked_for(
    opened: Listeners, tmp_path: Path, mode: int
) -> None:
    opened(tmp_path / "socket", unix_mode=mode)
    assert (tmp_path / "socket").stat().st_mode & 0o777 == mode


def test_a_mode_that_cannot_be_set_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def chmod(*_: Any) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(Path, "chmod", chmod)
    number, text = refuse(tmp_path / "socket", unix_mode=0o600)
    assert number == errno.EPERM
    assert "no permission" in text
    assert not (tmp_path / "socket").exists()


def test_a_stale_path_is_replaced(opened: Listeners, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    leave_stale(path)
    (listener,) = opened(path)
    assert is_served(listener)


def test_a_path_where_a_server_listens_is_left_alone(opened: Listeners, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    (listener,) = opened(path, backlog=0)
    with dial(os.fspath(path)):
        # Its queue is full now, as it may be on a busy day: that is no reason either.
        number, text = refuse(path)
    assert number == errno.EADDRINUSE
    assert text == f"cannot listen on unix:{path}: a server listens there"
    listener.settimeout(PEER_TIMEOUT)
    listener.accept()[0].close()
    assert path.is_socket()


@pytest.mark.parametrize("kind", ["file", "folder", "link to a file", "link to a socket"])
def test_a_path_of_something_else_is_left_alone(tmp_path: Path, kind: str) -> None:
    path, other = tmp_path / "socket", tmp_path / "other"
    if kind == "folder":
        path.mkdir()
    elif kind == "file":
        path.write_text("precious")
    elif kind == "link to a file":
        other.write_text("precious")
        path.symlink_to(other)
    else:
        leave_stale(other)
        path.symlink_to(other)
    before = path.lstat()
    number, text = refuse(path, FileExistsError)
    assert number == errno.EEXIST
    assert "left alone" in text
    assert path.lstat() == before


def test_a_path_that_was_replaced_meanwhile_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "socket"
    leave_stale(path)

    class Quicker(socket.socket):
        def connect_ex(self, address: Any, /) -> int:
            result = super().connect_ex(address)
            path.rename(tmp_path / "stale")  # which keeps its inode
            leave_stale(path)
            return result

    monkeypatch.setattr(socket, "socket", Quicker)
    assert refuse(path)[0] == errno.EADDRINUSE
    assert path.exists()


def test_a_stale_path_that_vanishes_is_no_obstacle(
    opened: Listeners, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "socket"
    leave_stale(path)

    class Slow(socket.socket):
        def bind(self, address: Any, /) -> None:
            try:
                super().bind(address)
            except OSError:
                path.unlink()
                raise

    monkeypatch.setattr(socket, "socket", Slow)
    assert is_served(opened(path)[0])


def test_a_path_that_another_process_goes_on_with_is_not_removed(
    opened: Listeners, tmp_path: Path
) -> None:
    path = tmp_path / "socket"
    (listener,) = opened(path)
    disown_path(listener)
    assert not unlink_path(listener)
    assert is_served(listener)


def test_a_path_that_was_replaced_is_not_removed(opened: Listeners, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    (listener,) = opened(path)
    path.rename(tmp_path / "moved")
    leave_stale(path)
    assert not unlink_path(listener)
    assert path.exists()


def test_a_child_removes_nothing(opened: Listeners, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    (listener,) = opened(path)
    child = os.fork()
    if child == 0:
        try:
            os._exit(bool(unlink_path(listener)))
        finally:
            os._exit(2)
    assert os.waitpid(child, 0)[1] == 0
    assert path.exists()


def test_a_path_is_handed_over(opened: Listeners, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as inherited:
        inherited.bind(os.fspath(path))
        inherited.listen()
        (listener,) = opened(inherited)
        assert listener is inherited
        assert not unlink_path(listener)  # whoever has bound it removes it
        adopt_path(listener)
        assert unlink_path(listener)


def test_a_connection_object_knows_its_path_too(opened: Listeners, tmp_path: Path) -> None:
    (sock,) = opened(tmp_path / "socket")
    with sk_conn(sock) as listener:
        assert unlink_path(listener)
    assert not (tmp_path / "socket").exists()


@pytest.mark.parametrize(
    ("name", "number", "advice"),
    [
        ("none/socket", errno.ENOENT, "its directory does not exist"),
        ("file/socket", errno.ENOTDIR, "its directory is none"),
        ("x" * 200, errno.EINVAL, "too long"),
    ],
)
def test_a_path_that_cannot_be_is_one_clear_line(
    tmp_path: Path, name: str, number: int, advice: str
) -> None:
    (tmp_path / "file").touch()
    path = tmp_path / name
    found = refuse(path)
    assert found[0] == number
    assert found[1].startswith(f"cannot listen on unix:{path}: ")
    assert advice in found[1]
