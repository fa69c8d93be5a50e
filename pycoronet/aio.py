"""asyncio in the same thread: one loop drives its tasks and the coroutines of pycoronet.

    from pycoronet import aio, await_, spawn

    def worker(number):  # a coroutine of pycoronet
        return await_(fetch(number))  # parks this task alone

    async def main():  # a coroutine of asyncio
        return await spawn(worker, 7)

    aio.run(main())

`EventLoop` is asyncio's own selector loop, turned by the hub: each turn is a callback. So what is
written for asyncio runs as it is. docs/asyncio.md tells the rest.
"""

from __future__ import annotations

import asyncio
import heapq
import os
import selectors
import sys
import threading
import time
from asyncio import events as _events
from asyncio import runners as _runners
from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextvars import Context
from typing import TYPE_CHECKING, Any, TypeVar

from ._coronet import (
    Guest,
    ParkingLot,
    SignalHandle,
    Task,
    current,
    get_hub,
    shield,
    signal_handler,
)
from .errors import AwaitedCancelledError

__all__ = ["AwaitedCancelledError", "EventLoop", "await_", "get_loop", "run"]

if TYPE_CHECKING:
    from collections import deque

    from typing_extensions import TypeVarTuple, Unpack

    Arguments = TypeVarTuple("Arguments")

Result = TypeVar("Result")

# selectors' bits are 1 and 2, those of the hub 1 and 4.
_EVENTS = [0, 1, 4, 5]
_SELECTED = {1: 1, 4: 2, 5: 3}


class _Selector(selectors._BaseSelectorImpl):
    """What a loop watches. The hub does the watching, and only while the loop is driven."""

    guest: Guest | None = None
    if TYPE_CHECKING:
        _fd_to_key: dict[int, selectors.SelectorKey]

    def attach(self, guest: Guest | None) -> None:
        """Have a guest watch what there is and what will be registered; None ends that."""
        self.guest = guest
        if guest is not None:
            for key in self.get_map().values():
                try:
                    guest.watch(key.fd, _EVENTS[key.events])
                except OSError:  # not reached: a selector that forgets closed descriptors
                    pass  # closed without being unregistered, when a selector forgets it, too

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        key = super().register(fileobj, events, data)
        if self.guest is not None:
            try:
                self.guest.watch(key.fd, _EVENTS[events])
            except BaseException:
                super().unregister(fileobj)
                raise
        return key

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        key = super().unregister(fileobj)
        if self.guest is not None:
            self.guest.unwatch(key.fd)
        return key

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Return what the hub has found ready; it never waits."""
        assert self.guest is not None
        keys = self._fd_to_key
        return [(keys[fd], _SELECTED[ready]) for fd, ready in self.guest.take()]


if TYPE_CHECKING:

    class _Loop(asyncio.SelectorEventLoop):
        """What is used here of asyncio's loop besides what is documented, in each version."""

        _debug: bool
        _ready: deque[asyncio.Handle]
        _scheduled: list[Any]  # a heap of TimerHandle
        _signal_handlers: dict[int, asyncio.Handle]
        _stopping: bool
        _thread_id: int | None
        _timer_cancelled_count: int

        def _asyncgen_finalizer_hook(self, agen: Any) -> None: ...
        def _asyncgen_firstiter_hook(self, agen: Any) -> None: ...
        def _call_soon(self, callback: Any, args: Any, context: Context | None) -> Any: ...
        def _check_closed(self) -> None: ...
        def _check_running(self) -> None: ...
        def _check_signal(self, sig: int) -> None: ...
        def _handle_signal(self, sig: int) -> None: ...
        def _run_once(self) -> None: ...
        def _set_coroutine_origin_tracking(self, enabled: bool) -> None: ...
        def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None: ...

else:
    _Loop = asyncio.SelectorEventLoop


class _OfThread(threading.local):
    """The loops of a thread's hub."""

    running: EventLoop | None = None  # in run_forever()
    own: EventLoop | None = None  # made by get_loop(), driven whenever the hub runs


_of_thread = _OfThread()


