"""All parts of the toolkit at once: threads with hubs and without hand items to one another.

Fixed seeds decide who does what; the system decides when. Whatever comes of it, no item is lost
or got twice, nobody is in a lock with another one, and all threads end.
"""

from __future__ import annotations

import asyncio
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from pycoronet import (
    Cancelled,
    Channel,
    Condition,
    Event,
    Hub,
    LifoQueue,
    Lock,
    PriorityQueue,
    Queue,
    RLock,
    Semaphore,
    Task,
    TaskGroup,
    from_thread,
    get_hub,
    move_on_after,
    sleep,
    spawn,
    timeout,
    to_thread,
)
from pycoronet._inspection import take_snapshot
from pycoronet.aio import await_
from pycoronet.errors import Empty, Full, ShutDown

LIMIT_SECONDS = 15  # of a test that fails
HUB_THREADS = 3
PRODUCERS = 3  # tasks in each of them
PLAIN_PRODUCERS = 2  # threads
STEPS = 150  # of each producer
SHORT_SECONDS = 0.002
PERMITS = 2


def join_cancelled(task: Task) -> None:
    """Wait for a task that was cancelled, in time or too late."""
    try:
        task.join()
    except Cancelled:
        if not task.done:  # it was the caller who was cancelled
            raise


class Box:
    """A queue made of a Condition."""

    def __init__(self) -> None:
        self.condition = Condition()
        self.items: list[Any] = []
        self.is_over = False

    def put(self, item: Any, timeout: float | None = None) -> None:
        """Put an item where there is room for two."""
        with self.condition:
            if not self.condition.wait_for(lambda: self.is_over or len(self.items) < 2, timeout):
                raise Full
            if self.is_over:
                raise ShutDown
            self.items.append(item)
            self.condition.notify_all()

    def get(self, timeout: float | None = None) -> Any:
        """Get the oldest item."""
        with self.condition:
            if not self.condition.wait_for(lambda: self.is_over or self.items, timeout):
                raise Empty
            if not self.items:
                raise ShutDown
            item = self.items.pop(0)
            self.condition.notify_all()
            return item

    def shutdown(self) -> None:
        """Take no more items."""
        with self.condition:
            self.is_over = True
            self.condition.notify_all()


