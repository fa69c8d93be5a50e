"""What all tests share: markers for systems, and where the checkout is."""

from __future__ import annotations

import gc
import os
import resource
import signal
import socket
import sys
import threading
import time
import unittest
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import certificates as certificates_module
import pytest
from c_api_case import load_probe
from connections import PEER_TIMEOUT, Ends, Keep
from recorders import turn
from sendfile_case import CONTENT, LARGE
from thread_case import Gate, ThreadServers

import pycoronet
from pycoronet import Server, _coronet, _descriptors, _thread_pool, libreact, libsock
from pycoronet.testing import virtual_time

ROOT = Path(__file__).resolve().parent.parent
IS_LINUX = sys.platform.startswith("linux")
POOL_THREADS = {"pycoronet", "pycoronet names", "pycoronet server"}
IS_BSD = sys.platform == "darwin" or "bsd" in sys.platform


# A path of macOS' own folder for temporary files would be too long for a Unix socket.
if sys.platform == "darwin":
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", "/tmp")


# What a shell runs in the background has SIGINT ignored, what nohup runs has SIGHUP, and so have
# their children; tests send both.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what this system or build cannot have, with the reason in the report."""
    if item.get_closest_marker("linux_only") and not IS_LINUX:
        pytest.skip("needs Linux")
    if item.get_closest_marker("bsd_only") and not IS_BSD:
        pytest.skip("needs kqueue: macOS or a BSD")
    optimisation = item.get_closest_marker("optimisation")
    if optimisation is not None and _coronet.HARD_MODE:
        pytest.skip(f"hard mode does without: {optimisation.args[0]}")


@pytest.fixture(autouse=True, scope="module")
def frozen_heap() -> None:
    """Keep the collector to what the module's tests make.

    Some call it thousands of times, and it would look at all of pytest and of earlier tests.
    """
    gc.collect()
    gc.freeze()


def end_idle_threads() -> None:
    """End the threads that wait for more to do in the pools; they may have hubs."""
    deadline = time.monotonic() + PEER_TIMEOUT
    while time.monotonic() < deadline:
        pools = [pool for pool in _thread_pool._pools if not pool._is_closed]
        for pool in pools:
            pool.shrink()
        staying = sum(min(pool._minimum, pool.threads) for pool in pools)
        threads = [thread for thread in threading.enumerate() if thread.name in POOL_THREADS]
        if len(threads) <= staying:
            return
        threads[0].join(0.01)  # some may have been busy until now, or are about to end


@pytest.fixture(autouse=True)
def nothing_left_alive(request: pytest.FixtureRequest) -> Iterator[None]:
    """In a debug build of ours, see that a test leaves no connection, timer, packet ..."""
    count = getattr(pycoronet._coronet, "live_counts", None)
    if count is None:
        yield
        return
    before = count()
    yield
    if request.node.get_closest_marker("leaves_something") is not None:
        return
    if request.node.funcargs is not None:  # it is if somebody interrupts the run
        request.node.funcargs.clear()  # they refer to what has ended
    if isinstance(request.instance, unittest.TestCase):
        vars(request.instance).clear()  # so do these
    pycoronet.get_hub().close()
    _descriptors._table.clear()  # keeps who had a number until it is given out again
    end_idle_threads()
    gc.collect()
    after = count()
    assert {kind: after[kind] - before[kind] for kind in after if after[kind] > before[kind]} == {}


@pytest.fixture(scope="session")
def root() -> Path:
    """Return the folder of the checkout."""
    return ROOT


@pytest.fixture
def virtual_hub() -> Iterator[pycoronet.Hub]:
    """Give this thread a hub whose clock only moves when nothing else can go on."""
    with virtual_time() as hub:
        yield hub


@pytest.fixture
def ends() -> Iterator[Ends]:
    """Return a maker of connections that closes them at the end of the test."""
    made = Ends()
    yield made
    made.close()


@pytest.fixture
def keep(ends: Ends) -> Keep:
    """Return a function that closes its argument at the end of the test."""
    return ends.keep


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """Return the two ends of a pipe, which are closed in the end."""
    both = os.pipe()
    yield both
    for fd in both:
        try:
            pycoronet.notify_closing(fd)
            os.close(fd)
        except OSError:
            pass  # the test has closed it


