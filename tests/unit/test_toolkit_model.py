"""Random programs of the coroutine toolkit: groups, locks, queues, pools, deadlines, cancels.

Tasks in nested groups do what comes, and are cancelled at any moment. What must hold whatever
happens: nothing is lost or doubled, first come is first served, whoever was not cancelled sees
no Cancelled, and in the end nobody is left, nothing is held, nothing waits.
"""

from __future__ import annotations

import random
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from queue import Empty, Full
from threading import BrokenBarrierError
from typing import Any

import pytest

from pycoronet import (
    Barrier,
    Cancelled,
    Channel,
    Condition,
    DeadlockError,
    Lock,
    Pool,
    Queue,
    RLock,
    Semaphore,
    Task,
    TaskGroup,
    current,
    get_hub,
    iwait,
    joinall,
    move_on_after,
    shield,
    sleep,
    spawn,
    spawn_later,
    timeout,
    wait,
)
from pycoronet.testing import nothing_left_behind, virtual_time

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup

MOMENTS = (0, 0, 0.5, 1, 1, 2)  # seconds: few different ones, so that things coincide
PERMITS = 2
PARTIES = 3
DEPTH = 3
SEEDS = 100  # a block


class PlannedError(Exception):
    """What the model raises by intention."""


class Guarded:
    """A lock or semaphore: how many have it, and who came before whom."""

    def __init__(self, lock: Any, places: int) -> None:
        self.lock = lock
        self.places = places
        self.holders = 0
        self.waiting: list[object] = []
        self.overtaken: list[object] = []

    def served(self, ticket: object) -> None:
        assert ticket not in self.overtaken, "who came later was served before"
        # Those ahead have given up, and find out when they run.
        self.overtaken += self.waiting[: self.waiting.index(ticket)]
        self.holders += 1
        assert self.holders <= self.places

    def use(self, limit: float | None, seconds: float) -> None:
        ticket = object()
        self.waiting.append(ticket)
        try:
            if not self.lock.acquire(timeout=limit):
                return
            self.served(ticket)
        finally:
            self.waiting.remove(ticket)
        try:
            sleep(seconds)
        finally:
            self.holders -= 1
            self.lock.release()


class Store:
    """A queue or channel: who put what and who got it, by the order in which they came."""

    def __init__(self, queue: Any) -> None:
        self.queue = queue
        self.count = 0
        self.put_ones: set[int] = set()  # for certain
        self.got: dict[int, int] = {}  # what the getters have got, by their numbers

    def put(self, limit: float | None) -> None:
        self.count += 1
        item = self.count
        self.queue.put(item, timeout=limit)
        self.put_ones.add(item)

    def get(self, limit: float | None) -> None:
        self.count += 1
        number = self.count
        self.got[number] = self.queue.get(timeout=limit)

    def check(self) -> None:
        while True:
            try:
                self.count += 1
                self.got[self.count] = self.queue.get_nowait()
            except Empty:
                break
        items = [self.got[number] for number in sorted(self.got)]
        assert items == sorted(items), "not in the order in which they were put"
        assert set(items) == self.put_ones
        assert len(items) == len(self.put_ones)


class Nest:
    """A group, and why its tasks may be cancelled."""

    def __init__(self, owner: Person) -> None:
        self.group = TaskGroup()
        self.owner = owner
        self.scopes = list(owner.scopes)  # around the block
        self.is_doomed = False  # its tasks are cancelled, or are about to be

    def may_be_cancelled(self) -> bool:
        return self.is_doomed or self.owner.may_be_cancelled(self.scopes)


class Person:
    """What a task of the model knows about itself."""

    def __init__(self, nest: Nest | None) -> None:
        self.nest = nest  # that it is in
        self.task: Task | None = None
        self.scopes: list[Any] = []  # around what it does now; of a Nest or a scope
        self.was_cancelled = False

    def may_be_cancelled(self, scopes: list[Any]) -> bool:
        return (
            self.was_cancelled
            or any(s.is_doomed if isinstance(s, Nest) else s.expired for s in scopes)
            or (self.nest is not None and self.nest.may_be_cancelled())
        )

    @contextmanager
    def within(self, scope: Any) -> Iterator[None]:
        self.scopes.append(scope)
        try:
            yield
        finally:
            self.scopes.pop()


