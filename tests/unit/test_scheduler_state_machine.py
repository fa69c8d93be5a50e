"""Any program of sleeps, bounds, permits, events, queues and cancels, against a scheduler on paper.

Hypothesis chooses what tasks do and what the main program does to them, and makes a failure small.
The model plays the same program with lists: who is ready runs in the order in which they became so,
who waits is served in the order in which they came, and a deadline comes when it is due. After each
step, what the tasks have noted is compared line by line: who, what came of it, and when. So a
wake-up that is lost, doubled, early or out of turn is seen.
"""

from __future__ import annotations

from collections import deque
from contextlib import ExitStack
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule
from machines import run_machine

from pycoronet import Cancelled, Event, Queue, Semaphore, sleep, spawn, timeout
from pycoronet.testing import virtual_time

PERMITS = 2
ROOM = 2  # of the queue
UNIT_MS = 100  # of a time that Hypothesis chooses
NEVER = 1 << 60
MOST_READY = 12  # at once: few enough that nobody gives way after many steps without a wait

Steps = list[tuple[str, int]]  # what to do, and the bound around it in units, 0 = none
Line = tuple[int, str, int]  # which task, what came of it, the time in milliseconds

WAITS = ["sleep", "sleep", "yield", "acquire", "wait", "put", "get"]
bounds = st.sampled_from([0, 0, 0, 1, 2, 3])
step = st.tuples(st.sampled_from([*WAITS, "release", "set", "clear", "spawn"]), bounds)
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
        self.has_begun = False
        self.is_cancelled = False
        self.has_ended = False


class Paper:
    """The scheduler of the model. Times are in whole milliseconds; no two deadlines are alike."""

    def __init__(self) -> None:
        self.now_ms = 0
        self.end_ms = 0  # of the step of the main program
        self.actors: list[Actor] = []
        self.ready: deque[Actor] = deque()
        self.lines: list[Line] = []
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
        self.ready.append(actor)

    def run(self) -> None:
        """Let all go on who can."""
        while self.ready:
            actor = self.ready.popleft()
            if not actor.has_begun:
                actor.has_begun = True
                actor.has_ended = actor.is_cancelled
            else:
                actor.is_waiting = False
                if actor.outcome == "room":
                    self.promised_room -= 1
                    self.items += 1
                    self.admit()
                    actor.outcome = "done"
                self.note(actor, actor.outcome)
            while not actor.has_ended and not actor.is_waiting:
                self.go_on(actor)

    def note(self, actor: Actor, outcome: str) -> None:
        self.lines.append((actor.number, outcome, self.now_ms))
        actor.has_ended = outcome == "cancelled"

    def go_on(self, actor: Actor) -> None:
        """Do the next step, perhaps up to where it has to wait."""
        if not actor.steps:
            actor.has_ended = True
            return
        what, bound = actor.steps.popleft()
        duration_ms = self.choose_duration(bound) if bound or what == "sleep" else 0
        if getattr(self, f"do_{what}")(actor):
            self.note(actor, "done")
        elif actor.is_cancelled:
            self.note(actor, "cancelled")
        else:
            actor.is_waiting = True
            if what == "sleep":
                actor.due_ms = self.now_ms + duration_ms
            elif what == "yield":
                self.wake(actor, "done")
                actor.is_waiting = True  # it is ready, and stays so
            elif bound:
                actor.bound_ms = self.now_ms + duration_ms
            if what in LINES:
                actor.line = getattr(self, LINES[what])
                actor.line.append(actor)

    def choose_duration(self, units: int) -> int:
        """Return about so many units, such that nothing else is due then."""
        taken = {at for actor in self.actors for at in (actor.due_ms, actor.bound_ms)}
        duration_ms = max(units, 1) * UNIT_MS
        while self.now_ms + duration_ms in taken or self.now_ms + duration_ms == self.end_ms:
            duration_ms += 1
        self.durations_ms.append(duration_ms)
        return duration_ms

    def pass_time(self, duration_ms: int) -> int:
        """Go from deadline to deadline; return how long it was."""
        taken = {at for actor in self.actors for at in (actor.due_ms, actor.bound_ms)}
        self.end_ms = self.now_ms + duration_ms
        while self.end_ms in taken:
            self.end_ms += 1
        start_ms = self.now_ms
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
            if actor.is_waiting and actor not in self.ready:
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


LINES = {"acquire": "acquirers", "wait": "event_waiters", "put": "putters", "get": "getters"}


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

    def spawn(self, steps: Steps) -> Any:
        number = len(self.tasks)
        task = spawn(self.live, number, steps)
        self.tasks.append(task)
        return task

    def live(self, number: int, steps: Steps) -> None:
        for what, bound in steps:
            seconds = None
            if bound or what == "sleep":
                seconds = self.paper.durations_ms.popleft() / 1000
            try:
                with timeout(seconds if what != "sleep" else None):
                    self.act(what, seconds)
            except TimeoutError:
                self.note(number, "late")
            except Cancelled:
                self.note(number, "cancelled")
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

    # --- What the main program does --------------------------------------------------------------

    @rule(programs=st.lists(programs, min_size=1, max_size=4))
    def start_tasks(self, programs: list[Steps]) -> None:
        for steps in programs:
            self.paper.spawn(steps)
            self.spawn(steps)
        if len(self.paper.ready) > MOST_READY:
            self.pass_time(0)

    @rule(names=st.lists(st.sampled_from(["release", "set", "clear"]), min_size=1, max_size=3))
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
        sleep(duration_ms / 1000)
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
            for number in range(len(self.tasks)):
                self.cancel([number])
                if number % MOST_READY == 0:
                    self.pass_time(0)
            self.pass_time(0)
            assert all(task.done for task in self.tasks)
            assert self.hub.task_count == 0
        finally:
            self.stack.close()


def test_scheduler_state_machine() -> None:
    run_machine(SchedulerMachine, examples=100, steps=30)
