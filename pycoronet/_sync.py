"""What waits for others and need not be in C: Condition, Barrier, PriorityQueue, Channel.

All of it stands on the locks, events, semaphores and queues of the C core, and so serves the
tasks of all hubs and all threads.
"""

import heapq
import os
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from threading import BrokenBarrierError
from types import TracebackType
from typing import Any, Generic, TypeVar

from ._coronet import Event, Lock, Queue, RLock, Semaphore, current, get_hub, shield
from .errors import Cancelled, Empty, Full, ShutDown

__all__ = ["Barrier", "Channel", "Condition", "PriorityQueue"]

Item = TypeVar("Item")
Result = TypeVar("Result")


class Condition:
    """A condition variable of threading's meaning. First come, first notified.

    lock: what is held around the methods: a Lock, RLock, or what has threading's methods of
    one. A new RLock unless given.

    A task that is cancelled in `wait()` holds the lock again when Cancelled comes out of it.

    Source: Python's threading.Condition.
    """

    __module__ = "pycoronet"

    def __init__(self, lock: Any = None) -> None:
        self._lock = RLock() if lock is None else lock
        self.acquire: Callable[..., bool] = self._lock.acquire
        self.release: Callable[[], None] = self._lock.release
        self._tickets: deque[Event] = deque()  # of those who wait, guarded by the lock
        self._process = os.getpid()  # theirs

    def __enter__(self) -> bool:
        entered: bool = self._lock.__enter__()
        return entered

    def __exit__(
        self,
        type: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._lock.__exit__(type, value, traceback)

    def __repr__(self) -> str:
        return f"<Condition({self._lock!r}, {len(self._tickets)})>"

    def _at_fork_reinit(self) -> None:
        # not reached: asked by threading alone, in a child
        self._lock._at_fork_reinit()
        self._tickets.clear()

    def _is_owned(self) -> bool:
        if hasattr(self._lock, "_is_owned"):
            return bool(self._lock._is_owned())
        if self._lock.acquire(False):
            self._lock.release()
            return False
        return True

    def _release_save(self) -> Any:
        if hasattr(self._lock, "_release_save"):
            return self._lock._release_save()
        return self._lock.release()

    def _acquire_restore(self, state: Any) -> None:
        if hasattr(self._lock, "_acquire_restore"):
            self._lock._acquire_restore(state)
        else:
            self._lock.acquire()

    def _check_owned(self, operation: str) -> None:
        if not self._is_owned():
            raise RuntimeError(f"{operation}() of a condition whose lock the caller does not hold")
        if self._process != os.getpid():
            # A child: those who waited are the parent's.
            self._process = os.getpid()
            self._tickets.clear()

    def wait(self, timeout: float | None = None) -> bool:
        """Release the lock, wait until notified, and acquire it again.

        timeout: seconds, None waits for ever. Returns True if notified, False after that time.
        Raises RuntimeError if the caller does not hold the lock, or in a hub callback. Switches.
        """
        self._check_owned("wait")
        if current() is None:
            raise RuntimeError("wait() would have to wait, and a hub callback cannot")
        ticket = Event()
        self._tickets.append(ticket)
        state = self._release_save()
        try:
            ticket._wait_as("wait", self, timeout)
        except BaseException:
            self._come_back(ticket, state)
            if ticket.is_set():
                self.notify()  # it was for somebody who can use it
            raise
        self._come_back(ticket, state)
        return ticket.is_set()

    def _come_back(self, ticket: Event, state: Any) -> None:
        # The caller's block ends with release(), so cancelled or not it has to hold the lock.
        with shield():
            self._acquire_restore(state)
        if not ticket.is_set():
            self._tickets.remove(ticket)

    def wait_for(self, predicate: Callable[[], Result], timeout: float | None = None) -> Result:
        """Wait until predicate() is true; return what it returned last.

        timeout: seconds for all of it; then the result is false. Otherwise as `wait()`. May
        switch.
        """
        hub = get_hub()
        deadline = None if timeout is None else hub.time + timeout
        result = predicate()
        while not result:
            left = None if deadline is None else deadline - hub.time
            if left is not None and left <= 0:
                break
            self.wait(left)
            result = predicate()
        return result

    def notify(self, n: int = 1) -> None:
        """Wake those n who have waited longest, or all if there are fewer.

        They go on when they get the lock. Raises RuntimeError if the caller does not hold it.
        Never switches.
        """
        self._check_owned("notify")
        while n > 0 and self._tickets:
            self._tickets.popleft().set()
            n -= 1

    def notify_all(self) -> None:
        """Wake all who wait; otherwise as `notify()`. Never switches."""
        self.notify(len(self._tickets))


class _Round:
    """Those who meet at a barrier, once."""

    def __init__(self, parties: int) -> None:
        self.places = [False] * parties  # who has come, by index
        self.is_broken = False
        self.is_over = Event()


class Barrier:
    """A place where so many meet before any of them goes on, of threading's meaning.

    parties: how many. action: called by the last who comes, before anybody goes on; if it
    raises, the barrier is broken. timeout: seconds, for each `wait()` that has none of its own.

    Source: Python's threading.Barrier.
    """

    __module__ = "pycoronet"

    def __init__(
        self,
        parties: int,
        action: Callable[[], object] | None = None,
        timeout: float | None = None,
    ) -> None:
        if parties < 1:
            raise ValueError("parties must be at least 1")
        self._parties = parties
        self._action = action
        self._timeout = timeout
        self._lock = RLock()  # an action may call abort()
        self._lock._is_guard = True
        self._round = _Round(self._parties)
        self._process = os.getpid()  # theirs who have come

    @property
    def parties(self) -> int:
        """How many have to come."""
        return self._parties

    @property
    def n_waiting(self) -> int:
        """How many have come and wait."""
        present = self._round
        return 0 if present.is_broken else sum(present.places)

    @property
    def broken(self) -> bool:
        """True after abort(), a timeout or a failed action, until reset()."""
        return self._round.is_broken

    def __repr__(self) -> str:
        name = f"{type(self).__module__}.{type(self).__qualname__} at {id(self):#x}"
        return (
            f"<{name}: {'broken' if self.broken else f'waiters={self.n_waiting}/{self.parties}'}>"
        )

    def wait(self, timeout: float | None = None) -> int:
        """Wait until all have come; return an index from 0, a different one for each of them.

        timeout: seconds; then the barrier is broken. Raises threading.BrokenBarrierError if it
        is or becomes broken, or is reset. A task that is cancelled has not come. Switches.
        """
        with self._lock:
            if self._process != os.getpid():
                # A child: those who have come are the parent's.
                self._process = os.getpid()
                self._round.places = [False] * self._parties
            present = self._round
            if present.is_broken:
                raise BrokenBarrierError
            index = present.places.index(False)
            present.places[index] = True
            if all(present.places):
                self._complete(present)
                return index
        try:
            limit = self._timeout if timeout is None else timeout
            present.is_over._wait_as("wait", self, limit)
        except BaseException:
            present.places[index] = False
            raise
        if not present.is_over.is_set():
            with shield(), self._lock:  # else it would count as one who has come
                self._break(present)
        if present.is_broken:
            raise BrokenBarrierError
        return index

    # With the lock held.

    def _complete(self, present: _Round) -> None:
        try:
            if self._action is not None:
                self._action()
        except BaseException:
            self._break(present)
            raise
        if present.is_broken:
            raise BrokenBarrierError
        self._round = _Round(self._parties)
        present.is_over.set()

    def _break(self, present: _Round) -> None:
        if not present.is_over.is_set():
            present.is_broken = True
            present.is_over.set()

    def reset(self) -> None:
        """Begin anew; those who wait get BrokenBarrierError. Never switches."""
        with self._lock:
            self._break(self._round)
            self._round = _Round(self._parties)

    def abort(self) -> None:
        """Break the barrier: all who wait, and who come, get BrokenBarrierError.

        Never switches.
        """
        with self._lock:
            self._break(self._round)


class PriorityQueue(Queue[Item]):
    """A Queue whose get() takes the least item, as `<` has it.

    maxsize: as for Queue.

    Comparing runs while the queue is held, so it may not use the queue.

    Source: Python's queue.PriorityQueue.
    """

    __module__ = "pycoronet"

    def _init(self, maxsize: int) -> None:
        self.queue: list[Item] = []

    def _qsize(self) -> int:
        return len(self.queue)

    def _put(self, item: Item) -> None:
        heapq.heappush(self.queue, item)  # type: ignore[type-var]

    def _get(self) -> Item:
        return heapq.heappop(self.queue)  # type: ignore[type-var]


class _Offer(Generic[Item]):
    """An item that somebody puts."""

    __slots__ = ("is_accepted", "is_refused", "item")

    def __init__(self, item: Item) -> None:
        self.item = item
        self.is_accepted = Event()
        self.is_refused = False  # the channel was closed meanwhile


class Channel(Generic[Item]):
    """Hands items over: put() waits until somebody gets the item.

        for item in channel:  # until close()
            ...

    capacity: how many items may be ahead of those who get; 0 is a rendezvous. First come,
    first served. For the tasks of all hubs and all threads.

    Source: pycoronet's own.
    """

    __module__ = "pycoronet"

    def __init__(self, capacity: int = 0) -> None:
        if capacity < 0:
            raise ValueError("capacity must not be negative")
        self._capacity = capacity
        self._lock = Lock()  # guards what follows
        self._lock._is_guard = True
        self._offers: deque[_Offer[Item]] = deque()
        self._is_closed = False
        # One for each offer; and one more of a closed channel, for whoever finds nothing.
        self._permits = Semaphore(0)
        self._process = os.getpid()  # theirs who wait

    def _forget_left_behind(self) -> None:
        if self._process != os.getpid():
            # A child: those who wait, and what they put or were promised, are the parent's.
            self._process = os.getpid()
            while len(self._offers) > self._capacity:
                self._offers.pop()
            self._permits = Semaphore(len(self._offers) + self._is_closed)

    @property
    def capacity(self) -> int:
        """How many items may be ahead."""
        return self._capacity

    @property
    def closed(self) -> bool:
        """True after close()."""
        return self._is_closed

    def __repr__(self) -> str:
        state = "closed" if self._is_closed else f"capacity={self._capacity}"
        return f"<{type(self).__module__}.{type(self).__qualname__} at {id(self):#x}: {state}>"

    def put(self, item: Item, block: bool = True, timeout: float | None = None) -> None:
        """Hand an item over; wait until it was got, or there is room for it.

        block: False raises queue.Full instead of waiting. timeout: seconds to wait at most,
        then queue.Full is raised and nobody gets the item. Raises ShutDown if the channel is
        closed, or is closed meanwhile; ValueError for a negative timeout. May switch.
        """
        if block and timeout is not None and timeout < 0:
            raise ValueError("timeout must not be negative")
        offer = _Offer(item)
        with self._lock:
            self._forget_left_behind()
            if self._is_closed:
                raise ShutDown
            if block and len(self._offers) >= self._capacity and current() is None:
                raise RuntimeError("put() would have to wait, and a hub callback cannot")
            self._offers.append(offer)
            self._permits.release()
            if len(self._offers) <= self._capacity:
                return
            if not block and self._withdraw(offer):
                raise Full
        if not block:
            return
        try:
            offer.is_accepted._wait_as("put", self, timeout)
        except BaseException as error:
            with shield(), self._lock:
                is_withdrawn = self._withdraw(offer)
            # What somebody gets is done, and not cancelled any more.
            if is_withdrawn or not isinstance(error, Cancelled):
                raise
        else:
            with shield(), self._lock:
                if self._withdraw(offer):
                    raise Full
        if offer.is_refused:
            raise ShutDown

    def _withdraw(self, offer: _Offer[Item]) -> bool:
        """Take an offer back, unless it was promised to somebody; with the lock held."""
        if offer.is_accepted.is_set() or not self._permits.acquire(False):
            return False
        self._offers.remove(offer)
        return True

    def put_nowait(self, item: Item) -> None:
        """Put an item without waiting: as put(item, block=False). Never switches."""
        self.put(item, block=False)

    def get(self, block: bool = True, timeout: float | None = None) -> Item:
        """Get the next item; wait for one if need be.

        block: False raises queue.Empty instead of waiting. timeout: seconds to wait at most,
        then queue.Empty is raised. Raises ShutDown if the channel is closed and nothing is
        left; ValueError for a negative timeout. May switch.
        """
        if block and timeout is not None and timeout < 0:
            raise ValueError("timeout must not be negative")
        with self._lock:
            self._forget_left_behind()
            if self._permits.acquire(False):
                holders = len(self._offers) + self._is_closed - self._permits._value
                return self._take(holders - 1)
        if not block or not self._permits._acquire_as("get", self, True, timeout):
            raise Empty
        try:
            # The put() behind the permit may have returned: somebody has to get its item. A
            # callback, which cannot be cancelled, has no shield.
            with nullcontext() if current() is None else shield():
                self._lock.acquire()
        except BaseException:  # not reached: a callback that is interrupted
            self._permits.release()
            raise
        try:
            return self._take(0)
        finally:
            self._lock.release()

    def _take(self, promised: int) -> Item:
        """Take the first offer behind so many promised ones; with a permit and the lock held."""
        try:
            offer = self._offers[promised]
        except IndexError:
            self._permits.release()  # for the next one who looks
            raise ShutDown from None
        del self._offers[promised]
        offer.is_accepted.set()
        if 0 < self._capacity <= len(self._offers):
            self._offers[self._capacity - 1].is_accepted.set()
        return offer.item

    def get_nowait(self) -> Item:
        """Take the next item without waiting: as get(block=False). Never switches."""
        return self.get(block=False)

    def close(self) -> None:
        """Take no more items: who waits to put, or puts, gets ShutDown.

        Items that had room are still got; then get() raises ShutDown, and iterating ends.
        Idempotent. Never switches.
        """
        with self._lock:
            self._forget_left_behind()
            if self._is_closed:
                return
            self._is_closed = True
            while len(self._offers) > self._capacity and self._permits.acquire(False):
                offer = self._offers.pop()
                offer.is_refused = True
                offer.is_accepted.set()
            self._permits.release()

    def __iter__(self) -> Iterator[Item]:
        return self

    def __next__(self) -> Item:
        try:
            return self.get()
        except ShutDown:
            raise StopIteration from None
