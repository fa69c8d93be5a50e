"""Native threads that take jobs: as many as there is work for, within bounds.

One thread at a time is on its way, woken or started for a job: the one that became idle last, so
the same few stay warm. Jobs that come meanwhile wait in a queue, where a thread that is through
with its own takes the next one without being woken. The thread that arrives looks first whether
some wait still, and calls the next thread for them. So a burst of short jobs is done by a few
threads that do not fight for the interpreter, and one that blocks holds up nobody else.
"""

import collections
import contextlib
import os
import sys
import threading
import weakref
from collections.abc import Callable

from ._coronet import _close_at_exit, _count_idle_thread

__all__ = ["Job", "ThreadPool"]

# Does the work and raises nothing. What it returns is called when its thread counts as idle, so
# that whoever hears of the outcome by it finds the thread free.
Job = Callable[[], Callable[[], object] | None]


_forks = 0  # from the first process of the program to this one


def _end_process() -> None:
    """End a child that a thread of a pool has forked, when that thread is through.

    Idle threads of the child's own pools would keep it alive.
    """
    for thread in threading.enumerate():
        if not thread.daemon and thread is not threading.current_thread():
            thread.join()  # not reached: a child with threads of its own
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    os._exit(0)


class _Worker:
    """A thread of a pool, as those see it who give it jobs."""

    __slots__ = ("_gift", "_job", "forks")

    def __init__(self) -> None:
        self.forks = _forks
        self._job: Job | None = None
        self._gift = threading.Lock()  # free while there is a job to be taken
        self._gift.acquire()

    def give(self, job: Job | None) -> None:
        """Wake the thread with a job; None ends it."""
        self._job = job
        self._gift.release()

    def take(self) -> Job | None:
        """Wait for a job; in the worker's thread."""
        self._gift.acquire()
        job, self._job = self._job, None
        return job


