"""Pool: at most so many tasks at once."""

import operator
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Any, NamedTuple, ParamSpec, TypeVar, overload

from ._coronet import (
    ParkingLot,
    Semaphore,
    SimpleQueue,
    Task,
    _report,
    current,
    get_hub,
    shield,
    sleep,
    spawn,
)
from ._deadlines import deadline_after, seconds_until
from ._waiting import Watch
from .errors import Cancelled, ShutDown

__all__ = ["Pool"]

Parameters = ParamSpec("Parameters")
Item = TypeVar("Item")
Result = TypeVar("Result")


class _Outcome(NamedTuple):
    """What a call came to: a value, or an exception."""

    number: int  # of the call, from 0
    value: Any
    error: BaseException | None


class _Calls:
    """The calls of one map() or imap() on their way through a pool.

    A task of their own, the *feeder*, takes from the iterable and starts them. So whoever reads
    the outcomes may be cancelled there, and neither they nor the iterable come to harm.

    in_order: give the outcomes in the order of the calls. ahead: how many calls may have been
    started whose outcomes were not read, None for any number.
    """

    def __init__(
        self,
        pool: "Pool",
        function: Callable[..., Any],
        inputs: Iterator[Any],
        *,
        in_order: bool,
        ahead: int | None,
    ) -> None:
        self.is_held = False  # nothing is started before something is read
        self._pool = pool
        self._function = function
        self._inputs = inputs
        self._in_order = in_order
        self._room = None if ahead is None else Semaphore(ahead)
        self._outcomes: SimpleQueue[_Outcome] = SimpleQueue()
        self._running: dict[Task, int] = {}  # and the number of each
        self._early: dict[int, _Outcome] = {}  # those that one before them has not come for
        self._next = 0  # the number of that one
        self._is_fed = False
        self._is_cancelled = False
        self._is_stopped = False
        self._error: BaseException | None = None  # what the feeder has ended with
        self.feeder = spawn(self._feed)
        self.feeder.name = repr(self)
        self.feeder.link(self._note_fed, handles_failure=True)

    def __repr__(self) -> str:
        name = getattr(self._function, "__qualname__", repr(self._function))
        return f"<calls of {name} in {self._pool!r}>"

    # In the feeder.

    def _feed(self) -> None:
        self._wait_for_room()
        for number, arguments in enumerate(self._inputs):
            task = self._pool.spawn(self._function, *arguments)
            task.link(self._note_end, handles_failure=True)
            self._running[task] = number
            if self._is_cancelled:
                # It had got its room just before that, and so the wait for it was over.
                task.cancel()
                sleep(0)  # raises Cancelled
            self._wait_for_room()

    def _wait_for_room(self) -> None:
        if self._room is not None and not self._room.acquire(blocking=False):
            self.is_held = True  # a call has just begun: its end wakes those who join
            try:
                self._room._acquire_as("spawn", self, True, None)
            finally:
                self.is_held = False

    # In the hub.

    def _note_fed(self, feeder: Task) -> None:
        self._is_fed = True
        self._error = feeder.exception
        self._end_if_over()

    def _note_end(self, task: Task) -> None:
        number = self._running.pop(task)
        error = task.exception
        outcome = _Outcome(number, task.get() if error is None else None, error)
        if self._is_stopped or not self._in_order:
            self._give(outcome)
        else:
            self._early[number] = outcome
            while self._next in self._early:
                self._give(self._early.pop(self._next))
                self._next += 1
        self._end_if_over()

    def _give(self, outcome: _Outcome) -> None:
        if self._is_stopped:
            self._report(outcome.error)
        else:
            self._outcomes.put(outcome)

    def _end_if_over(self) -> None:
        if self._is_fed and not self._running:
            self._outcomes.shutdown()
            self._pool._forget_calls(self)
            if self._is_stopped:
                self._report(self._error)
                self._error = None

    def _report(self, error: BaseException | None) -> None:
        if not isinstance(error, (Cancelled, KeyboardInterrupt, SystemExit, type(None))):
            _report(error, self)

    # By whoever reads.

    def take(self) -> _Outcome | None:
        """Wait for the next outcome; raise it if it is an exception. None: there is none left.

        Any number of tasks may take. Switches.
        """
        try:
            outcome = self._outcomes.get()
        except ShutDown:
            error, self._error = self._error, None
            if error is None:
                return None
        else:
            if self._room is not None:
                self._room.release()
            error = outcome.error
            if error is None:
                return outcome
            del outcome
        try:
            if isinstance(error, StopIteration):
                raise RuntimeError("the function raised StopIteration") from error
            raise error
        finally:
            del error  # its traceback refers to this frame, and so to the reader

    def is_over(self) -> bool:
        """Return whether all was read."""
        return self._outcomes.is_shutdown and self._outcomes.empty() and self._error is None

    def cancel(self, reason: object = None) -> None:
        """Start no more."""
        self._is_cancelled = True
        self.feeder.cancel(reason)
        self.is_held = False  # it has to end, whoever reads

    def stop(self) -> None:
        """Cancel what has not ended; report what has failed and was not read, or fails now."""
        if self._is_stopped:
            return
        self._is_stopped = True
        self.cancel()
        for task in self._running:
            task.cancel()
        while not self._outcomes.empty():
            self._report(self._outcomes.get_nowait().error)
        while self._early:
            self._report(self._early.popitem()[1].error)
        self._end_if_over()

    def wait_until_over(self) -> None:
        """Wait until what was stopped has ended."""
        try:
            self._outcomes.get()
        except ShutDown:
            pass


