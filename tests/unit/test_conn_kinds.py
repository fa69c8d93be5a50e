"""Connections over everything that can be waited for, not only sockets."""

from __future__ import annotations

import array
import os
import pty
import socket
import struct
import subprocess
import sys
import termios
import tty
from pathlib import Path
from typing import Any

import pytest
from connections import MOMENT, Ends, attempt, drain_now, fill

import pycoronet
from pycoronet import sk_conn, sleep, spawn

pytestmark = pytest.mark.usefixtures("virtual_hub")


# --- Pipes and FIFOs -------------------------------------------------------------------------


def test_a_pipe_both_ends(ends: Ends) -> None:
    read_end, write_end = os.pipe()
    reader, writer = ends.conn(read_end), ends.conn(write_end)
    task = spawn(reader.readln)
    sleep(MOMENT)
    writer.write(b"through the pipe\n")
    assert task.get() == b"through the pipe\n"
    content = bytes(range(256)) * 2000
    sending = spawn(lambda: (writer.write(content), writer.close()))
    assert reader.read(1 << 30) == content
    sending.get()
    assert reader.read(1) == b""


def test_the_wrong_end_of_a_pipe(ends: Ends) -> None:
    read_end, write_end = os.pipe()
    reader, writer = ends.conn(read_end), ends.conn(write_end)
    with pytest.raises(OSError, match="Bad file descriptor"):
        reader.write(b"x")
    with pytest.raises(OSError, match="Bad file descriptor"):
        writer.recv(1)
    with pytest.raises(OSError, match=r"[Nn]on-socket|[Ss]ocket operation"):
        reader.getpeername()


def test_a_fifo(ends: Ends, tmp_path: Path) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    reader = ends.conn(os.open(path, os.O_RDONLY | os.O_NONBLOCK))
    first = ends.conn(os.open(path, os.O_WRONLY))
    task = spawn(list, reader)
    sleep(MOMENT)
    first.write(b"one\ntw")
    sleep(MOMENT)
    second = ends.conn(os.open(path, os.O_WRONLY))
    first.close()
    second.write(b"o\n")
    sleep(MOMENT)
    assert not task.done
    second.close()
    assert task.get() == [b"one\n", b"two\n"]


def test_a_buffered_pipe_fills_and_drains(ends: Ends) -> None:
    read_end, write_end = os.pipe()
    reader, writer = ends.conn(read_end), ends.conn(write_end)
    taken = fill(writer)
    writer.buffered = True
    writer.write(b"one ")
    sleep(MOMENT)
    writer.write(b"two")
    writer.close()
    content = reader.read(1 << 30)
    assert content == b"f" * taken + b"one two"


# --- Blocking mode is given back -------------------------------------------------------------


@pytest.mark.parametrize("way", ["close", "abort", "drop", "with"])
def test_blocking_mode_of_a_pipe_is_restored(ends: Ends, way: str) -> None:
    read_end, write_end = os.pipe()
    kept = os.dup(read_end)  # the same open file, as a child or a shell has it
    conn = sk_conn(read_end)
    assert os.get_blocking(kept) is False
    if way == "with":
        with conn:
            pass
    elif way == "drop":
        with pytest.warns(ResourceWarning):
            del conn
    else:
        getattr(conn, way)()
    assert os.get_blocking(kept) is True
    os.close(kept)
    os.close(write_end)


def test_nonblocking_mode_stays_if_it_was_on(ends: Ends) -> None:
    read_end, write_end = os.pipe()
    os.set_blocking(read_end, False)
    kept = os.dup(read_end)
    sk_conn(read_end).close()
    assert os.get_blocking(kept) is False
    os.close(kept)
    os.close(write_end)


def test_blocking_mode_is_restored_after_draining(ends: Ends) -> None:
    read_end, write_end = os.pipe()
    kept = os.dup(write_end)
    reader, writer = ends.conn(read_end), sk_conn(write_end)
    taken = fill(writer)
    writer.buffered = True
    writer.write(b"x")
    writer.close()
    assert os.get_blocking(kept) is False
    assert len(reader.read(taken + 1)) == taken + 1
    sleep(MOMENT)
    assert os.get_blocking(kept) is True
    os.close(kept)


def test_blocking_mode_is_restored_at_exit() -> None:
    read_end, write_end = os.pipe()
    code = f"""if 1:
        import pycoronet
        conn = pycoronet.sk_conn({read_end})
        def forever():
            conn.read(10)
        task = pycoronet.spawn(forever)
        pycoronet.sleep(0)
    """
    subprocess.run([sys.executable, "-c", code], check=True, pass_fds=[read_end], timeout=60)
    assert os.get_blocking(read_end) is True
    os.close(read_end)
    os.close(write_end)


# --- Terminals -------------------------------------------------------------------------------


def terminal(ends: Ends) -> tuple[int, int]:
    """Return both sides of a terminal in raw mode: the program's (slave) and the master."""
    master, slave = pty.openpty()
    tty.setraw(slave, termios.TCSANOW)
    return slave, master


def test_a_terminal(ends: Ends) -> None:
    slave, master = terminal(ends)
    kept = os.dup(slave)
    conn, screen = ends.conn(slave), ends.conn(master)
    task = spawn(conn.readln)
    sleep(MOMENT)
    screen.write(b"ty")
    sleep(MOMENT)
    screen.write(b"ped\n")
    assert task.get() == b"typed\n"
    conn.printf(b"%s\n", b"shown")
    assert screen.readln() == b"shown\n"
    conn.close()
    assert os.get_blocking(kept) is True
    os.close(kept)


