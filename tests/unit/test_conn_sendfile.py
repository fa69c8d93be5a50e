"""sendfile: what is sent of which file, and what becomes of files that change or cannot be sent."""

from __future__ import annotations

import errno
import io
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
from connections import MOMENT, Ends, attempt, drain_now, fill, open_descriptors, receive
from sendfile_case import CONTENT, LARGE, begin, must_read, send_path

import pycoronet
from pycoronet import ClosedError, sleep, spawn

pytestmark = pytest.mark.usefixtures("virtual_hub")


# --- What is sent -----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["unix", "tcp", "tcp6"])
def test_a_small_file_is_queued_and_leaves_later(ends: Ends, small: Path, kind: str) -> None:
    conn, peer = ends.pair(kind)
    switches = pycoronet.get_hub().switch_count
    assert send_path(conn, small) == len(CONTENT)  # the file is closed by now
    assert pycoronet.get_hub().switch_count == switches
    assert conn.pending == len(CONTENT)
    assert receive(peer, len(CONTENT)) == CONTENT
    assert conn.pending == 0


@pytest.mark.parametrize("kind", ["unix", "tcp"])
def test_a_large_file_waits_until_the_low_mark(ends: Ends, large: Path, kind: str) -> None:
    conn, peer = ends.pair(kind)
    task = spawn(send_path, conn, large)
    sleep(MOMENT)
    assert not task.done
    assert receive(peer, len(LARGE)) == LARGE
    assert task.get() == len(LARGE)


def test_it_goes_on_below_the_low_mark(ends: Ends, large: Path) -> None:
    conn, peer = ends.pair()
    conn.set_watermarks(write_low=11_900_000, write_high=11_900_000)
    assert send_path(conn, large) == len(LARGE)  # the kernel took more than 100,000
    assert 0 < conn.pending < len(LARGE)
    assert receive(peer, len(LARGE)) == LARGE


@pytest.mark.parametrize(
    ("offset", "count"),
    [
        (0, None),
        (100, None),
        (100, 50),
        (0, 0),
        (len(CONTENT) - 1, None),
        (len(CONTENT), None),
        (len(CONTENT) + 5, None),
        (1 << 40, 10),
        (5, 1 << 60),
    ],
)
def test_offset_and_count_are_limited_to_the_file(
    ends: Ends, small: Path, offset: int, count: int | None
) -> None:
    conn, peer = ends.pair()
    expected = CONTENT[offset:][:count]
    assert send_path(conn, small, offset=offset, count=count) == len(expected)
    assert conn.pending == len(expected)
    conn.enqueue(b"end")
    assert receive(peer, len(expected) + 3) == expected + b"end"


def test_the_position_of_the_file_does_not_count(ends: Ends, small: Path) -> None:
    conn, peer = ends.pair()
    with small.open("rb") as file:
        file.read(5000)
        conn.sendfile(file, 0, 10)
        conn.sendfile(file.fileno(), 10, 10)
        assert file.tell() == 5000
        conn.flush()
        assert file.tell() == 5000
    assert receive(peer, 20) == CONTENT[:20]


def test_files_and_bytes_leave_in_order(ends: Ends, small: Path, large: Path) -> None:
    conn, peer = ends.pair()
    conn.buffered = True
    conn.write(b"head")
    send_path(conn, small)
    send_path(conn, small, offset=10_000)
    conn.write(b"between")
    task = spawn(send_path, conn, large)
    sleep(MOMENT)
    conn.enqueue(b"tail")
    expected = b"head" + CONTENT + CONTENT[10_000:] + b"between" + LARGE + b"tail"
    assert receive(peer, len(expected)) == expected
    task.get()


def test_an_urgent_message_goes_behind_a_file_that_has_begun(ends: Ends, large: Path) -> None:
    conn, peer, task = begin(ends, large)
    conn.enqueue(b"normal")
    conn.enqueue(b"urgent", urgent=True)
    assert receive(peer, len(LARGE) + 12) == LARGE + b"urgentnormal"
    assert task.get() == len(LARGE)


def test_an_urgent_file_overtakes_another_one(ends: Ends, small: Path, large: Path) -> None:
    conn, peer = ends.pair()
    taken = fill(conn)
    sleep(MOMENT)
    pycoronet.get_hub().call_soon_threadsafe(send_path, conn, large)
    pycoronet.get_hub().call_soon_threadsafe(lambda: send_path(conn, small, urgent=True))
    sleep(MOMENT)
    expected = b"f" * taken + CONTENT + LARGE
    assert receive(peer, len(expected)) == expected


