"""Waiting for many tasks: joinall, wait, iwait.

All of them stand on `Task.link`, and leave no link behind when they are through.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar

from ._coronet import ParkingLot, Task, current, get_hub
from ._deadlines import deadline_after, seconds_until
from .errors import Cancelled

__all__ = ["iwait", "joinall", "wait"]

Result = TypeVar("Result")


class Watch(Generic[Result]):
    """Tasks that somebody waits for, and those of them that have ended and were not taken.

    handles_failure: somebody will look at how they end. leave() has to be called in the end.
    """

    def __init__(
        self, tasks: Iterable[Task[Result]], operation: str, *, handles_failure: bool = True
    ) -> None:
        self.tasks = list(dict.fromkeys(tasks))
        self.pending: dict[Task[Result], None] = {}
        self.ended: deque[Task[Result]] = deque()
        self.failed: Task[Result] | None = None  # the first one; to be cancelled is no failure
        self._operation = operation
        self._lot = ParkingLot()
        self._wanted = 0  # how many have to have ended before who waits looks again
        self._check()
        try:
            for task in self.tasks:
                if not task.done:
                    task.link(self._note, handles_failure=handles_failure)
                    self.pending[task] = None
            for task in self.tasks:
                if task not in self.pending:
                    task.join()  # refuses one of another thread
                    self._keep(task)
        except BaseException:
            self.leave()
            raise

    def _check(self) -> None:
        for task in self.tasks:
            if not isinstance(task, Task):
                raise TypeError(f"{self._operation}() needs tasks, not {type(task).__name__}")
        if current() in self.tasks:
            raise RuntimeError(f"{self._operation}: a task cannot wait for itself")

    def _keep(self, task: Task[Result]) -> None:
        self.ended.append(task)
        is_failed = task.exception is not None and not isinstance(task.exception, Cancelled)
        if is_failed and self.failed is None:
            self.failed = task

    def _note(self, task: Task[Result]) -> None:
        del self.pending[task]
        self._keep(task)
        if len(self.ended) >= self._wanted or not self.pending or self.failed is task:
            while self._lot.unpark():
                pass

    def wait(
        self, count: int, seconds: float | None = None, *, until_failure: bool = False
    ) -> bool:
        """Wait until so many have ended and were not taken, or none is left that has to end.

        until_failure: or one has failed. False if the time was over before that.
        """
        deadline = deadline_after(seconds)
        while len(self.ended) < count and self.pending:
            if until_failure and self.failed is not None:
                break  # not reached: it failed between two waits
            self._wanted = count
            if not self._lot.park(self._operation, seconds_until(deadline)):
                return len(self.ended) >= count or not self.pending
        return True

    def leave(self) -> None:
        """Let go of those that have not ended."""
        while self.pending:
            self.pending.popitem()[0].unlink(self._note)


def joinall(
    tasks: Iterable[Task], timeout: float | None = None, *, raise_error: bool = False
) -> None:
    """Wait until all of the tasks have ended, however they end.

    timeout: seconds, None waits for ever, 0 only looks. raise_error: raise the first exception
    that one of them ends with, as soon as it does; to be cancelled is no failure.

    Raises TimeoutError if not all have ended by then, RuntimeError for the calling task, the
    main program, a task of another thread and in a hub callback. May switch. A task may be
    given twice. While this waits it is joining each of them, so no failure is reported.

    When it is cancelled, times out or raises, the tasks go on, and nobody joins them any more.

    Source: pycoronet's own.
    """
    watch = Watch(tasks, "joinall")
    try:
        is_in_time = watch.wait(len(watch.tasks), timeout, until_failure=raise_error)
        late = f"{len(watch.pending)} of {len(watch.tasks)}"
    finally:
        watch.leave()
    error = watch.failed.exception if raise_error and watch.failed is not None else None
    if error is not None:
        try:
            raise error
        finally:
            del tasks, watch, error  # its traceback refers to this frame
    if not is_in_time:
        raise TimeoutError(f"joinall: {late} tasks have not ended in time")


def wait(
    tasks: Iterable[Task[Result]], timeout: float | None = None, count: int | None = None
) -> tuple[set[Task[Result]], set[Task[Result]]]:
    """Wait until so many of the tasks have ended; return those that have, and those that not.

    timeout: seconds, after which it returns what there is; None waits for ever, 0 only looks.
    count: how many, None for all. Raises ValueError for a negative count; otherwise as
    `joinall()`. When it is cancelled the tasks go on. May switch.

    Source: pycoronet's own.
    """
    if count is not None and count < 0:
        raise ValueError("count must not be negative")
    watch = Watch(tasks, "wait")
    try:
        watch.wait(len(watch.tasks) if count is None else count, timeout)
    finally:
        watch.leave()
    done = {task for task in watch.tasks if task.done}
    return done, set(watch.tasks) - done


class _Completed(Iterator[Task[Result]]):
    """What `iwait()` returns."""

    _watch: Watch[Result] | None = None  # until it was made

    def __init__(self, tasks: Iterable[Task[Result]], timeout: float | None) -> None:
        self._hub = get_hub()
        self._deadline = deadline_after(timeout)
        self._watch = Watch(tasks, "iwait")

    def __next__(self) -> Task[Result]:
        watch = self._watch
        assert watch is not None
        while not watch.ended:
            if not watch.pending:
                raise StopIteration
            if not watch.wait(1, seconds_until(self._deadline)):
                raise TimeoutError(f"iwait: {len(watch.pending)} tasks have not ended in time")
        return watch.ended.popleft()

    def __del__(self) -> None:
        watch = self._watch
        if watch is not None and watch.pending:
            try:
                # It may go anywhere, in another thread, too.
                self._hub.call_soon_threadsafe(watch.leave)
            except RuntimeError:  # not reached: the hub is closed first
                pass  # the hub is closed, and the tasks are gone


def iwait(tasks: Iterable[Task[Result]], timeout: float | None = None) -> Iterator[Task[Result]]:
    """Iterate over the tasks as they end: those that have already in the order given.

        for task in iwait(tasks):
            print(task.get())

    timeout: seconds from now for all of it, None waits for ever. Raises at once what
    `joinall()` does for a wrong task. Taking the next one switches; it raises TimeoutError if
    none has ended by then, and may be tried again. Cancelled there, it has lost nothing.

    Until the iterator is dropped it is joining the tasks, so their failures are not reported.
    Dropped early, it leaves the tasks alone.

    Source: pycoronet's own.
    """
    return _Completed(tasks, timeout)