@pytest.fixture
def reports(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Collect what is reported through sys.unraisablehook."""
    reports: list[Any] = []
    monkeypatch.setattr("sys.unraisablehook", lambda report: reports.append(report.exc_value))
    return reports


@pytest.fixture
def listener(ends: Ends) -> Any:
    """Return a listener on a port of its own."""
    return ends.keep(pycoronet.listen(("127.0.0.1", 0)))


@pytest.fixture
def dial(ends: Ends, listener: Any) -> Callable[[], socket.socket]:
    """Return a function that connects to the listener."""

    def connect() -> socket.socket:
        return ends.keep(socket.create_connection(listener.getsockname(), PEER_TIMEOUT))

    return connect


@pytest.fixture
def few_descriptors() -> Iterator[Callable[[int], None]]:
    """Return a function that leaves so many descriptors to be opened."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)

    def leave(number: int) -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        probe = os.dup(0)
        os.close(probe)
        resource.setrlimit(resource.RLIMIT_NOFILE, (probe + number, hard))

    yield leave
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> certificates_module.Certificates:
    """Return a test authority and certificates that it has signed."""
    if not certificates_module.is_possible():
        pytest.skip("the openssl command is not installed")
    return certificates_module.Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="session")
def probe(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return an extension that calls the C API, one function each."""
    return load_probe(tmp_path_factory.mktemp("probe"))


@pytest.fixture
def opened(ends: Ends) -> Iterator[Callable[[], tuple[int, socket.socket]]]:
    """Return a maker of sockets that libsock has opened, with their peers."""
    uuids: list[int] = []

    def make() -> tuple[int, socket.socket]:
        left, right = ends.sockets()
        fd = left.detach()
        assert libsock.sock_open(None, fd) == 0
        uuids.append(libsock.sock_fd2uuid(fd))
        return fd, right

    yield make
    for uuid in uuids:
        if libsock.sock_isvalid(uuid):
            libsock.sock_force_close(None, uuid)


@pytest.fixture
def reactors() -> Iterator[Callable[..., libreact.Reactor]]:
    """Return a maker of reactors, which are stopped in the end."""
    made: list[libreact.Reactor] = []

    def make(**functions: Any) -> libreact.Reactor:
        made.append(libreact.Reactor(**functions))
        return made[-1]

    yield make
    for reactor in made:
        libreact.reactor_stop(reactor)
        libreact.reactor_review(reactor)


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """Return a file that is queued without waiting."""
    path = tmp_path / "small"
    path.write_bytes(CONTENT)
    return path


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """Return a file that no socket takes at once."""
    path = tmp_path / "large"
    path.write_bytes(LARGE)
    return path


@pytest.fixture
def start_server(ends: Ends) -> Callable[..., Any]:
    """Return a function that starts a thread-pool server, which is closed in the end."""
    servers: ThreadServers = ends.keep(ThreadServers())
    return servers.start


@pytest.fixture
def call_server(ends: Ends) -> Callable[..., Any]:
    """Return a function that connects to a server, on the hub that accepts as well."""

    def call(server: Any, **settings: Any) -> Any:
        return ends.keep(pycoronet.connect(server.addresses[0], **settings))

    return call


@pytest.fixture
def gate(start_server: Callable[..., Any]) -> Iterator[Gate]:
    """Return a handler that blocks; it is let go before its server is closed."""
    gate = Gate()
    yield gate
    gate.opened.set()


@pytest.fixture
def virtual_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have time pass in hubs of other threads as soon as nothing else goes on there."""
    pycoronet.get_hub()
    monkeypatch.setenv("PYCORONET_ENGINE", "fake")


@pytest.fixture
def serve() -> Iterator[Callable[..., Any]]:
    """Return a function that starts a server; all are closed in the end."""
    made: list[Any] = []

    def start(handler: Any, strategy: str = "callback", **settings: Any) -> Any:
        made.append(Server(("127.0.0.1", 0), handler, strategy=strategy, **settings))
        made[-1].start()
        return made[-1]

    yield start
    for server in made:
        server.close()
    turn()


@pytest.fixture
def call(ends: Ends) -> Callable[..., socket.socket]:
    """Return a function that connects to a server from outside."""

    def connect(server: Any, which: int = 0) -> socket.socket:
        address = server.addresses[which]
        family = socket.AF_UNIX
        if isinstance(address, tuple):
            family = socket.AF_INET if len(address) == 2 else socket.AF_INET6
        peer = ends.keep(socket.socket(family))
        peer.settimeout(PEER_TIMEOUT)
        peer.connect(address)
        return peer

    return connect