class World:
    """What the tasks of one program share, and what they may do."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.guarded = [
            Guarded(Lock(), 1),
            Guarded(RLock(), 1),
            Guarded(Semaphore(PERMITS), PERMITS),
        ]
        self.stores = [Store(Queue(2)), Store(Queue()), Store(Channel()), Store(Channel(2))]
        self.condition = Condition()
        self.notified = 0
        self.barrier = Barrier(PARTIES)
        self.pool = Pool(2)
        self.running = 0  # in the pool
        self.persons: list[Person] = []
        self.nests: list[Nest] = []
        self.expected_reports = 0
        self.broken: list[BaseException] = []  # what a task has found wrong
        self.give_up = float("inf")  # when everybody is cancelled
        self.actions: Counter[str] = Counter()

    def moment(self) -> float:
        return self.chance.choice(MOMENTS)

    def limit(self) -> float | None:
        return self.chance.choice((None, 0, 1, 2))

    def live(self, nest: Nest | None, depth: int) -> None:
        """Do this and that."""
        if get_hub().time > self.give_up:
            return
        me = Person(nest)
        me.task = current()
        self.persons.append(me)
        try:
            for _ in range(self.chance.randrange(1, 6)):
                self.act(me, depth)
            if nest is not None and self.chance.random() < 0.03:
                raise PlannedError
        except Cancelled:
            raise
        except BaseException as error:
            if nest is not None:
                nest.is_doomed = True
            if not isinstance(error, PlannedError):
                self.broken.append(error)
            raise

    def act(self, me: Person, depth: int) -> None:
        names = ACTIONS if depth < DEPTH else SIMPLE_ACTIONS
        name = self.chance.choice(names)
        self.actions[name] += 1
        try:
            getattr(self, f"do_{name}")(me, depth)
        except (Empty, Full, BrokenBarrierError):
            pass
        except Cancelled as error:
            assert me.may_be_cancelled(me.scopes), f"{name}: nobody has cancelled it"
            assert error.scope is None or error.scope.expired
            if self.chance.random() < 0.2:
                with shield(self.chance.choice((1, 2))) as scope:
                    self.clean_up(me, scope)
            raise

    def clean_up(self, me: Person, scope: Any) -> None:
        before, me.scopes = me.scopes, [scope]
        try:
            self.chance.choice((self.do_rest, self.do_hold, self.do_put))(me, DEPTH)
        except (Full, Empty):
            pass
        except Cancelled:
            assert scope.expired, "cancelled within a shield"
        finally:
            me.scopes = before

    # What there is to do.

    def do_rest(self, me: Person, depth: int) -> None:
        sleep(self.moment())

    def do_hold(self, me: Person, depth: int) -> None:
        guarded = self.chance.choice(self.guarded)
        limit: float | None = self.chance.choice((1, 2, 100))
        guarded.use(limit, self.moment())

    def do_put(self, me: Person, depth: int) -> None:
        for _ in range(self.chance.randrange(1, 4)):
            self.chance.choice(self.stores).put(self.limit())

    def do_get(self, me: Person, depth: int) -> None:
        for _ in range(self.chance.randrange(1, 4)):
            self.chance.choice(self.stores).get(self.limit())

    def do_await(self, me: Person, depth: int) -> None:
        with self.condition:
            if self.condition.wait_for(lambda: self.notified > 0, self.limit()):
                self.notified -= 1
                assert self.notified >= 0

    def do_notify(self, me: Person, depth: int) -> None:
        with self.condition:
            count = self.chance.randrange(1, 3)
            self.notified += count
            sleep(self.moment())
            self.condition.notify(count)

    def do_meet(self, me: Person, depth: int) -> None:
        if self.chance.random() < 0.1:
            self.barrier.reset()
        self.barrier.wait(self.limit())

    def call(self, number: int) -> int:
        self.running += 1
        assert self.running <= self.pool.size
        try:
            sleep(number % 3 / 2)
        finally:
            self.running -= 1
        return number

    def do_map(self, me: Person, depth: int) -> None:
        count = self.chance.randrange(6)
        assert self.pool.map(self.call, range(count)) == list(range(count))

    def do_imap(self, me: Person, depth: int) -> None:
        is_ordered = self.chance.random() < 0.5
        results = (self.pool.imap if is_ordered else self.pool.imap_unordered)(self.call, range(5))
        got: list[int] = []
        try:
            for _ in range(self.chance.randrange(8)):
                with timeout_or_not(self.limit()):
                    got += [result for result in [next(results, None)] if result is not None]
        finally:
            results.close()  # an exception that is kept may refer to it
        assert len(set(got)) == len(got)
        assert not is_ordered or got == list(range(len(got)))

    def do_start_in_pool(self, me: Person, depth: int) -> None:
        task = self.pool.spawn(self.call, 1)
        assert task.get() == 1

    def do_bound(self, me: Person, depth: int) -> None:
        kind = self.chance.choice((timeout, move_on_after))
        try:
            with kind(self.moment()) as scope, me.within(scope):
                self.act(me, depth + 1)
                self.act(me, depth + 1)
        except TimeoutError as error:
            assert error.scope is scope  # type: ignore[attr-defined]

    def do_nest(self, me: Person, depth: int) -> None:
        nest = Nest(me)
        self.nests.append(nest)
        try:
            with nest.group, me.within(nest):
                try:
                    for _ in range(self.chance.randrange(1, 5)):
                        nest.group.spawn(self.live, nest, depth + 1)
                    self.act(me, depth + 1)
                    self.act(me, depth + 1)
                except BaseException:
                    nest.is_doomed = True
                    raise
        except BaseExceptionGroup as errors:
            only_faults, others = errors.split(PlannedError)
            assert others is None, others
            assert only_faults is not None
        finally:
            assert nest.group._list_members() == []
            self.nests.remove(nest)

    def do_start_later(self, me: Person, depth: int) -> None:
        spawn_later(self.moment(), self.live, None, DEPTH)

    def do_await_others(self, me: Person, depth: int) -> None:
        tasks = [spawn(self.live, None, DEPTH) for _ in range(3)]
        how = self.chance.randrange(4)
        if how == 0:
            try:
                joinall(tasks, self.limit())
            except TimeoutError:
                pass
        elif how == 1:
            done, rest = wait(tasks, self.limit(), 2)
            assert done | rest == set(tasks)
            assert all(task.done for task in done)
        else:
            ended = []
            for task in iwait(tasks):
                assert task.done
                ended.append(task)
                if how == 2:
                    return  # half-way
            assert sorted(map(id, ended)) == sorted(map(id, tasks))

    def do_cancel(self, me: Person, depth: int) -> None:
        self.cancel_somebody()

    def do_cancel_later(self, me: Person, depth: int) -> None:
        get_hub().call_later(self.moment(), self.cancel_somebody)

    def cancel_somebody(self) -> None:
        if self.nests and self.chance.random() < 0.2:
            nest = self.chance.choice(self.nests)
            nest.is_doomed = True
            nest.group.cancel("the model")
            return
        person = self.chance.choice(self.persons)
        assert person.task is not None
        person.was_cancelled = True
        person.task.cancel("the model")

    def do_link(self, me: Person, depth: int) -> None:
        assert me.task is not None
        self.expected_reports += 1
        me.task.link(self.fail)

    def fail(self, task: Task) -> None:
        assert task.done
        raise PlannedError

    # The end.

    def run(self) -> None:
        for _ in range(4):
            spawn_later(self.moment(), self.live, None, 0)
        # Whoever still waits then waits for what nobody does any more.
        for _ in range(40):
            sleep(5)
            for person in list(self.persons):
                assert person.task is not None
                if not person.task.done and get_hub().time > self.give_up:
                    person.was_cancelled = True
                    person.task.cancel("the end")
            if get_hub().time > self.give_up and get_hub().task_count == 0:
                break
        self.pool.join(100)

    def check(self, reports: list[Any]) -> None:
        hub = get_hub()
        if self.broken:
            raise self.broken[0]
        assert hub.task_count == 0, hub.dump()
        assert not self.nests
        for guarded in self.guarded:
            assert guarded.holders == 0
            for _ in range(guarded.places):
                assert guarded.lock.acquire(blocking=False)
        assert not self.guarded[2].lock.acquire(blocking=False)
        assert self.condition.acquire(blocking=False)
        assert not self.condition._tickets
        assert self.barrier.n_waiting == 0
        assert self.running == len(self.pool) == 0
        assert [self.pool.spawn(int).get() for _ in range(3)] == [0, 0, 0]
        for store in self.stores:
            store.check()
        assert [type(report) for report in reports] == [PlannedError] * self.expected_reports
        # Nothing is to come.
        with pytest.raises(DeadlockError):
            sleep(None)


ACTIONS = [name[len("do_") :] for name in vars(World) if name.startswith("do_")]
SIMPLE_ACTIONS = [name for name in ACTIONS if name not in ("bound", "nest", "await_others")]


@contextmanager
def timeout_or_not(seconds: float | None) -> Iterator[None]:
    try:
        with timeout(seconds):
            yield
    except TimeoutError:
        pass


@pytest.mark.optimisation("who need not wait goes on: the order in which tasks run")
@pytest.mark.parametrize("block", range(6))
def test_whatever_tasks_do_together_the_promises_hold(block: int, reports: list[Any]) -> None:
    actions: Counter[str] = Counter()
    for seed in range(block * SEEDS, (block + 1) * SEEDS):
        print(f"seed {seed}")
        with nothing_left_behind(), virtual_time() as hub:
            reports.clear()
            world = World(seed)
            world.give_up = hub.time + 50
            world.run()
            world.check(reports)
        actions += world.actions
    assert set(actions) == set(ACTIONS)