def test_a_terminal_in_line_mode(ends: Ends) -> None:
    master, slave = pty.openpty()
    conn, screen = ends.conn(slave), ends.conn(master)
    task = spawn(list, conn)
    sleep(MOMENT)
    screen.write(b"one\n")
    sleep(MOMENT)
    screen.write(b"two\n")
    sleep(MOMENT)
    screen.write(b"\x04")  # Ctrl-D: the end of file
    assert task.get() == [b"one\n", b"two\n"]
    assert screen.read(10) == b"one\r\ntwo\r\n"  # the echo


def test_a_terminal_that_hangs_up(ends: Ends) -> None:
    slave, master = terminal(ends)
    conn = ends.conn(slave)
    task = spawn(attempt, conn.recv, 10)
    sleep(MOMENT)
    os.close(master)
    outcome = task.get()
    assert outcome == b"" or isinstance(outcome, OSError)


# --- Event descriptors -----------------------------------------------------------------------


@pytest.mark.linux_only
@pytest.mark.skipif(not hasattr(os, "eventfd"), reason="os.eventfd is missing")
class TestEventfd:
    def test_counts(self, ends: Ends) -> None:
        kept = os.eventfd(0)
        conn = ends.conn(os.dup(kept))
        task = spawn(conn.recv, 8)
        sleep(MOMENT)
        assert not task.done
        os.eventfd_write(kept, 5)
        assert struct.unpack("Q", task.get()) == (5,)
        assert conn.write(struct.pack("Q", 3)) == 8
        assert conn.read(8) == struct.pack("Q", 3)
        os.close(kept)

    def test_semaphore_again_and_again(self, ends: Ends) -> None:
        conn = ends.conn(os.eventfd(3, os.EFD_SEMAPHORE))
        assert [struct.unpack("Q", conn.recv(8))[0] for _ in range(3)] == [1, 1, 1]
        conn.timeo = 1
        with pytest.raises(TimeoutError):
            conn.recv(8)

    def test_too_small_a_read(self, ends: Ends) -> None:
        conn = ends.conn(os.eventfd(1))
        with pytest.raises(OSError, match="Invalid argument"):
            conn.recv(4)
        assert conn.recv(8) == struct.pack("Q", 1)


@pytest.mark.parametrize("name", ["/dev/null", "/dev/zero"])
def test_devices_that_are_always_ready(ends: Ends, name: str) -> None:
    conn = ends.conn(os.open(name, os.O_RDWR))
    assert conn.write(b"x" * 100_000) == 100_000
    assert conn.read(5) == (b"" if name == "/dev/null" else bytes(5))


# --- Datagrams and packets -------------------------------------------------------------------


def test_udp(ends: Ends) -> None:
    conn, peer = ends.pair("udp")
    task = spawn(conn.recv, 100)
    sleep(MOMENT)
    peer.send(b"first")
    peer.send(b"second datagram")
    assert task.get() == b"first"
    assert conn.recv(6) == b"second"  # the rest of a datagram is cut off
    conn.timeo = 0
    with pytest.raises(TimeoutError):
        conn.recv(100)
    assert conn.write(b"answer") == 6
    assert peer.recv(100) == b"answer"


def test_udp_with_nobody_there(ends: Ends) -> None:
    conn, peer = ends.pair("udp")
    peer.close()
    conn.write(b"x")
    with pytest.raises(ConnectionRefusedError):
        conn.recv(100)


def test_seqpacket(ends: Ends) -> None:
    conn, peer = ends.pair("seqpacket")
    task = spawn(lambda: [conn.recv(100) for _ in range(3)])
    sleep(MOMENT)
    peer.send(b"one")
    peer.send(b"two")
    peer.close()
    assert task.get() == [b"one", b"two", b""]


def test_a_datagram_larger_than_the_socket_takes(ends: Ends) -> None:
    conn, _ = ends.pair("udp")
    with pytest.raises(OSError, match="too long"):
        conn.write(bytes(100_000))


# --- Unix sockets ----------------------------------------------------------------------------


def test_a_unix_stream_by_path(ends: Ends, tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    listener = ends.conn(listening_unix(path))
    connecting = spawn(pycoronet.connect, path)
    conn, _ = listener.accept()
    client = connecting.get()
    client.write(b"hello\n")
    assert conn.readln() == b"hello\n"
    client.close()
    conn.close()


def listening_unix(path: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(path)
    sock.listen()
    return sock


def test_descriptors_can_be_passed(ends: Ends) -> None:
    conn, peer = ends.pair()
    gift, other = ends.sockets()
    ends.keep(gift)
    rights = array.array("i", [gift.fileno()])
    task = spawn(conn.recvmsg, 100, socket.CMSG_SPACE(4))
    sleep(MOMENT)
    peer.sendmsg([b"here"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
    data, ancillary, _, _ = task.get()
    assert data == b"here"
    (received,) = struct.unpack("i", ancillary[0][2])
    passed = ends.conn(received)
    passed.write(b"mine now")
    assert drain_now(other) == b"mine now"


@pytest.mark.parametrize("verb", ["recv", "readln"])
def test_descriptors_nobody_asked_for_are_closed(ends: Ends, verb: str) -> None:
    conn, peer = ends.pair()
    read_end, write_end = os.pipe()
    rights = array.array("i", [write_end])
    peer.sendmsg([b"line\n"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
    os.close(write_end)
    calls: dict[str, Any] = {"recv": lambda: conn.recv(10), "readln": conn.readln}
    assert calls[verb]() == b"line\n"
    assert os.read(read_end, 1) == b""  # no writer is left
    os.close(read_end)
