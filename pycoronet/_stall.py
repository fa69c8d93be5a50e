"""The thread behind Hub.set_stall_limit(): it looks who keeps the hub, and for how long."""

from __future__ import annotations

import os
import sys
import threading
import time
import traceback
import weakref
from collections.abc import Callable
from typing import Any

from ._coronet import Hub, _count_idle_thread, _report
from .errors import StalledError

__all__ = ["StallWatch", "start_watch"]

LOOKS = 4  # at the hub in the time of a limit
LEAST_INTERVAL = 0.001  # seconds between two of them

Function = Callable[[StalledError], Any]


class StallWatch:
    """Looks at a hub from a thread of its own, and reports each stall once."""

    def __init__(self, hub: Hub, limit: float, function: Function | None) -> None:
        self._hub = hub
        self._limit = limit
        self._function = function
        self._forget()
        _watches.add(self)

    def _forget(self) -> None:
        """Begin without a thread."""
        self._lock = threading.Lock()  # guards what follows
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._is_idle = False  # the thread counts as one that wakes nobody
        self._seen: tuple[int, int, int] | None = None  # the hub's progress ...
        self._since = 0.0  # ... since then
        self._is_told = False

    def look(self, now: float) -> StalledError | None:
        """Return what is to be reported, if the hub is stuck at this time."""
        progress = self._hub._progress()
        if progress is None or progress != self._seen:
            self._seen = progress
            self._since = now
            self._is_told = False
            return None
        if self._is_told or now - self._since < self._limit:
            return None
        error = StalledError(self._hub._holder(), now - self._since, self._find_stack())
        if self._hub._progress() != progress:
            # not reached: it goes on just then
            return None  # it has gone on meanwhile
        self._is_told = True
        return error

    def _find_stack(self) -> traceback.StackSummary:
        frame = sys._current_frames().get(self._hub._thread_id)
        return traceback.extract_stack(frame) if frame else traceback.StackSummary()

    def start(self) -> None:
        """Start the thread. RuntimeError: the system refuses."""
        thread = threading.Thread(
            target=self._run, args=(self._ended,), name="pycoronet stall watch", daemon=True
        )
        with self._lock:
            thread.start()
            self._thread = thread
            self._set_idle(True)

    def close(self, waits: bool) -> None:
        """End the thread; wait for that unless it is reporting something just now."""
        with self._lock:
            thread, self._thread = self._thread, None
            self._ended.set()
            waits = waits and self._is_idle
        if waits and thread is not None:
            thread.join()
        with self._lock:
            self._set_idle(False)

    def _set_idle(self, is_idle: bool) -> None:
        if is_idle != self._is_idle:
            self._is_idle = is_idle
            _count_idle_thread(1 if is_idle else -1)

    # In the thread.

    def _run(self, ended: threading.Event) -> None:
        while not ended.wait(max(self._limit / LOOKS, LEAST_INTERVAL)):
            try:
                error = self.look(time.monotonic())
                if error is not None:
                    self._tell(error, ended)
            except Exception as failure:  # not reached: a function that fails is reported by itself
                _report(failure, self._hub)
            if ended is not self._ended:
                # not reached: a function that forks
                return  # what was called has forked, and this is all that lives on in the child

    def _tell(self, error: StalledError, ended: threading.Event) -> None:
        with self._lock:
            if ended.is_set():
                return  # not reached: it ends just then
            self._set_idle(False)  # what is called may wake somebody
        try:
            if self._function is None:
                _report(error, error.task or self._hub)
            else:
                self._function(error)
        except BaseException as failure:
            _report(failure, self._function)
        finally:
            with self._lock:
                self._set_idle(not ended.is_set() and ended is self._ended)


def start_watch(settings: tuple[Hub, float, Function | None]) -> StallWatch:
    """Return a watch for (hub, limit in seconds, function or None) whose thread runs."""
    watch = StallWatch(*settings)
    watch.start()
    return watch


_watches: weakref.WeakSet[StallWatch] = weakref.WeakSet()


def _forget_threads() -> None:
    """After a fork the child has none of the threads; its hub starts its own anew."""
    for watch in _watches:
        watch._set_idle(False)
        watch._forget()


os.register_at_fork(after_in_child=_forget_threads)