def test_a_pipe_gets_files_too(ends: Ends, large: Path) -> None:
    read_end, write_end = os.pipe()
    reader = ends.keep(os.fdopen(read_end, "rb", buffering=0))
    conn = ends.conn(write_end)
    task = spawn(send_path, conn, large)
    received = b""
    while len(received) < len(LARGE):
        sleep(MOMENT)
        received += reader.read(1 << 20)
    assert received == LARGE
    task.get()


@pytest.mark.linux_only
@pytest.mark.parametrize("kind", ["unix", "tcp"])
def test_a_file_that_has_to_be_read(ends: Ends, large: Path, kind: str) -> None:
    conn, peer = ends.pair(kind)
    must_read(conn)
    conn.buffered = True
    conn.write(b"head")
    task = spawn(send_path, conn, large, offset=5)
    sleep(MOMENT)
    conn.enqueue(b"tail")
    expected = b"head" + LARGE[5:] + b"tail"
    assert receive(peer, len(expected)) == expected
    assert task.get() == len(LARGE) - 5


@pytest.mark.linux_only
def test_a_file_that_shrinks_while_it_is_read(ends: Ends, large: Path) -> None:
    conn, peer = ends.pair()
    must_read(conn)
    task = spawn(attempt, send_path, conn, large)
    sleep(MOMENT)
    os.truncate(large, 10)
    drain_now(peer)
    error = task.get()
    assert isinstance(error, OSError)
    assert error.errno == errno.EIO


def test_a_file_in_memory_without_a_name(ends: Ends) -> None:
    conn, peer = ends.pair()
    with tempfile.TemporaryFile() as file:
        file.write(CONTENT)
        file.flush()
        conn.sendfile(file)
    assert receive(peer, len(CONTENT)) == CONTENT


@pytest.mark.linux_only
def test_a_memory_file_and_a_device(ends: Ends) -> None:
    conn, peer = ends.pair()
    fd = os.memfd_create("x")
    os.write(fd, CONTENT)
    conn.sendfile(fd, close=True)
    with Path("/dev/zero").open("rb") as file:
        assert conn.sendfile(file, count=100_000) == 100_000
        with pytest.raises(ValueError, match="needs a count for a device"):
            conn.sendfile(file)
    assert receive(peer, len(CONTENT) + 100_000) == CONTENT + bytes(100_000)


@pytest.mark.linux_only
def test_files_that_do_not_tell_their_size_are_read_at_once(ends: Ends) -> None:
    conn, peer = ends.pair()
    path = Path("/proc/self/cmdline")
    content = path.read_bytes()
    assert path.stat().st_size == 0
    assert send_path(conn, path) == len(content)
    assert send_path(conn, path, offset=2, count=3) == 3
    assert receive(peer, len(content) + 3) == content + content[2:5]
    assert send_path(conn, path, offset=1 << 20) == 0


def test_an_empty_file(ends: Ends, tmp_path: Path) -> None:
    conn, _ = ends.pair()
    path = tmp_path / "empty"
    path.touch()
    assert send_path(conn, path) == 0
    assert conn.pending == 0


# --- What is refused --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "options", "error"),
    [
        ((-1,), {}, ValueError),
        ((0, -1), {}, ValueError),
        ((0, 1 << 70), {}, OverflowError),
        (("x",), {}, TypeError),
        ((None,), {}, TypeError),
        ((0, 1.5), {}, TypeError),
        ((), {"nonsense": 1}, TypeError),
        ((0, None, True), {}, TypeError),
    ],
)
def test_wrong_arguments(
    ends: Ends, small: Path, arguments: tuple[Any, ...], options: Any, error: type[Exception]
) -> None:
    conn, _ = ends.pair()
    before = open_descriptors()
    with small.open("rb") as file, pytest.raises(error):
        conn.sendfile(file, *arguments, **options)
    assert conn.pending == 0
    assert open_descriptors() == before


class Unclear:
    """Has no truth."""

    def __bool__(self) -> bool:
        raise KeyError


@pytest.mark.parametrize("name", ["close", "urgent"])
def test_flags_that_raise(ends: Ends, small: Path, name: str) -> None:
    conn, _ = ends.pair()
    with pytest.raises(KeyError):
        send_path(conn, small, **{name: Unclear()})