class ThreadPool:
    """Daemon threads that run jobs; for any thread.

    minimum: this many stay when there is nothing to do. maximum: no more run. limit: how many
    jobs may wait for a thread, None for any number. name: of the threads.

    Threads start when they are needed, or with `start()`. In a forked child there are none, and
    nothing waits.
    """

    def __init__(
        self, minimum: int, maximum: int, *, limit: int | None = None, name: str = "pycoronet"
    ) -> None:
        self._minimum = minimum
        self._maximum = maximum
        self._limit = limit
        self._name = name
        self._is_closed = False
        self._forget()
        _pools.add(self)

    def _forget(self) -> None:
        """Begin with no threads."""
        self._lock = threading.Lock()  # guards what follows
        self._threads = 0
        self._idle: list[_Worker] = []
        self._fewest_idle = 0  # since the last shrink()
        self._waiting: collections.deque[Job] = collections.deque()
        self._is_calling = False  # a thread is on its way

    @property
    def threads(self) -> int:
        """How many threads there are."""
        return self._threads

    @property
    def idle(self) -> int:
        """How many of them have nothing to do."""
        return len(self._idle)

    @property
    def waiting(self) -> int:
        """How many jobs wait for a thread."""
        return len(self._waiting)

    @property
    def maximum(self) -> int:
        """How many threads may run."""
        return self._maximum

    def set_maximum(self, maximum: int) -> None:
        """Have no more threads than that from now on; 1 or more, and not below the minimum.

        Jobs that wait get threads at once if there may be more now. Threads that are too many
        end, the busy ones when they are through with their jobs. RuntimeError: there is no
        thread and the system gives none.
        """
        with self._lock:
            self._maximum = maximum
            self._end_idle(max(0, min(len(self._idle), self._threads - maximum)))
            if self._waiting and not self._is_calling:
                self._call_for_waiting()

    def start(self) -> None:
        """Start as many threads as there are at least. RuntimeError: the system refuses."""
        with self._lock:
            while self._threads < self._minimum:
                self._set_idle(self._start_thread())

    def submit(self, job: Job) -> bool:
        """Have a thread do the job, or let it wait for one; False if too many wait.

        RuntimeError: the pool is closed, or there is no thread and the system gives none.
        Does not wait, but for a thread to start.
        """
        with self._lock:
            if self._is_closed:
                raise RuntimeError("this pool of threads is closed")
            has_room = self._limit is None or len(self._waiting) < self._limit
            worker = self._call_worker() if not self._is_calling or not has_room else None
            if worker is None and not has_room:
                return False
            self._waiting.append(job)
            if worker is not None:
                worker.give(self._waiting.popleft())
        return True

    def shrink(self) -> None:
        """End the threads that had nothing to do since the last call; not below the minimum."""
        with self._lock:
            count = min(self._fewest_idle, self._threads - self._minimum)
            self._end_idle(max(count, 0))
            self._fewest_idle = len(self._idle)

    def close(self) -> list[Job]:
        """End each thread when it is through with its job; return the jobs that wait.

        Does not wait for them. Idempotent.
        """
        with self._lock:
            self._is_closed = True
            self._end_idle(len(self._idle))
            left = list(self._waiting)
            self._waiting.clear()
        return left

    # With the lock held.

    def _call_for_waiting(self) -> None:
        """Give the job that waits longest to a thread, if there is one or may be one more."""
        worker = self._call_worker()
        if worker is not None:
            worker.give(self._waiting.popleft())

    def _call_worker(self) -> _Worker | None:
        """Return a thread to be given a job, if there is one or may be one more."""
        worker = None
        if self._idle:
            worker = self._idle.pop()
            self._fewest_idle = min(self._fewest_idle, len(self._idle))
            _count_idle_thread(-1)
        elif self._threads < self._maximum:
            try:
                worker = self._start_thread()
            except (RuntimeError, MemoryError):
                if self._threads == 0:
                    raise
        self._is_calling = worker is not None
        return worker

    def _start_thread(self) -> _Worker:
        worker = _Worker()
        threading.Thread(target=self._work, args=(worker,), name=self._name, daemon=True).start()
        self._threads += 1
        return worker

    def _set_idle(self, worker: _Worker) -> None:
        self._idle.append(worker)
        _count_idle_thread(1)

    def _end_idle(self, count: int) -> None:
        """End those that have been idle for longest."""
        ending = self._idle[:count]
        del self._idle[:count]
        self._threads -= count
        _count_idle_thread(-count)
        for worker in ending:
            worker.give(None)

    # In the threads.

    def _work(self, worker: _Worker) -> None:
        try:
            job = self._arrive(worker)
            while job is not None:
                finish = job()
                if worker.forks != _forks:
                    # not reached: coverage.py does not see this child
                    _end_process()  # the job has forked: this is the child, all of it
                # What the job referred to must not live until the next one comes.
                job = self._take_waiting(worker)
                if finish is not None:
                    finish()
                    finish = None
                if job is None:
                    job = self._arrive(worker)
            _close_at_exit()  # the thread's hub, if its jobs have made one
        except BaseException:  # which jobs should not raise
            self._lose(worker)
            raise

    def _arrive(self, worker: _Worker) -> Job | None:
        """Wait for a job; see to it that those behind it get a thread."""
        job = worker.take()
        if job is not None:
            with self._lock:
                self._is_calling = False
                if self._waiting:
                    self._call_for_waiting()
        return job

    def _take_waiting(self, worker: _Worker) -> Job | None:
        """Return a job that waits; if there is none the thread is idle from now on, or ends."""
        with self._lock:
            is_one_too_many = self._threads > self._maximum
            if self._waiting and not is_one_too_many:
                return self._waiting.popleft()
            if self._is_closed or is_one_too_many:
                self._threads -= 1
                worker.give(None)
            else:
                self._set_idle(worker)
        return None

    def _lose(self, worker: _Worker) -> None:
        with self._lock:
            if worker in self._idle:
                self._idle.remove(worker)
                _count_idle_thread(-1)
            self._threads -= 1


_pools: weakref.WeakSet[ThreadPool] = weakref.WeakSet()


def _forget_threads() -> None:
    """After a fork the child has none of the threads."""
    global _forks
    _forks += 1
    for pool in _pools:
        _count_idle_thread(-pool.idle)
        pool._forget()


os.register_at_fork(after_in_child=_forget_threads)