class EventLoop(_Loop):
    """The selector loop of asyncio, driven by the hub of the thread that runs it.

    Transports, servers, TLS, datagrams, subprocesses, signals and executors are asyncio's own. A
    turn of the loop is a callback of the hub, in which nobody may wait. Time is the hub's.
    `run_forever()` parks the task that calls it, and nobody else.

    Source: Python's asyncio.SelectorEventLoop.
    """

    def __init__(self) -> None:
        self._guest: Guest | None = None  # while the loop is driven
        self._hub = get_hub()
        self._is_stepping = False
        self._is_own = False  # the hub drives it without a run_forever()
        self._end: asyncio.Task[None] | None = None  # cancels what is left when the hub closes
        self._lot: ParkingLot | None = None  # who is in run_forever()
        self._has_stopped = False
        self._error: BaseException | None = None  # that run_forever() has to raise
        self._awaited: set[asyncio.Future[Any]] = set()  # by tasks, in await_()
        self._signals: dict[int, SignalHandle] = {}
        self._hooks = (self._asyncgen_firstiter_hook, self._asyncgen_finalizer_hook)
        self._hub_selector = _Selector()
        super().__init__(self._hub_selector)

    def time(self) -> float:
        """Return the hub's clock, in seconds. Never switches."""
        try:
            return self._hub.time
        except RuntimeError:  # the hub is closed, and it was a clock like this one
            return time.monotonic()

    # --- Turns --------------------------------------------------------------------------

    def _step(self) -> None:
        """Take one turn, as a callback of the hub."""
        outer, thread_id = _events._get_running_loop(), self._thread_id
        hooks = sys.get_asyncgen_hooks()
        sys.set_asyncgen_hooks(*self._hooks)
        _events._set_running_loop(self)
        self._thread_id = threading.get_ident()
        self._is_stepping = True
        try:
            self._run_once()
        except BaseException as error:  # SystemExit, KeyboardInterrupt: all that gets so far
            if not self._is_awaited(error):
                if self._lot is None:
                    raise
                self._error = error
        finally:
            self._is_stepping = False
            self._thread_id = thread_id
            _events._set_running_loop(outer)
            sys.set_asyncgen_hooks(*hooks)
            self._plan()

    def _is_awaited(self, error: BaseException) -> bool:
        """Return whether a task will get the exception from its await_()."""
        return any(
            future.done() and not future.cancelled() and future.exception() is error
            for future in self._awaited
        )

    def _plan(self) -> None:
        """See to it that the next turn comes when there is something to do."""
        if self._end is not None and self._end.done() and not self._awaited:
            self.close()
        elif self._lot is not None and (self._stopping or self._error is not None):
            self._has_stopped = True
            self._lot.unpark()
        elif self._guest is not None:
            while self._scheduled and self._scheduled[0]._cancelled:
                self._timer_cancelled_count -= 1
                heapq.heappop(self._scheduled)._scheduled = False
            if self._ready:
                self._guest.wake()
            self._guest.wake_at(self._scheduled[0]._when if self._scheduled else None)

    def _write_to_self(self) -> None:
        """Have a turn taken soon; from any thread."""
        guest = self._guest
        if guest is not None:
            guest.wake()

    # What is changed from outside of a turn asks for one.

    def _call_soon(
        self, callback: Callable[..., object], args: Any, context: Context | None
    ) -> Any:
        handle = super()._call_soon(callback, args, context)
        if handle._source_traceback:
            del handle._source_traceback[-1]  # this frame
        if not self._is_stepping:
            self._write_to_self()
        return handle

    def call_at(
        self,
        when: float,
        callback: Callable[[Unpack[Arguments]], object],
        *args: Unpack[Arguments],
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        """Have callback(*args) called at a time of the hub's clock.

        when: seconds, as time() gives them. context: what the callback runs in, None for a copy of
        the caller's. Raises RuntimeError if the loop is closed. Never switches.
        """
        timer: Any = super().call_at(when, callback, *args, context=context)
        if timer._source_traceback:
            del timer._source_traceback[-1]
        if not self._is_stepping:
            self._write_to_self()
        return timer  # type: ignore[no-any-return]

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        super()._timer_handle_cancelled(handle)
        if not self._is_stepping:
            self._write_to_self()

    def stop(self) -> None:
        """Have run_forever() return after this turn, or the next one. For the loop's thread.

        Never switches.
        """
        super().stop()
        if not self._is_stepping:
            self._write_to_self()

    # --- Running ------------------------------------------------------------------------

    def _attach(self) -> None:
        """Become a guest of this thread's hub."""
        if self._guest is None:
            self._hub = get_hub()
            self._guest = Guest(self._step, self._begin_end)
            self._hub_selector.attach(self._guest)
            self._guest.wake()

    def _detach(self) -> None:
        guest, self._guest = self._guest, None
        self._hub_selector.attach(None)
        if guest is not None:
            guest.close()

    def run_forever(self) -> None:
        """Run until stop() is called. Switches: it parks the caller, who may be any task."""
        self._check_closed()
        self._check_running()
        if _of_thread.running is not None:
            raise RuntimeError(
                "another loop of asyncio is running in this hub; use await_() instead"
            )
        if current() is None:
            raise RuntimeError("a callback of the hub cannot run a loop; spawn() a task for it")
        lot = ParkingLot(external=True)
        self._thread_id = threading.get_ident()
        _of_thread.running, self._lot = self, lot
        self._has_stopped = False
        try:
            self._set_coroutine_origin_tracking(self._debug)
            self._attach()
            self._write_to_self()
            while not self._has_stopped:
                lot.park("run_forever")
            if self._error is not None:  # not reached: coverage.py loses sight of it at a switch
                raise self._error
        finally:
            self._error = self._lot = _of_thread.running = None
            self._thread_id = None
            self._stopping = False
            self._set_coroutine_origin_tracking(False)
            if not self._is_own:
                self._detach()

    def close(self) -> None:
        """Drop what is left to do, and watch nothing any more. The loop must not be running.

        Never switches. Raises RuntimeError if it is running.
        """
        if not self.is_running():
            self._detach()
            self._end = None
            if _of_thread.own is self:
                _of_thread.own = None
        super().close()

    def __del__(self, *args: Any) -> None:
        # Nobody has made the hub's own loop by hand, so nobody has to close it.
        if self._is_own and not self.is_closed():
            self._guest = None  # which has ended, or it would hold the loop
            self._hub_selector.attach(None)
            super().close()
        super().__del__(*args)

    def _wait_for(self, future: asyncio.Future[Any]) -> None:
        """Park the caller until the future is done; cancel that if the caller is cancelled."""
        lot = ParkingLot()
        future.add_done_callback(lambda _: lot.unpark())
        self._awaited.add(future)
        try:
            try:
                while not future.done():
                    lot.park("await_")
            except BaseException:
                future.cancel()
                with shield():
                    while not future.done():
                        lot.park("await_")
                if not future.cancelled() and future.exception() is not None:
                    # not reached: it fails as it is cancelled
                    return  # what its end has failed with is news
                raise
        finally:
            self._awaited.discard(future)
            if self._end is not None:
                self._write_to_self()  # not reached: the hub ends just then

    # --- The hub's end, and a fork ------------------------------------------------------

    def _begin_end(self) -> None:
        """Cancel what is left: the hub is about to close."""
        if self._lot is None:  # else whoever runs it is cancelled as well, and sees to it
            self._end = self.create_task(self._end_all())

    async def _end_all(self) -> None:
        # Whoever is in await_() is cancelled as well, and sees to what it waits for.
        tasks = asyncio.all_tasks(self) - {asyncio.current_task(self)} - self._awaited
        for task in tasks:
            task.cancel()
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(result, Exception):
                text = "unhandled exception when the hub was closed"
                self.call_exception_handler({"message": text, "exception": result})
        await self.shutdown_asyncgens()

    def _lose_hub(self) -> None:
        """In a forked child: the loop is the parent's."""
        self._guest = None
        self._hub_selector.attach(None)
        if self._lot is not None:
            self._error = RuntimeError("a step of asyncio has forked, and its loop is the parent's")
            self._has_stopped = True
            self._lot.unpark()

    # --- Signals, and what takes the place of the pipe to oneself -----------------------

    def _make_self_pipe(self) -> None:
        """Do without: the hub has its own."""

    def _close_self_pipe(self) -> None:
        """Do nothing: there is none."""

    def add_signal_handler(
        self,
        sig: int,
        callback: Callable[[Unpack[Arguments]], object],
        *args: Unpack[Arguments],
    ) -> None:
        """Have callback(*args) called in a step when the signal comes.

        sig: its number. Raises TypeError for a coroutine, ValueError for no signal, RuntimeError
        for one that cannot be caught. Never switches.
        """
        if asyncio.iscoroutine(callback) or asyncio.iscoroutinefunction(callback):
            raise TypeError("coroutines cannot be used with add_signal_handler()")
        self._check_signal(sig)
        self._check_closed()
        try:
            new = signal_handler(sig, self._handle_signal)
        except OSError as error:
            raise RuntimeError(f"sig {sig} cannot be caught") from error
        old = self._signals.get(sig)
        self._signals[sig] = new
        self._signal_handlers[sig] = asyncio.Handle(callback, args, self, None)
        if old is not None:
            old.cancel()

    def remove_signal_handler(self, sig: int) -> bool:
        """Give a signal back to whom it had before; False if there was no handler.

        sig: its number. Raises ValueError for no signal. Never switches.
        """
        self._check_signal(sig)
        self._signal_handlers.pop(sig, None)
        handle = self._signals.pop(sig, None)
        if handle is not None:
            handle.cancel()
        return handle is not None


def get_loop() -> EventLoop:
    """Return the loop of this thread's hub: the one that is running, or else its own.

    The hub's own loop is made when it is first asked for. It goes on whenever the hub does, and
    ends when the hub closes: then its tasks are cancelled. Never switches.

    Source: pycoronet's own.
    """
    loop = _of_thread.running or _of_thread.own
    if loop is None or loop.is_closed() or loop._hub is not get_hub():
        loop = EventLoop()
        loop._is_own = True
        loop._attach()
        _of_thread.own = loop
    return loop


def _forget_loops() -> None:
    for loop in (_of_thread.running, _of_thread.own):
        if loop is not None:
            loop._lose_hub()
    _of_thread.running = _of_thread.own = None


os.register_at_fork(after_in_child=_forget_loops)


# --- From one side to the other -----------------------------------------------------------


def _start(awaitable: Awaitable[Result]) -> tuple[asyncio.Future[Result], EventLoop]:
    """Return what stands for the awaitable on a loop that this hub drives, and that loop."""
    if current() is None:
        if asyncio.iscoroutine(awaitable):
            awaitable.close()  # it was never awaited, and that is no fault of its own
        raise RuntimeError(
            "await_() would have to wait, and a callback of the hub cannot: in asyncio code use "
            "await, elsewhere spawn() a task"
        )
    if not asyncio.isfuture(awaitable):
        loop = get_loop()
        return asyncio.ensure_future(awaitable, loop=loop), loop
    for driven in (_of_thread.running, _of_thread.own):
        if driven is not None and driven is awaitable.get_loop():
            return awaitable, driven
    raise RuntimeError(f"{awaitable!r} belongs to a loop that this hub does not drive")


def await_(awaitable: Awaitable[Result], /) -> Result:
    """Wait for a coroutine, future or other awaitable of asyncio; return its result.

    It runs on the loop that `get_loop()` returns, with a copy of the caller's context variables,
    and parks only the calling task. Raises what it raises. If the caller is cancelled, or its
    `timeout()` passes, what it waits for is cancelled and awaited to the end: use asyncio.shield()
    for what is to go on. AwaitedCancelledError: somebody else has cancelled it. RuntimeError: the
    caller is a callback or a step of asyncio, which has to use await, or the future belongs to
    another loop. Switches.

    Source: pycoronet's own.
    """
    future, loop = _start(awaitable)
    try:
        loop._wait_for(future)
        return future.result()
    except asyncio.CancelledError as error:
        if not future.cancelled():
            # not reached: cancelled by its own doing
            raise  # by its own doing
        raise AwaitedCancelledError(f"{future!r} was cancelled") from error
    finally:
        del future  # whose exception refers to this frame


def _await_task(task: Task[Result]) -> Generator[Any, None, Result]:
    """Do what `await task` does; see Task."""
    if not task.done:
        loop = asyncio.get_running_loop()
        if not isinstance(loop, EventLoop):
            raise RuntimeError(
                "a Task of pycoronet runs only while its hub does: run this code with "
                "pycoronet.aio.run()"
            )
        future = loop.create_future()

        def tell(_: Task[Result]) -> None:
            if not future.done():
                future.set_result(None)

        task.link(tell, handles_failure=True)
        try:
            yield from future
        finally:
            task.unlink(tell)
    return task.get()


def run(main: Coroutine[Any, Any, Result], *, debug: bool | None = None) -> Result:
    """Run a coroutine of asyncio on the hub and return its result: asyncio.run() for pycoronet.

    Any task may call it and is parked meanwhile; the others go on. In the end the tasks of the
    hub's loop that are left are cancelled, asynchronous generators and the default executor are
    shut down, and the loop is closed. If the caller is cancelled, so is `main`. debug: asyncio's
    debug mode, None for what it is. Raises ValueError for what is no coroutine, RuntimeError if
    the hub runs a loop already. Switches.

    Source: Python's asyncio.run.
    """
    if not asyncio.iscoroutine(main):
        raise ValueError(f"a coroutine was expected, got {main!r}")
    if current() is None or _of_thread.running is not None:
        main.close()
        raise RuntimeError("the hub's loop is running already: use await, or await_() in a task")
    loop = get_loop()
    if debug is not None:
        loop.set_debug(debug)
    try:
        return loop.run_until_complete(main)
    finally:
        with shield():
            try:
                _runners._cancel_all_tasks(loop)  # type: ignore[attr-defined]
                loop.run_until_complete(loop.shutdown_asyncgens())
                loop.run_until_complete(loop.shutdown_default_executor())
            finally:
                loop.close()