class _Results(Iterator[Result]):
    """What imap() and imap_unordered() return."""

    _calls: _Calls | None = None  # until it was made

    def __init__(self, calls: _Calls) -> None:
        self._hub = get_hub()
        self._calls = calls

    def __next__(self) -> Result:
        assert self._calls is not None
        outcome = self._calls.take()
        if outcome is None:
            raise StopIteration
        value: Result = outcome.value
        return value

    def close(self) -> None:
        """Cancel what has not ended. What has failed and was not read is reported.

        Does not wait; the pool's join() does. Never switches.
        """
        assert self._calls is not None
        self._calls.stop()

    def __del__(self) -> None:
        if self._calls is not None and not self._calls.is_over():
            try:
                # It may go anywhere, in another thread, too.
                self._hub.call_soon_threadsafe(self._calls.stop)
            except RuntimeError:
                pass  # the hub is closed, and the tasks are gone


class Pool:
    """At most so many tasks at once: whoever starts one more waits until one has ended.

        with Pool(100) as pool:
            for page in pool.imap(fetch, addresses):
                ...

    size: 1 or more. A pool belongs to the thread that made it: RuntimeError in another one. A
    task of the pool that starts another one there waits with its place taken; if all do, they
    wait for each other. In a forked child the pool is empty.

    As a context manager it waits in the end until its tasks have ended; if the block raises, or
    that wait is cancelled, it cancels them first. No task is left after the block. A task's
    failure does not end the block: it is reported, as ever, if nobody joins that task.

    Source: pycoronet's own.
    """

    __module__ = "pycoronet"

    def __init__(self, size: int) -> None:
        self._size = operator.index(size)
        if self._size < 1:
            raise ValueError("size must be at least 1")
        self._thread = threading.get_ident()
        self._begin()

    def _begin(self) -> None:
        self._process = os.getpid()
        self._room = Semaphore(self._size)
        self._tasks: set[Task] = set()
        self._calls: set[_Calls] = set()  # those that are not over
        self._joiners = ParkingLot()

    def _check(self) -> None:
        if self._thread != threading.get_ident():
            raise RuntimeError("a pool belongs to the thread that made it")
        if self._process != os.getpid():
            self._begin()  # a child: the tasks are the parent's

    @property
    def size(self) -> int:
        """How many tasks there may be at once."""
        return self._size

    def __len__(self) -> int:
        """Return how many tasks there are."""
        return len(self._tasks)

    def __bool__(self) -> bool:
        """Return True, also for a pool without tasks."""
        return True

    def __repr__(self) -> str:
        return f"<Pool({self._size}) with {len(self._tasks)} tasks>"

    # Starting and ending.

    def spawn(
        self,
        function: Callable[Parameters, Result],
        /,
        *args: Parameters.args,
        **kwargs: Parameters.kwargs,
    ) -> Task[Result]:
        """Start function(*args, **kwargs) as a task, once there is room; return the Task.

        Waits while the pool is full, first come, first served; cancelled then, it has started
        nothing. In a hub callback that is a RuntimeError. May switch.
        """
        self._check()
        self._room._acquire_as("spawn", self, True, None)
        task = None
        try:
            task = spawn(function, *args, **kwargs)
            task.link(self._remove)
        except BaseException:
            self._room.release()
            if task is not None:
                task.cancel()  # not reached: no memory for the link
            raise
        self._tasks.add(task)
        return task

    def _remove(self, task: Task) -> None:
        if task in self._tasks:  # and not of the parent process
            self._tasks.remove(task)
            self._room.release()
            self._wake_joiners()

    def _forget_calls(self, calls: _Calls) -> None:
        self._calls.discard(calls)
        self._wake_joiners()

    def _is_busy(self) -> bool:
        return bool(self._tasks) or not all(calls.is_held for calls in self._calls)

    def _wake_joiners(self) -> None:
        if not self._is_busy():
            while self._joiners.unpark():
                pass

    def join(self, timeout: float | None = None) -> None:
        """Wait until no task is left, those included that are started meanwhile.

        timeout: seconds, None waits for ever, 0 only looks. What imap() starts only when
        something is read is not waited for.

        Raises TimeoutError if tasks are left then, RuntimeError for a task of the pool. It is
        not joining the tasks, so failures are reported. Cancelled or not, the tasks go on. May
        switch.
        """
        self._check()
        deadline = deadline_after(timeout)
        me = current()
        if me in self._tasks or any(calls.feeder is me for calls in self._calls):
            raise RuntimeError("join: a task cannot wait for the pool that it runs in")
        while self._is_busy():
            if not self._joiners.park("join", seconds_until(deadline)) and self._is_busy():
                raise TimeoutError(f"join: {len(self)} tasks of the pool have not ended in time")

    def cancel(self, reason: object = None) -> None:
        """Cancel all tasks, and what map(), imap() and apply() have yet to start.

        reason: as for `Task.cancel()`. Who waits for their results gets Cancelled. Does not wait;
        join() does. The pool may be used again. Never switches.
        """
        self._check()
        for task in self._tasks:
            task.cancel(reason)
        for calls in self._calls:
            calls.cancel(reason)

    def __enter__(self) -> "Pool":
        self._check()
        return self

    def __exit__(
        self,
        type: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if type is None:
                self.join()
        finally:
            self.cancel()
            with shield():
                self.join()

    # Results.

    def apply(
        self,
        function: Callable[Parameters, Result],
        /,
        *args: Parameters.args,
        **kwargs: Parameters.kwargs,
    ) -> Result:
        """Call function(*args, **kwargs) in a task of the pool; return or raise what it does.

        When this is cancelled or times out, the task is cancelled, and waited for; what it
        raises then is reported. Otherwise as `spawn()`. Switches.
        """
        task = self.spawn(function, *args, **kwargs)
        try:
            return task.get()
        finally:
            if not task.done:
                _end(task)
            del task  # what it has raised refers to this frame

    @overload
    def map(
        self, function: Callable[[Item], Result], iterable: Iterable[Item], /
    ) -> list[Result]: ...
    @overload
    def map(
        self,
        function: Callable[..., Result],
        iterable: Iterable[Any],
        other: Iterable[Any],
        /,
        *iterables: Iterable[Any],
    ) -> list[Result]: ...
    def map(
        self,
        function: Callable[..., Result],
        iterable: Iterable[Any],
        /,
        *iterables: Iterable[Any],
    ) -> list[Result]:
        """Call the function for each item, or for what the iterables give together.

        Returns the list of results, in order. The first exception, of the function or of an
        iterable, is raised as soon as it comes; the other calls are cancelled then, and waited
        for; what they raise is reported. The same when this is cancelled or times out.

        Items are taken while there is room in the pool, in a task of their own: the iterable
        may wait, and context variables are a copy of the caller's. Switches.
        """
        calls = self._start_calls(function, iterable, *iterables, in_order=False, ahead=None)
        values: dict[int, Any] = {}
        try:
            while (outcome := calls.take()) is not None:
                values[outcome.number] = outcome.value
        except BaseException:
            calls.stop()
            with shield():
                calls.wait_until_over()
            raise
        return [values[number] for number in range(len(values))]

    @overload
    def imap(
        self, function: Callable[[Item], Result], iterable: Iterable[Item], /
    ) -> Iterator[Result]: ...
    @overload
    def imap(
        self,
        function: Callable[..., Result],
        iterable: Iterable[Any],
        other: Iterable[Any],
        /,
        *iterables: Iterable[Any],
    ) -> Iterator[Result]: ...
    def imap(
        self,
        function: Callable[..., Result],
        iterable: Iterable[Any],
        /,
        *iterables: Iterable[Any],
    ) -> Iterator[Result]:
        """As `map()`, but return an iterator over the results, in order, as they come.

        It is ahead of its reader by twice the pool's size at most: no more items are taken
        before results are read. What a call raises is raised where its result would be; what
        an iterable raises, behind all results. One may go on after that.

        Never switches; taking the next result does. Cancelled or timed out there, nothing is lost:
        it comes next time. Any number of tasks may take. The calls go on until the iterator is
        dropped or closed with its close(), which cancels them; what has failed and was not read is
        reported. join() of the pool waits for them.
        """
        ahead = 2 * self._size
        return _Results(
            self._start_calls(function, iterable, *iterables, in_order=True, ahead=ahead)
        )

    @overload
    def imap_unordered(
        self, function: Callable[[Item], Result], iterable: Iterable[Item], /
    ) -> Iterator[Result]: ...
    @overload
    def imap_unordered(
        self,
        function: Callable[..., Result],
        iterable: Iterable[Any],
        other: Iterable[Any],
        /,
        *iterables: Iterable[Any],
    ) -> Iterator[Result]: ...
    def imap_unordered(
        self,
        function: Callable[..., Result],
        iterable: Iterable[Any],
        /,
        *iterables: Iterable[Any],
    ) -> Iterator[Result]:
        """As `imap()`, but the results come as the calls end, in any order.

        Never switches. Taking a result does.
        """
        ahead = 2 * self._size
        return _Results(
            self._start_calls(function, iterable, *iterables, in_order=False, ahead=ahead)
        )

    def _start_calls(
        self,
        function: Callable[..., Any],
        *iterables: Iterable[Any],
        in_order: bool,
        ahead: int | None,
    ) -> _Calls:
        self._check()
        if not callable(function):
            raise TypeError(f"a pool needs something callable, not {type(function).__name__}")
        inputs = zip(*iterables, strict=False)
        calls = _Calls(self, function, inputs, in_order=in_order, ahead=ahead)
        self._calls.add(calls)
        return calls


def _end(task: Task) -> None:
    """Cancel a task and wait until it has ended; what it raises then is reported."""
    task.cancel()
    watch = Watch([task], "cancel", handles_failure=False)
    try:
        with shield():
            watch.wait(1)
    finally:
        watch.leave()
