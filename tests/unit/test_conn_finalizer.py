"""Connections that are dropped without close(), and those left open at exit."""

from __future__ import annotations

import gc
import os
import socket
import subprocess
import sys
import warnings
import weakref

import pytest
from connections import MOMENT, Ends, drain_now, fill

import pycoronet
from pycoronet import sleep, spawn

pytestmark = pytest.mark.usefixtures("virtual_hub")

# --- The finalizer ---------------------------------------------------------------------------


def test_a_dropped_connection_warns_and_closes(ends: Ends) -> None:
    conn, peer = ends.pair()
    plain, plain_peer = ends.sockets()
    del conn
    dropped = pycoronet.sk_conn(plain)
    number = dropped.fileno()
    with pytest.warns(ResourceWarning, match=rf"unclosed <sk_conn fd={number}>"):
        del dropped
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(number)
    assert plain_peer.recv(10) == b""
    assert peer.fileno() >= 0


def test_a_closed_connection_does_not_warn() -> None:
    left, right = socket.socketpair()
    conn = pycoronet.sk_conn(left)
    conn.close()
    right.close()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        del conn
        gc.collect()


def test_a_dropped_connection_sends_what_it_collected(ends: Ends) -> None:
    left, right = ends.sockets()
    conn = pycoronet.sk_conn(left)
    conn.buffered = True
    conn.write(b"farewell")
    with pytest.warns(ResourceWarning):
        del conn
    assert right.recv(100) == b"farewell"
    assert right.recv(100) == b""


def test_a_dropped_connection_lives_on_until_its_output_is_sent(ends: Ends) -> None:
    left, right = ends.sockets()
    conn = pycoronet.sk_conn(left)
    taken = fill(conn)
    conn.buffered = True
    conn.write(b"farewell")
    watcher = weakref.ref(conn)
    with pytest.warns(ResourceWarning):
        del conn
    received = b""
    while taken + 8 > len(received):
        sleep(MOMENT)
        received += drain_now(right)
    assert received.endswith(b"farewell")
    sleep(MOMENT)
    assert right.recv(10) == b""
    assert watcher() is None


def test_dropped_in_a_cycle_that_another_thread_collects(ends: Ends) -> None:
    left, right = ends.sockets()

    class Holder:
        pass

    gc.collect()
    gc.disable()
    try:
        holder = Holder()
        holder.me, holder.conn = holder, pycoronet.sk_conn(left)  # type: ignore[attr-defined]
        holder.conn.buffered = True  # type: ignore[attr-defined]
        holder.conn.write(b"bytes")  # type: ignore[attr-defined]
        reader = spawn(pycoronet.wait_readable, right)
        sleep(MOMENT)
        del holder

        def collect() -> None:
            gc.collect()

        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            pycoronet.to_thread(collect)
        assert any(issubclass(warning.category, ResourceWarning) for warning in seen)
        reader.join()
    finally:
        gc.enable()
    assert right.recv(100) == b"bytes"
    assert right.recv(100) == b""


def test_the_finalizer_keeps_the_exception_that_is_on_its_way(ends: Ends) -> None:
    left, _ = ends.sockets()

    def fail() -> None:
        conn = pycoronet.sk_conn(left)
        raise KeyError(conn.fileno())

    with pytest.warns(ResourceWarning), pytest.raises(KeyError):
        fail()
    gc.collect()


def test_a_warning_turned_into_an_error_is_reported_and_closes() -> None:
    code = """if 1:
        import os, socket, sys, warnings
        import pycoronet
        warnings.simplefilter("error")
        reports = []
        sys.unraisablehook = lambda report: reports.append(report.exc_type)
        left, right = socket.socketpair()
        conn = pycoronet.sk_conn(left)
        del conn
        assert reports == [ResourceWarning], reports
        assert right.recv(10) == b""
    """
    subprocess.run([sys.executable, "-X", "dev", "-c", code], check=True, timeout=60)


def test_connections_left_open_at_exit_are_sent_out() -> None:
    left, right = socket.socketpair()
    code = f"""if 1:
        import pycoronet
        conn = pycoronet.sk_conn({left.fileno()})
        conn.buffered = True
        conn.write(b"not flushed by anybody")
    """
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, pass_fds=[left.fileno()])
    left.close()
    right.settimeout(10)
    assert right.recv(100) == b"not flushed by anybody"
    right.close()


def test_os_close_then_drop_does_no_harm(ends: Ends) -> None:
    left, _ = ends.sockets()
    conn = pycoronet.sk_conn(left)
    os.close(conn.fileno())
    with pytest.raises(OSError, match="Bad file descriptor"):
        conn.close()
    assert conn.closed
    conn.close()
