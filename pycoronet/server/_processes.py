"""A server with worker processes: what its master opens, and how a worker heeds the master."""

import contextlib
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING

from .._coronet import _hub_exists, get_hub, signal_handler, spawn, wait_readable
from ._handover import HandoverPoint, take_over
from ._listeners import Listeners, open_for_workers
from ._master import Master
from ._shared_stats import SharedStats
from ._signal_watch import DEFAULTS
from ._worker import CANCEL, Worker

if TYPE_CHECKING:
    from ._server import Server

__all__ = ["Processes", "heeding_master"]

# These spread connections evenly over sockets that share a port; macOS gives one of them all.
_HAS_OWN_SOCKETS = sys.platform.startswith(("linux", "freebsd"))


class Processes:
    """In the master: the sockets, the statistics and the workers of a server."""

    def __init__(self, server: "Server") -> None:
        """Open the sockets, or take them from the master that runs; raise what that raises."""
        if _hub_exists():
            raise RuntimeError(
                "a server with processes forks, so nothing may have used this process' hub before"
            )
        count = server.processes or 1
        own = server.sharing == "reuse_port" or (server.sharing is None and _HAS_OWN_SOCKETS)
        point = predecessor = None
        with ExitStack() as undo:
            if server.handover is not None:
                point = HandoverPoint(server.handover)
                undo.callback(point.close)
                predecessor = take_over(server.handover)
                if predecessor is not None:
                    undo.callback(predecessor.close)
            listeners = open_for_workers(
                server.address,
                count=count if own else 1,
                predecessor=predecessor,
                reuse_port=server.reuse_port,
                backlog=server.backlog,
            )
            for entry in listeners:
                undo.callback(entry.close)
            pages = []
            if server.metrics is not None:
                pages = open_for_workers(
                    server.metrics, kind="metrics", count=1, predecessor=predecessor
                )
            undo.pop_all()
        self.sockets = _sockets_of(listeners)
        self.page_sockets = _sockets_of(pages)
        self.shared_stats = SharedStats(server.stats)
        self.master = Master(
            server._run_worker,
            listeners + pages,
            processes=count,
            drain_timeout=server.drain_timeout,
            handover=point,
            predecessor=predecessor,
            shared_stats=self.shared_stats,
        )


def _sockets_of(listeners: list[Listeners]) -> list[socket.socket]:
    return [sock for entry in listeners for sock in entry.sockets]


@contextlib.contextmanager
def heeding_master(server: "Server", worker: Worker) -> Iterator[None]:
    """Within this block, in a worker, the server serves until the master or SIGTERM ends it."""
    if signal.getsignal(signal.SIGTERM) in DEFAULTS:
        # Any number of times: a supervisor may tell all processes, and so does the master.
        signal_handler(signal.SIGTERM, lambda _: server.stop(wait=False))
    spawn(_heed, server, worker)
    if worker.row is not None:
        get_hub().call_every(server.delay, worker.row.publish, server.stats)
    worker.notify_ready()
    try:
        yield
    finally:
        if worker.row is not None:
            worker.row.publish(server.stats)


def _heed(server: "Server", worker: Worker) -> None:
    """Do what the master says."""
    while not worker.is_orphaned:
        wait_readable(worker.link)
        for command in worker.take_commands():
            if command == CANCEL:
                server.close()
            else:
                server.stop(wait=False)