def test_what_is_no_file(ends: Ends, tmp_path: Path) -> None:
    conn, peer = ends.pair()
    read_end, write_end = os.pipe()
    ends.keep(os.fdopen(write_end, "wb"))
    with pytest.raises(OSError, match="not pipes and sockets") as caught:
        conn.sendfile(read_end, 0, 5, close=True)
    assert caught.value.errno == errno.ESPIPE
    os.close(read_end)  # it was not taken
    with pytest.raises(OSError, match="not pipes and sockets"):
        conn.sendfile(peer)
    folder = os.open(tmp_path, os.O_RDONLY)
    with pytest.raises(IsADirectoryError):
        conn.sendfile(folder)
    os.close(folder)
    with pytest.raises(OSError, match="descriptor") as caught:
        conn.sendfile(folder)
    assert caught.value.errno == errno.EBADF
    for nothing in (object(), "name", b"name"):
        with pytest.raises(TypeError):
            conn.sendfile(nothing)
    with pytest.raises(io.UnsupportedOperation):
        conn.sendfile(io.BytesIO(b"x"))
    with pytest.raises(ValueError, match="descriptor"):
        conn.sendfile(-1)
    assert conn.pending == 0


def test_connections_that_take_no_files(ends: Ends, small: Path) -> None:
    conn, _ = ends.pair("udp")
    with pytest.raises(ValueError, match="needs a stream"):
        send_path(conn, small)
    closed, _ = ends.pair()
    closed.close()
    with pytest.raises(ClosedError):
        send_path(closed, small)
    with pytest.raises(RuntimeError, match="thread"):
        pycoronet.to_thread(send_path, ends.pair()[0], small)


@pytest.mark.linux_only
def test_a_file_that_cannot_be_read(ends: Ends, tmp_path: Path) -> None:
    conn, peer = ends.pair()
    path = tmp_path / "written only"
    path.write_bytes(CONTENT)
    fd = os.open(path, os.O_WRONLY)
    conn.sendfile(fd, close=True)
    sleep(0)
    with pytest.raises(OSError, match="descriptor") as caught:
        conn.write(b"x")
    assert caught.value.errno == errno.EBADF
    conn.close()
    peer.close()
    other, _ = ends.pair()
    with pytest.raises(OSError, match="Input/output"):
        send_path(other, Path("/proc/self/mem"))
    assert other.pending == 0


@pytest.mark.linux_only
def test_no_descriptor_is_left(ends: Ends, small: Path) -> None:
    import resource

    conn, _ = ends.pair()
    with small.open("rb") as file:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (file.fileno() + 1, hard))
        try:
            error = attempt(conn.sendfile, file)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert isinstance(error, OSError)
        assert error.errno == errno.EMFILE
        assert conn.pending == 0
        assert conn.sendfile(file) == len(CONTENT)


# --- Closing the file --------------------------------------------------------------------------


def test_the_file_is_closed_when_asked(ends: Ends, small: Path) -> None:
    conn, peer = ends.pair()
    before = open_descriptors()
    file = small.open("rb")
    conn.sendfile(file, close=True)
    assert file.closed
    fd = os.open(small, os.O_RDONLY)
    conn.sendfile(fd, close=True)
    with pytest.raises(OSError, match="descriptor"):
        os.fstat(fd)
    empty = small.open("rb")
    assert conn.sendfile(empty, 1 << 20, close=True) == 0
    assert empty.closed
    conn.flush()
    assert open_descriptors() == before
    assert receive(peer, 2 * len(CONTENT)) == CONTENT * 2


def test_closing_the_file_that_raises_queues_nothing(ends: Ends, small: Path) -> None:
    conn, _ = ends.pair()

    class Stubborn(io.FileIO):
        def close(self) -> None:
            raise KeyError

    file = Stubborn(small)
    before = open_descriptors()
    with pytest.raises(KeyError):
        conn.sendfile(file, close=True)
    assert conn.pending == 0
    assert open_descriptors() == before
    io.FileIO.close(file)

    class Descriptor:
        def fileno(self) -> int:
            return fd

    fd = os.open(small, os.O_RDONLY)
    with pytest.raises(AttributeError):
        conn.sendfile(Descriptor(), close=True)
    os.close(fd)


def test_closing_the_file_that_closes_the_connection(ends: Ends, small: Path) -> None:
    conn, _ = ends.pair()

    class Fatal(io.FileIO):
        def close(self) -> None:
            super().close()
            conn.close()

    with pytest.raises(ClosedError):
        conn.sendfile(Fatal(small), close=True)