class Rig:
    """What all threads share, and what they have done."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        channel: Channel[Any] = Channel(1)
        rendezvous: Channel[Any] = Channel()
        self.queues: list[Any] = [
            Queue(2), LifoQueue(1), PriorityQueue(3), channel, rendezvous, Box(),
        ]  # fmt: skip
        self.lock = Lock()
        self.relock = RLock()
        self.semaphore = Semaphore(PERMITS)
        self.inside: Counter[str] = Counter()
        self.event = Event()
        self.put: list[Any] = []
        self.got: list[Any] = []
        self.errors: list[BaseException] = []
        self.hubs: list[Hub] = []
        self.guard = threading.Lock()
        self.outside = 0  # calls in threads of the pool
        self.is_over = False

    def put_item(self, queue: Any, item: Any, timeout: float | None = None) -> None:
        """Put an item, and note it if that was done."""
        try:
            queue.put(item, timeout=timeout)
        except (Full, ShutDown):
            return
        self.put.append(item)

    def get_item(self, queue: Any, timeout: float | None = None) -> None:
        """Get an item and note it. Raises ShutDown."""
        try:
            item = queue.get(timeout=timeout)
        except Empty:
            return
        self.got.append(item)

    def enter(self, name: str, lock: Any, most: int) -> None:
        """Be inside a lock or a semaphore for a while."""
        with lock:
            with self.guard:
                self.inside[name] += 1
                present = self.inside[name]
            try:
                assert present <= most, f"{present} have {name} at once"
                sleep(0)
            finally:
                with self.guard:
                    self.inside[name] -= 1

    def call(self, function: Callable[..., Any], *args: Any) -> None:
        """Call a function, in a thread of the pool, and count it while it goes on."""
        with self.guard:
            self.outside += 1
        try:
            function(*args)
        finally:
            with self.guard:
                self.outside -= 1

    def enter_and_cancel(self, name: str, lock: Any, most: int) -> None:
        """Cancel a task that may just have been given what it waits for."""
        with lock:
            task = spawn(self.enter, name, lock, most)
            sleep(0)
        task.cancel()
        join_cancelled(task)

    # Steps of producers, which may be cancelled at any time.

    def step(self, dice: random.Random, queue: Any, item: Any) -> None:
        """Put an item in some way, or use a lock."""
        kind = dice.randrange(10)
        limit = dice.choice([None, SHORT_SECONDS, 0])
        if kind <= 2:
            self.put_item(queue, item, limit)
        elif kind == 3:
            to_thread(self.call, self.put_item, queue, item, SHORT_SECONDS)
        elif kind == 4:
            others = [hub for hub in self.hubs if hub is not get_hub()]
            try:
                from_thread.run(dice.choice(others), self.put_item, queue, item, timeout=limit)
            except (TimeoutError, RuntimeError):
                pass  # the other hub was closed
        elif kind == 5:
            dice.choice([self.enter, self.enter_and_cancel])("lock", self.lock, 1)
        elif kind == 6:
            with self.relock:
                self.enter("relock", self.relock, 1)
        elif kind == 7:
            self.event.set()
            self.event.clear()
            self.event.wait(SHORT_SECONDS)
        elif kind == 8:
            await_(self.put_by_asyncio(queue, item))
        else:
            enter = dice.choice([self.enter, self.enter_and_cancel])
            enter("semaphore", self.semaphore, PERMITS)

    async def put_by_asyncio(self, queue: Any, item: Any) -> None:
        """Put an item by a task that asyncio waits for."""
        await asyncio.sleep(0)
        await spawn(self.put_item, queue, item, SHORT_SECONDS)

    def produce(self, name: str, number: int) -> None:
        """Make the steps of a producer, and disturb some of them."""
        dice = random.Random(f"{self.seed} {name} {number}")
        for step in range(STEPS):
            queue = dice.choice(self.queues)
            item = (name, number, step)
            how = dice.randrange(4)
            if how == 0:
                with move_on_after(dice.choice([0, SHORT_SECONDS])):
                    self.step(dice, queue, item)
            elif how == 1:
                task = spawn(self.step, dice, queue, item)
                for _ in range(dice.randrange(3)):
                    sleep(0)
                task.cancel()
                join_cancelled(task)
            else:
                self.step(dice, queue, item)

    def consume(self, name: str, queue: Any) -> None:
        """Get items until there are none any more, with some waits given up."""
        dice = random.Random(f"{self.seed} {name} {self.queues.index(queue)}")
        try:
            while True:
                how = dice.randrange(3)
                if how == 0:
                    with move_on_after(SHORT_SECONDS):
                        self.get_item(queue)
                else:
                    self.get_item(queue, None if how == 1 else SHORT_SECONDS)
        except ShutDown:
            pass

    # Threads.

    def guarded(self, function: Callable[..., Any], *args: Any) -> None:
        """Do what a thread does, and note what goes wrong."""
        try:
            with timeout(LIMIT_SECONDS):
                function(*args)
        except BaseException as error:
            self.errors.append(error)
        finally:
            get_hub().close()

    def run_hub(self, name: str, ready: threading.Event, stop: Event) -> None:
        """Run the tasks of a thread, and answer calls into its hub until the test ends."""
        self.hubs.append(get_hub())
        ready.set()
        with TaskGroup() as group:
            for queue in self.queues:
                group.spawn(self.consume, name, queue)
            stop.wait()

    def run_producers(self, name: str, producers: int) -> None:
        """Run the producers of a thread."""
        with TaskGroup() as group:
            for number in range(producers):
                group.spawn(self.produce, name, number)

    def observe(self) -> None:
        """Look at all hubs until the test ends."""
        while not self.is_over:
            snapshot = take_snapshot()
            json.dumps(snapshot)
            for hub in self.hubs:
                repr(hub)
                for row in hub._list_tasks():
                    repr(row)
            for queue in [*self.queues, self.lock, self.relock, self.semaphore, self.event]:
                repr(queue)


def join_all(threads: list[threading.Thread]) -> list[str]:
    """Wait for threads; return the names of those that do not end."""
    deadline = time.monotonic() + LIMIT_SECONDS
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    return [thread.name for thread in threads if thread.is_alive()]


@pytest.mark.parametrize("seed", range(3))
def test_items_between_threads_are_neither_lost_nor_doubled(seed: int) -> None:
    rig = Rig(seed)
    stop = Event()

    def start(name: str, *args: Any) -> threading.Thread:
        thread = threading.Thread(target=rig.guarded, args=args, name=name, daemon=True)
        thread.start()
        return thread

    hubs = []
    for number in range(HUB_THREADS):
        ready = threading.Event()
        hubs.append(start(f"hub {number}", rig.run_hub, f"hub {number}", ready, stop))
        assert ready.wait(LIMIT_SECONDS)
    observer = threading.Thread(target=rig.guarded, args=(rig.observe,), daemon=True)
    observer.start()
    # Both kinds have a hub of their own in the end; a plain one has a main program alone.
    producers = [
        start(f"tasks {number}", rig.run_producers, f"tasks {number}", PRODUCERS)
        for number in range(HUB_THREADS)
    ]
    producers += [
        start(f"plain {number}", rig.produce, f"plain {number}", 0)
        for number in range(PLAIN_PRODUCERS)
    ]
    stuck = join_all(producers)
    for queue in rig.queues:
        queue.close() if isinstance(queue, Channel) else queue.shutdown()
    stop.set()
    stuck += join_all(hubs)
    deadline = time.monotonic() + LIMIT_SECONDS
    while rig.outside and time.monotonic() < deadline:
        time.sleep(0.001)
    rig.is_over = True
    stuck += join_all([observer])
    assert (rig.errors, stuck, rig.outside) == ([], [], 0)
    # What was accepted may be got by nobody only if nobody was there; here all wait to the end.
    assert Counter(rig.got) == Counter(rig.put)
    assert all(count == 1 for count in Counter(rig.got).values())
    assert len(rig.got) > STEPS
    for lock in (rig.lock, rig.relock, *[rig.semaphore] * PERMITS):
        assert lock.acquire(False), f"{lock} was not given back"
