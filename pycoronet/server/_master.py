"""Master: the process that has the listening sockets, and keeps workers that serve them.

It forks, again and again, so it never has a hub or a thread: its loop is a selector over a
socket that signals write to, and over a link to each worker. One turn: take signals, take
what workers say, reap those that have ended, do what is due.

A worker is in one of these places: *current* (it serves; one for each index), *candidate*
(during a reload: to become current when all candidates are ready), or neither, when it has
been told to leave. It is in `_workers` until it has been reaped.
"""

import os
import selectors
import signal
import socket
import threading
import time
from collections.abc import Collection
from functools import partial
from selectors import EVENT_READ
from typing import Any

from ._arrivals import is_queued, stop_arrivals
from ._handover import HandoverPoint, Predecessor, addresses_of
from ._listeners import Listeners, close_listener, share_out
from ._signal_watch import SignalWatch, all_signals_blocked, ignore_defaults
from ._systemd import notify
from ._worker import CANCEL, DRAIN, RETIRE, SHARED, SOLE, Worker
from ._worker_process import BackOff, RunWorker, WorkerProcess, describe_status, logger

__all__ = ["Master"]

# What stop() posts among the signals.
_STOP = 0

# So many failures to start a worker, with none that ever got ready, and the master gives up.
START_ATTEMPTS = 3

# What a worker gets beyond the time it has for its handlers, before it is killed; and what
# it gets to cancel them.
GRACE_SECONDS = 5.0
CANCEL_SECONDS = 1.0


