"""Any program of sleeps, bounds, permits, queues, groups and cancels, against a scheduler on paper.

Hypothesis chooses what tasks do and what the main program does to them, and makes a failure small.
The model plays the same program with lists: who is ready runs in the order in which they became so,
who waits is served in the order in which they came, and a deadline comes when it is due. What was
left for the hub to call comes before who is ready. Who makes the 256th call in a row that waits
for nothing gives way first. After each step, what the tasks have noted is compared line by line:
who, what came of it, and when. So a wake-up that is lost, doubled, early or out of turn is seen.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule
from machines import run_machine

from pycoronet import (
    Cancelled,
    Event,
    Queue,
    Semaphore,
    TaskGroup,
    _coronet,
    sleep,
    spawn,
    timeout,
)
from pycoronet.testing import virtual_time

PERMITS = 2
ROOM = 2  # of the queue
UNIT_MS = 100  # of a time that Hypothesis chooses
NEVER = 1 << 60
BUDGET = 1 if _coronet.HARD_MODE else 256  # of calls without a wait; at the last one gives way
CALLBACK = -1  # the number under which the hub's calls note

Steps = list[tuple[str, int]]  # what to do, and the bound around it in units, 0 = none
Line = tuple[int, str, int]  # which task, what came of it, the time in milliseconds

WAITS = ["sleep", "sleep", "yield", "acquire", "wait", "put", "get"]
bounds = st.sampled_from([0, 0, 0, 1, 2, 3])
OTHERS = ["release", "set", "clear", "spawn", "call"]
GROUPS: dict[str, list[Steps]] = {  # by name: what their members do
    "group": [[("sleep", 1), ("release", 0)], [("acquire", 0)], [("get", 2)]],
    "failing_group": [[("acquire", 0), ("put", 0)], [("yield", 0), ("fail", 0)], [("sleep", 2)]],
}
step = st.tuples(st.sampled_from([*WAITS, *OTHERS, *GROUPS]), bounds)
BUSY = [["put", "get"], ["get", "put"], ["acquire", "release"], ["set", "wait"], ["call"]]
programs = st.lists(step, min_size=1, max_size=5)


class Actor:
    """A task of the model: what it is to do, and what it waits for."""

    def __init__(self, number: int, steps: Steps) -> None:
        self.number = number
        self.steps = deque(steps)
        self.line: deque[Actor] | None = None  # that it stands in
        self.due_ms = NEVER  # when a sleep is over
        self.bound_ms = NEVER  # when the step has to be done
        self.outcome = ""  # of the wait, once it is over
        self.is_waiting = False
        self.is_ready = True  # stands in the line of those
        self.has_begun = False
        self.is_cancelled = False
        self.has_ended = False
        self.step = ""  # that it is at
        self.owner: Actor | None = None  # who waits for it, among others
        self.members: list[Actor] = []  # for whom it waits itself
        self.has_failures = False  # of members
        self.is_shielded = False  # nothing interrupts it


class Paper:
    """The scheduler of the model. Times are in whole milliseconds; no two deadlines are alike."""

    def __init__(self) -> None:
        self.now_ms = 0
        self.end_ms = 0  # of the step of the main program
        self.actors: list[Actor] = []
        self.ready: deque[Actor] = deque()
        self.calls = 0  # that the hub is to make
        self.unblocked = 0  # calls since anybody waited
        self.lines: list[Line] = []
        self.taken_ms: set[int] = set()  # when something is due, or was
        self.durations_ms: deque[int] = deque()  # in the order in which tasks ask for them
        self.permits = PERMITS
        self.acquirers: deque[Actor] = deque()
        self.is_set = False
        self.event_waiters: deque[Actor] = deque()
        self.items = 0  # that nobody has been promised
        self.promised_room = 0  # to putters that are about to run
        self.getters: deque[Actor] = deque()
        self.putters: deque[Actor] = deque()

    # --- Who runs --------------------------------------------------------------------------------

    def spawn(self, steps: Steps) -> Actor:
        actor = Actor(len(self.actors), steps)
        self.actors.append(actor)
        self.ready.append(actor)
        return actor

    def wake(self, actor: Actor, outcome: str) -> None:
        """Make one ready, for the first reason."""
        assert actor.is_waiting
        actor.is_waiting = False
        actor.outcome = outcome
        actor.due_ms = actor.bound_ms = NEVER
        if actor.line is not None:
            actor.line.remove(actor)
            actor.line = None
        actor.is_ready = True
        self.ready.append(actor)

    def put_last(self, actor: Actor, outcome: str) -> None:
        """Have one give way, and go on with that."""
        self.unblocked = 0
        actor.is_waiting = True
        actor.outcome = outcome
        actor.is_ready = True
        self.ready.append(actor)

    def run(self) -> None:
        """Let all go on who can."""
        while self.calls or self.ready:
            for _ in range(self.calls):
                self.lines.append((CALLBACK, "called", self.now_ms))
                self.do_release()
            self.calls = 0
            if self.ready:
                self.resume(self.ready.popleft())

    def resume(self, actor: Actor) -> None:
        actor.is_waiting = actor.is_ready = False
        if not actor.has_begun:
            actor.has_begun = True
            if actor.is_cancelled:
                self.end(actor)
        elif actor.outcome == "turn":
            self.perform(actor)
        else:
            if actor.outcome == "room":
                self.promised_room -= 1
                self.items += 1
                self.admit()
                actor.outcome = "done"
            elif actor.step == "get" and actor.outcome == "done":
                # It had a promise, and looks who can go on as well: somebody may have come who
                # has room, but follows another one.
                self.admit()
            self.conclude(actor, actor.outcome)
        while not actor.has_ended and not actor.is_waiting:
            self.go_on(actor)

    def conclude(self, actor: Actor, outcome: str) -> None:
        """Note what came of a step, once those for whom it waits have ended, too."""
        if actor.step in GROUPS and outcome != "done" and not actor.is_shielded:
            actor.is_shielded = True
            for member in list(actor.members):
                self.cancel(member)
            if actor.members:
                self.unblocked = 0
                actor.is_waiting = True
                actor.outcome = outcome
                return
            if self.has_to_give_way():
                self.put_last(actor, outcome)
                return
        actor.is_shielded = False
        if actor.has_failures:
            outcome = "failed"
        actor.has_failures = False
        actor.bound_ms = NEVER
        self.lines.append((actor.number, outcome, self.now_ms))
        if outcome == "cancelled" or actor.step == "fail":
            self.end(actor)

    def end(self, actor: Actor) -> None:
        actor.has_ended = True
        owner = actor.owner
        if owner is None:
            return
        owner.members.remove(actor)
        if actor.step == "fail":
            owner.has_failures = True
            for member in list(owner.members):
                self.cancel(member)
        if not owner.members and owner.is_waiting and not owner.is_ready:
            self.wake(owner, owner.outcome if owner.is_shielded else "done")

    def has_to_give_way(self) -> bool:
        """Count a call that may wait."""
        self.unblocked += 1
        return self.unblocked >= BUDGET

    def go_on(self, actor: Actor) -> None:
        """Do the next step, perhaps up to where it has to wait."""
        if not actor.steps:
            self.end(actor)
            return
        actor.step, bound = actor.steps.popleft()
        if bound or actor.step == "sleep":
            actor.bound_ms = self.now_ms + self.choose_duration(bound)
        is_counted = actor.step in COUNTED or (actor.step == "wait" and self.is_set)
        if not is_counted or not self.has_to_give_way():
            self.perform(actor)
        elif actor.is_cancelled:
            self.unblocked = 0
            self.refuse(actor)
        else:
            self.put_last(actor, "turn")

    def perform(self, actor: Actor) -> None:
        what = actor.step
        if (what == "wait" and actor.outcome == "turn") or getattr(self, f"do_{what}")(actor):
            actor.outcome = ""
            self.conclude(actor, "failed" if what == "fail" else "done")
        elif actor.is_cancelled:
            self.refuse(actor)
        elif what == "yield":
            self.put_last(actor, "done")
        else:
            self.unblocked = 0
            actor.is_waiting = True
            if what == "sleep":
                actor.due_ms, actor.bound_ms = actor.bound_ms, NEVER
            if what in LINES:
                actor.line = getattr(self, LINES[what])
                actor.line.append(actor)

    def refuse(self, actor: Actor) -> None:
        """Let one that is cancelled not wait; now and then it gives way all the same."""
        actor.bound_ms = NEVER
        if self.has_to_give_way():
            self.put_last(actor, "cancelled")
        else:
            self.conclude(actor, "cancelled")

    def choose_duration(self, units: int) -> int:
        """Return about so many units, such that nothing else is due then."""
        duration_ms = max(units, 1) * UNIT_MS
        while self.now_ms + duration_ms in self.taken_ms:
            duration_ms += 1
        self.taken_ms.add(self.now_ms + duration_ms)
        self.durations_ms.append(duration_ms)
        return duration_ms

    def pass_time(self, duration_ms: int) -> int:
        """Go from deadline to deadline; return how long it was."""
        self.end_ms = self.now_ms + duration_ms
        while self.end_ms in self.taken_ms:
            self.end_ms += 1
        self.taken_ms.add(self.end_ms)
        start_ms = self.now_ms
        self.unblocked = 0  # the main program waits, too
        self.run()
        while True:
            waiting = [actor for actor in self.actors if actor.is_waiting]
            first = min(waiting, key=lambda a: min(a.due_ms, a.bound_ms), default=None)
            if first is None or min(first.due_ms, first.bound_ms) > self.end_ms:
                break
            self.now_ms = min(first.due_ms, first.bound_ms)
            self.wake(first, "done" if first.due_ms == self.now_ms else "late")
            self.run()
        self.now_ms = self.end_ms
        return self.end_ms - start_ms

    def cancel(self, actor: Actor) -> None:
        if not actor.has_ended:
            actor.is_cancelled = True
            if actor.is_waiting and not actor.is_shielded and not actor.is_ready:
                self.wake(actor, "cancelled")

    # --- What a task does: False if it has to wait -----------------------------------------------

    def do_sleep(self, actor: Actor) -> bool:
        return False

    def do_yield(self, actor: Actor) -> bool:
        return False

    def do_acquire(self, actor: Actor) -> bool:
        if self.permits == 0:
            return False
        self.permits -= 1
        return True

    def do_release(self, actor: Actor | None = None) -> bool:
        if self.acquirers:
            self.wake(self.acquirers[0], "done")
        else:
            self.permits += 1
        return True

    def do_wait(self, actor: Actor) -> bool:
        return self.is_set

    def do_set(self, actor: Actor | None = None) -> bool:
        self.is_set = True
        while self.event_waiters:
            self.wake(self.event_waiters[0], "done")
        return True

    def do_clear(self, actor: Actor | None = None) -> bool:
        self.is_set = False
        return True

    def do_put(self, actor: Actor) -> bool:
        # Who puts does not overtake those who have room and are about to run.
        if self.promised_room > 0 or self.items == ROOM:
            return False
        self.items += 1
        self.admit()
        return True

    def do_get(self, actor: Actor) -> bool:
        if self.items == 0:
            return False
        self.items -= 1
        self.admit()
        return True

    def admit(self) -> None:
        """Promise items and room to those who wait longest."""
        while self.getters and self.items > 0:
            self.items -= 1
            self.wake(self.getters[0], "done")
        while self.putters and self.items + self.promised_room < ROOM:
            self.promised_room += 1
            self.wake(self.putters[0], "room")

    def do_spawn(self, actor: Actor) -> bool:
        self.spawn([("sleep", 1), ("release", 0)])
        return True

    def do_call(self, actor: Actor | None = None) -> bool:
        self.calls += 1
        return True

    def do_fail(self, actor: Actor) -> bool:
        return True

    def do_group(self, actor: Actor) -> bool:
        actor.members = [self.spawn(steps) for steps in GROUPS[actor.step]]
        for member in actor.members:
            member.owner = actor
        return False

    do_failing_group = do_group


COUNTED = ["acquire", "put", "get"]
LINES = {"acquire": "acquirers", "wait": "event_waiters", "put": "putters", "get": "getters"}


def in_seconds(duration_ms: int) -> float:
    """Return a time that surely ends with that millisecond: 0.134 is a little more than 134 ms."""
    return (duration_ms - 0.5) / 1000


class SchedulerMachine(RuleBasedStateMachine):
    """The program itself, and the one on paper beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.stack = ExitStack()
        self.hub = self.stack.enter_context(virtual_time())
        sleep(0.001)  # from here on the clock stands at whole milliseconds
        self.start = self.hub.time
        self.paper = Paper()
        self.tasks: list[Any] = []
        self.lines: list[Line] = []
        self.semaphore = Semaphore(PERMITS)
        self.event = Event()
        self.queue: Any = Queue(ROOM)

    # --- What a task does ------------------------------------------------------------------------

    def spawn(self, steps: Steps, spawn: Callable[..., Any] = spawn) -> None:
        self.tasks.append(spawn(self.live, len(self.tasks), steps))

    def call(self) -> None:
        self.note(CALLBACK, "called")
        self.semaphore.release()

    def live(self, number: int, steps: Steps) -> None:
        for what, bound in steps:
            seconds = None
            if bound or what == "sleep":
                seconds = in_seconds(self.paper.durations_ms.popleft())
            try:
                with timeout(seconds if what != "sleep" else None):
                    self.act(what, seconds)
            except TimeoutError:
                self.note(number, "late")
            except Cancelled:
                self.note(number, "cancelled")
                raise
            except Exception:
                self.note(number, "failed")
                if what == "fail":
                    raise
            else:
                self.note(number, "done")

    def note(self, number: int, outcome: str) -> None:
        self.lines.append((number, outcome, round((self.hub.time - self.start) * 1000)))

    def act(self, what: str, seconds: float | None) -> None:
        if what == "sleep":
            sleep(seconds)
        elif what == "yield":
            sleep(0)
        elif what == "acquire":
            self.semaphore.acquire()
        elif what == "release":
            self.semaphore.release()
        elif what == "wait":
            self.event.wait()
        elif what == "set":
            self.event.set()
        elif what == "clear":
            self.event.clear()
        elif what == "put":
            self.queue.put(None)
        elif what == "get":
            self.queue.get()
        elif what == "spawn":
            self.spawn([("sleep", 1), ("release", 0)])
        elif what == "call":
            self.hub.call_soon(self.call)
        elif what == "fail":
            raise ZeroDivisionError
        elif what in GROUPS:
            with TaskGroup() as group:
                for steps in GROUPS[what]:
                    self.spawn(steps, group.spawn)

    # --- What the main program does --------------------------------------------------------------

    @rule(
        programs=st.lists(programs, min_size=1, max_size=4),
        copies=st.sampled_from([1] * 9 + [30]),
    )
    def start_tasks(self, programs: list[Steps], copies: int) -> None:
        for steps in programs * copies:
            self.paper.spawn(steps)
            self.spawn(steps)

    @rule(
        chosen=st.lists(st.sampled_from(BUSY), min_size=1, max_size=3),
        times=st.sampled_from([1, 1, 60, 130]),
    )
    def start_busy_tasks(self, chosen: list[list[str]], times: int) -> None:
        """Start some that hardly wait, and so give way now and then."""
        self.start_tasks([[(what, 0) for what in names] * times for names in chosen], 1)

    @rule(
        names=st.lists(st.sampled_from(["release", "set", "clear", "call"]), min_size=1, max_size=3)
    )
    def change(self, names: list[str]) -> None:
        for name in names:
            getattr(self.paper, f"do_{name}")()
            self.act(name, None)

    @rule(chosen=st.lists(st.integers(0, 30), min_size=1, max_size=3))
    def cancel(self, chosen: list[int]) -> None:
        for number in chosen:
            if number < len(self.tasks):
                self.paper.cancel(self.paper.actors[number])
                self.tasks[number].cancel()

    @rule(units=st.sampled_from([0, 1, 2, 10]))
    def pass_time(self, units: int) -> None:
        duration_ms = self.paper.pass_time(units * UNIT_MS + 1)
        sleep(in_seconds(duration_ms))
        self.compare()

    def compare(self) -> None:
        assert self.lines == self.paper.lines[: len(self.lines)]
        assert len(self.lines) == len(self.paper.lines), "somebody was not woken"
        assert not self.paper.durations_ms
        assert [task.done for task in self.tasks] == [a.has_ended for a in self.paper.actors]
        assert round((self.hub.time - self.start) * 1000) == self.paper.now_ms

    def teardown(self) -> None:
        """Cancel all who are left: they end."""
        try:
            self.pass_time(0)
            self.cancel(list(range(len(self.tasks))))
            self.pass_time(0)
            assert all(task.done for task in self.tasks)
            assert self.hub.task_count == 0
        finally:
            self.stack.close()


@pytest.mark.optimisation("who need not wait goes on: the order in which tasks run")
def test_scheduler_state_machine() -> None:
    run_machine(SchedulerMachine, examples=100, steps=30)