class Master:
    """Runs worker processes until it is told to stop.

    run_worker: called as run_worker(worker) in each new process, which ends when it returns.
    It calls worker.notify_ready() once it accepts, and heeds worker.take_commands().
    listeners: the sockets; the master closes them. processes: how many workers.
    drain_timeout: seconds that handlers may go on in a worker that leaves, None for no limit;
    the worker keeps to it, and is killed if it does not. start_timeout: seconds within which
    a worker has to be ready. shared_stats: a SharedStats, whose rows workers get.
    handover, predecessor: see `_handover.py`.

    SIGTERM and SIGINT drain, a second one cancels, a third one kills; SIGHUP replaces all
    workers by new ones. Where the user has a handler for one of them, that one is left alone.
    """

    def __init__(
        self,
        run_worker: RunWorker,
        listeners: list[Listeners],
        *,
        processes: int,
        drain_timeout: float | None = 30.0,
        start_timeout: float = 60.0,
        handover: HandoverPoint | None = None,
        predecessor: Predecessor | None = None,
        shared_stats: Any = None,
    ) -> None:
        self._run_worker = run_worker
        self._listeners = listeners
        self._processes = processes
        self._drain_timeout = drain_timeout
        self._start_timeout = start_timeout
        self._shared_stats = shared_stats
        self._handover = handover
        self._predecessor = predecessor
        self._signals = SignalWatch([signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD])
        self._workers: dict[int, WorkerProcess] = {}
        self._current: list[WorkerProcess | None] = [None] * processes
        self._candidates: list[WorkerProcess] = []
        self._back_offs = [BackOff() for _ in range(processes)]
        self._restart_at: dict[int, float] = {}
        self._start_failures = 0
        self._was_ready = False  # all workers were, once
        self._wants_reload = False
        self._failure: str | None = None
        self._stop_requests = 0
        self.received: int | None = None  # the signal that ended it
        self._emptied: set[socket.socket] = set()  # to the end: nothing arrives there any more
        self._rescues = processes

    # --- The loop ---------------------------------------------------------------------------

    def run(self) -> None:
        """Run the workers until the last has ended, after a signal or `stop()`.

        Raises RuntimeError if there are threads, or if no worker can start.
        """
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError("a server with processes runs in the main thread")
        if threading.active_count() > 1:
            raise RuntimeError("a server with processes forks, so no thread may run before it")
        # By poll(2): a kernel's queue would be another thing to share, or not, with children.
        with selectors.PollSelector() as self._selector, self._signals:
            self._selector.register(self._signals, EVENT_READ, lambda: None)
            try:
                for index in range(self._processes):
                    self._start_current(index)
                while self._workers or self._stop_requests == 0:
                    self._turn()
            except BaseException:
                self._end_at_once()
                raise
            finally:
                for worker in self._workers.values():
                    worker.link.close()  # not reached: no more memory for the next worker
                self.close_sockets()
        if self._failure is not None:
            raise RuntimeError(f"no worker can start: {self._failure}")

    def stop(self) -> None:
        """Do as for SIGTERM. May be called from a signal handler."""
        self._signals.post(_STOP)

    def close(self) -> None:
        """Do as for a second SIGTERM. May be called from a signal handler."""
        for _ in range(max(1, 2 - self._stop_requests)):
            self._signals.post(_STOP)

    def reload(self) -> None:
        """Do as for SIGHUP. May be called from a signal handler."""
        self._signals.post(signal.SIGHUP)

    def _turn(self) -> None:
        ready = self._selector.select(self._seconds_to_wait())
        for signum in self._signals.take():
            self._on_signal(signum)
        for key, _ in ready:
            # A signal, or what another one had to say, may have ended this one meanwhile.
            if self._selector.get_map().get(key.fd) is key:
                key.data()
        for worker in list(self._workers.values()):
            has_ended, status = worker.reap()
            if has_ended:
                self._on_end(worker, status)
        self._do_what_is_due()

    def _on_signal(self, signum: int) -> None:
        if signum == signal.SIGHUP:
            self._wants_reload = True
        elif signum in (signal.SIGTERM, signal.SIGINT, _STOP):
            self._stop_requests += 1
            if self._stop_requests == 1:
                self.received = None if signum == _STOP else signum
                notify("STOPPING=1")
                self._leave(self._shared_addresses())
            else:
                self._hurry()

    def _seconds_to_wait(self) -> float | None:
        moments = [*self._restart_at.values()]
        for worker in self._workers.values():
            if worker.kill_at is not None:
                moments.append(worker.kill_at)
        return max(0.0, min(moments) - time.monotonic()) if moments else None

    def _do_what_is_due(self) -> None:
        now = time.monotonic()
        for worker in self._workers.values():
            if worker.kill_at is not None and worker.kill_at <= now:
                worker.kill_at = None
                if not worker.is_ready and not worker.is_leaving:
                    worker.failure = f"not ready within {self._start_timeout:g} seconds"
                logger.warning("%s takes too long and is killed", worker)
                worker.signal(signal.SIGKILL)
        if self._stop_requests > 0:
            self._close_unattended()
            return
        for index in [index for index, moment in self._restart_at.items() if moment <= now]:
            self._restart_at.pop(index, None)
            self._start_current(index)
        if self._wants_reload and not self._candidates:
            self._reload()

    # --- Starting workers ---------------------------------------------------------------------

    def _start_current(self, index: int) -> None:
        if self._stop_requests > 0:
            return
        worker = self._fork(index, self._sockets_of(index))
        self._current[index] = worker
        if worker is None:
            self._restart(index, 0.0)

    def _sockets_of(self, index: int) -> list[socket.socket]:
        return share_out(self._listeners, index, self._processes)

    def _fork(self, index: int, sockets: list[socket.socket]) -> WorkerProcess | None:
        """Fork a worker; return None, and log it, if the system does not let us."""
        row = None
        try:
            if self._shared_stats is not None:
                row = self._shared_stats.take_row()
            ours, theirs = socket.socketpair()
        except (OSError, RuntimeError) as error:  # not reached: no more descriptors
            self._fail_to_fork(row, error)
            return None
        ours.setblocking(False)
        worker = Worker(index, sockets, theirs, row, is_shared=self._is_sharing())
        process = WorkerProcess(worker, ours, time.monotonic())
        process.kill_at = process.began + self._start_timeout
        # What a handler of the user's raises must not come before this one is known.
        with theirs, all_signals_blocked() as blocked:

            def forget_master() -> None:
                self._forget(ours, sockets)
                blocked.unblock()

            try:
                process.fork(worker, self._run_worker, forget_master)
            except OSError as error:
                ours.close()
                self._fail_to_fork(row, error)
                return None
            self._workers[process.pid] = process
            self._selector.register(ours, EVENT_READ, partial(self._take_messages, process))
        return process

    def _fail_to_fork(self, row: Any, error: Exception) -> None:
        if row is not None:
            self._shared_stats.retire(row)  # not reached: no more processes
        self._note_failure(f"fork failed: {error}")

    def _forget(self, link: socket.socket, sockets: list[socket.socket]) -> None:
        """Close in a new worker what is the master's alone.

        Links above all: while anybody has the master's end of one, that link does not end.
        """
        self._signals.forget()
        ignore_defaults([signal.SIGINT, signal.SIGHUP])  # a terminal tells all processes
        self._selector.close()
        link.close()
        for other in self._workers.values():
            other.link.close()
        if self._handover is not None:
            self._handover.forget()
        if self._predecessor is not None:
            self._predecessor.close()
        for entry in self._listeners:
            for sock in entry.sockets:
                if sock not in sockets:
                    sock.close()

    def _note_failure(self, reason: str) -> None:
        """Remember that a worker did not start; give up if none ever does."""
        self._start_failures += 1
        if self._was_ready or self._stop_requests > 0:
            return  # not reached: it was told to end first
        if self._start_failures >= START_ATTEMPTS and not any(
            worker.is_ready for worker in self._workers.values()
        ):
            self._failure = reason
            self._stop_requests = 1
            self._rescues = 0
            notify("STOPPING=1")
            self._leave(self._shared_addresses())

    # --- What workers say, and how they end -----------------------------------------------------

    def _take_messages(self, worker: WorkerProcess) -> None:
        lines, has_ended = worker.take_messages()
        for line in lines:
            if line == "ready":
                self._on_ready(worker)
            elif line == "leaving":
                self._on_leaving(worker)
            elif line in ("closed", "emptied"):
                self._emptied.update(worker.sockets if line == "emptied" else [])
                worker.sockets = []
            elif line.startswith("failed "):
                worker.failure = line[len("failed ") :]
        if has_ended:
            self._close_link(worker)

    def _close_link(self, worker: WorkerProcess) -> None:
        if worker.link.fileno() >= 0:
            self._selector.unregister(worker.link)
            worker.link.close()

    def _on_ready(self, worker: WorkerProcess) -> None:
        worker.is_ready = True
        if worker.is_leaving:
            return
        worker.kill_at = None
        self._start_failures = 0
        logger.info("%s is ready", worker)
        if worker in self._candidates:
            if all(candidate.is_ready for candidate in self._candidates):
                self._finish_reload()
        elif not self._was_ready and all(
            current is not None and current.is_ready for current in self._current
        ):
            self._on_all_ready()

    def _on_leaving(self, worker: WorkerProcess) -> None:
        """Replace a worker that somebody else has told to end."""
        if worker.is_leaving:
            return
        self._begin_to_leave(worker)
        if worker in self._candidates:
            # not reached: told to end in a reload
            self._abandon_reload(f"{worker} was told to end")
        elif self._stop_requests == 0:
            logger.info("%s leaves", worker)
            self._restart_at[worker.index] = time.monotonic()
            self._current[worker.index] = None

    def _on_end(self, worker: WorkerProcess, status: int | None) -> None:
        if worker.link.fileno() >= 0:
            self._take_messages(worker)  # its last words may be there still
            self._close_link(worker)
        del self._workers[worker.pid]
        if worker.row is not None:
            self._shared_stats.retire(worker.row)
        if worker.is_leaving:
            return
        reason = worker.failure or describe_status(status)
        if worker in self._candidates:
            self._abandon_reload(f"{worker}: {reason}")
            return
        if not worker.is_ready:
            self._note_failure(worker.failure or f"{worker} {reason}")
        if self._stop_requests == 0:
            self._current[worker.index] = None
            delay = self._restart(worker.index, time.monotonic() - worker.began)
            logger.warning("%s: %s; a new one starts in %g s", worker, reason, delay)

    def _restart(self, index: int, lifetime: float) -> float:
        delay = self._back_offs[index].next_delay(lifetime)
        if self._stop_requests == 0:
            self._restart_at[index] = time.monotonic() + delay
        return delay

    # --- Reloading ------------------------------------------------------------------------------

    def _reload(self) -> None:
        """Start a new worker for each index; they take over when all of them are ready.

        Whoever dies meanwhile among the old is replaced as ever: the new ones may fail.
        """
        self._wants_reload = False
        logger.info("reloading")
        notify("RELOADING=1")
        for index in range(self._processes):
            worker = self._fork(index, self._sockets_of(index))
            if worker is None:
                # not reached: no more processes
                self._abandon_reload("a worker could not be forked")
                return
            self._candidates.append(worker)

    def _finish_reload(self) -> None:
        old = [worker for worker in self._current if worker is not None]
        self._current = list(self._candidates)
        self._candidates = []
        self._restart_at.clear()
        self._back_offs = [BackOff() for _ in range(self._processes)]
        for worker in old:
            self._retire(worker, RETIRE)
        logger.info("reloaded")
        if self._was_ready:
            notify("READY=1")
        else:
            self._on_all_ready()

    def _abandon_reload(self, reason: str) -> None:
        candidates, self._candidates = self._candidates, []
        for worker in candidates:
            self._retire(worker, RETIRE)
        if self._stop_requests == 0:
            logger.error("not reloaded, the old workers stay: %s", reason)
            notify("READY=1")

    # --- Leaving --------------------------------------------------------------------------------

    def _begin_to_leave(self, worker: WorkerProcess) -> None:
        worker.is_leaving = True
        worker.kill_at = None
        if self._drain_timeout is not None:
            worker.kill_at = time.monotonic() + self._drain_timeout + GRACE_SECONDS

    def _retire(self, worker: WorkerProcess, command: str) -> None:
        """Tell a worker to end, by what it understands."""
        if not worker.is_leaving:
            self._begin_to_leave(worker)
        # One that is not ready may not listen to its link yet, and has accepted nothing.
        if not worker.tell(command) or not worker.is_ready:
            worker.signal(signal.SIGTERM)

    def _leave(self, inherited: Collection[str]) -> None:
        """Begin to end all workers. inherited: the addresses that another master serves.

        To the queues of the other addresses nothing is added any more, and the workers take
        what is there.
        """
        self._restart_at.clear()
        self._candidates = []
        self._end_handovers()
        self._leave_to_others(inherited)
        drained = [entry for entry in self._listeners if entry.is_drained]
        for entry in drained:
            for sock in entry.sockets:
                stop_arrivals(sock)
        logger.info("stopping")
        for worker in list(self._workers.values()):
            self._retire(worker, DRAIN if drained else RETIRE)

    def _leave_to_others(self, inherited: Collection[str]) -> None:
        """Close what somebody else goes on with, so that they find it as it was."""
        for entry in list(self._listeners):
            if entry.address in inherited or entry.are_borrowed:
                entry.leave()
                self._listeners.remove(entry)

    def _hurry(self) -> None:
        """Have handlers cancelled, and at the third request kill whoever is left."""
        for worker in self._workers.values():
            if self._stop_requests == 2:
                worker.tell(CANCEL)
                worker.kill_at = time.monotonic() + CANCEL_SECONDS
            else:
                worker.signal(signal.SIGKILL)

    def _close_unattended(self) -> None:
        """Close the sockets that no worker takes from any more.

        If the last one has died there may be connections in the queue: one more worker gets
        them.
        """
        attended = {sock for worker in self._workers.values() for sock in worker.sockets}
        queued = []
        for entry in self._listeners:
            for sock in [sock for sock in entry.sockets if sock not in attended]:
                if entry.is_drained and self._rescues > 0 and self._may_be_queued(sock):
                    queued.append(sock)
                else:
                    entry.sockets.remove(sock)
                    close_listener(sock)
        if queued:
            self._rescues -= 1
            worker = self._fork(0, queued)
            if worker is not None:
                self._begin_to_leave(worker)
                worker.tell(DRAIN)

    def _may_be_queued(self, sock: socket.socket) -> bool:
        # Only once, by the worker who took the last: what let nothing in is readable ever after.
        is_unix = sock.family == socket.AF_UNIX
        return sock not in self._emptied if is_unix else is_queued(sock)

    def _end_at_once(self) -> None:
        """Cancel all handlers, then kill; after an error, or what a signal handler raised."""
        self._stop_requests = 2
        self._rescues = 0
        self._leave_to_others(self._shared_addresses())
        self._restart_at.clear()
        self._candidates = []
        try:
            self._hurry()
            while self._workers:
                self._turn()
        finally:
            for worker in self._workers.values():
                worker.signal(signal.SIGKILL)  # not reached: a second failure while it ends
                worker.reap(waits=True)

    def close_sockets(self) -> None:
        """Close what was opened for the workers, and tell nobody; `run()` ends with it."""
        for entry in self._listeners:
            entry.close()
        if self._handover is not None:
            self._handover.close()
        if self._predecessor is not None:
            self._predecessor.close()  # not reached: closed before it has begun

    # --- Handing over -----------------------------------------------------------------------------

    def _on_all_ready(self) -> None:
        """All workers are ready, for the first time: from now on this is the master."""
        self._was_ready = True
        if self._handover is not None:
            self._handover.publish()
            self._selector.register(self._handover.listener, EVENT_READ, self._meet_successor)
        if self._predecessor is None:
            notify("READY=1")
            return
        # Before the other one ends, which is the one that systemd has started.
        notify("READY=1", f"MAINPID={os.getpid()}")
        self._predecessor.release()
        self._predecessor = None
        self._tell_all(SOLE)
        for entry in self._listeners:
            entry.adopt()

    def _meet_successor(self) -> None:
        assert self._handover is not None
        conn = self._handover.accept()
        if conn is not None:
            self._selector.register(conn, EVENT_READ, self._hear_successor)

    def _hear_successor(self) -> None:
        assert self._handover is not None
        assert self._handover.successor is not None
        try:
            for line in self._handover.read_lines():
                if line == "take":
                    self._tell_all(SHARED)  # before it has any: this process may die at any moment
                    self._handover.send({entry.address: entry.sockets for entry in self._listeners})
                else:
                    inherited = addresses_of(line)
                    logger.info("a new master serves")
                    self._stop_requests = 1
                    self._leave(inherited)  # the service goes on, so it is not STOPPING
                    return
        except (OSError, ValueError) as error:
            logger.warning("no handover, this master goes on: %s", error)
            self._selector.unregister(self._handover.successor)
            self._handover.drop_successor()
            self._tell_all(SOLE)

    def _end_handovers(self) -> None:
        """Have nothing to do with other masters any more: the one that there is goes on."""
        if self._predecessor is not None:
            self._predecessor.close()
            self._predecessor = None
        if self._handover is not None:
            for sock in (self._handover.listener, self._handover.successor):
                if sock is not None and sock in self._selector.get_map():
                    self._selector.unregister(sock)
            self._handover.close()
            self._handover = None

    def _tell_all(self, command: str) -> None:
        for worker in self._workers.values():
            worker.tell(command)

    def _is_sharing(self) -> bool:
        """Tell whether another master has the sockets at this moment, too."""
        has_successor = self._handover is not None and self._handover.has_sent
        return has_successor or self._predecessor is not None

    def _shared_addresses(self) -> list[str]:
        return [entry.address for entry in self._listeners] if self._is_sharing() else []
