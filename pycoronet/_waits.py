"""Who waits for what, in words: for DeadlockError, Hub.waiters() and Hub.dump()."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from ._coronet import Hub, Lock, RLock, Task
from ._groups import TaskGroup

__all__ = ["Owners", "Row", "Wait", "describe_tasks", "explain", "find_circles", "list_tasks"]


class Wait(NamedTuple):
    """A wait that a task is in."""

    operation: str
    subject: Any  # what is waited for, or None
    seconds: float  # so far
    left: float | None  # until it times out
    is_over: bool  # it has been woken, and runs when its turn comes


class Row(NamedTuple):
    """What a task does."""

    task: Task
    state: str
    switches: int
    cpu_seconds: float  # as far as it was measured
    waits: list[Wait]


def list_tasks(hub: Hub) -> list[Row]:
    """Return what each task of a hub does, the main program's first. For any thread."""
    rows = []
    for task, state, switches, cpu_seconds, flat in hub._list_tasks():
        waits = [Wait(*flat[start : start + 5]) for start in range(0, len(flat), 5)]
        rows.append(Row(task, state, switches, cpu_seconds, waits))
    return rows


def _label(task: Task) -> str:
    return f"Task {task.name!r}"


class Owners:
    """Who is meant by the owner of a lock: a Task, a Hub, or the ident of a thread."""

    def __init__(self, hubs: Iterable[tuple[Hub, list[Row]]]) -> None:
        # The first row is the main program's.
        self._main_tasks = {hub._thread_id: rows[0].task for hub, rows in hubs if rows}

    def find(self, wait: Wait) -> object:
        """Return who has what is waited for; None if nobody is known."""
        if not isinstance(wait.subject, Lock | RLock):
            return None
        owner = wait.subject.owner
        return self._main_tasks.get(owner, owner) if isinstance(owner, int) else owner

    def find_needed(self, row: Row) -> Iterator[tuple[Task, str]]:
        """Yield the tasks that have to do something before the task goes on, and why."""
        for wait in row.waits:
            owner = self.find(wait)
            if wait.is_over:
                continue
            if isinstance(owner, Task):
                holder = "itself" if owner is row.task else _label(owner)
                yield owner, f"waits for {_describe_subject(wait.subject)} held by {holder}"
            elif isinstance(wait.subject, Task):
                yield wait.subject, f"waits in {wait.operation} for {_label(wait.subject)}"
            elif isinstance(wait.subject, TaskGroup):
                for member in wait.subject._list_members():
                    yield member, f"waits for {_label(member)} of its TaskGroup"


def _describe_subject(subject: object) -> str:
    if isinstance(subject, Task):
        return _label(subject)
    if isinstance(subject, Lock | RLock):
        # Its owner is told in words.
        return f"<{type(subject).__name__} at {id(subject):#x}>"
    return repr(subject)


def _describe_owner(owner: object) -> str:
    if isinstance(owner, Task):
        return _label(owner) + (", which has ended" if owner.done else "")
    if isinstance(owner, Hub):
        return "a callback of the hub"
    names = (thread.name for thread in threading.enumerate() if thread.ident == owner)
    return f"thread {next(names, owner)!r}"


def describe_wait(wait: Wait, owners: Owners) -> str:
    """Return what the wait is for: "acquire <Lock at 0x7f01> held by Task 'b'"."""
    if wait.subject is None and wait.operation != "sleep":
        return wait.operation
    text = f"{wait.operation} {_describe_subject(wait.subject)}"
    owner = owners.find(wait)
    return text if owner is None else f"{text} held by {_describe_owner(owner)}"


def find_circles(rows: list[Row], owners: Owners) -> list[str]:
    """Return, in words, each circle of tasks that wait for one another."""
    needed = {row.task: list(owners.find_needed(row)) for row in rows}
    circles = []
    seen: set[Task] = set()
    for start in needed:
        if start in seen:
            continue
        # Depth first; those who stand on the way are passed through just now.
        seen.add(start)
        way = {start: ""}  # in order, with why it waits for the next
        branches = [iter(needed[start])]
        while branches:
            task, why = next(branches[-1], (None, ""))
            if task is None:
                branches.pop()
                way.popitem()
                continue
            way[next(reversed(way))] = why
            if task in way:
                circles.append(_describe_circle(way, task))
            elif task in needed and task not in seen:
                seen.add(task)
                way[task] = ""
                branches.append(iter(needed[task]))
    return circles


def _describe_circle(way: dict[Task, str], first: Task) -> str:
    tasks = list(way)
    steps = [way[task] for task in tasks[tasks.index(first) :]]
    return f"{_label(first)} {', which '.join(steps)}: a circle"


def explain(hub: Hub) -> tuple[list[str], list[str]]:
    """Return each wait in words, and each circle of tasks that wait for one another."""
    rows = list_tasks(hub)
    owners = Owners([(hub, rows)])
    lines = [
        f"{_label(row.task)}: {describe_wait(wait, owners)}" for row in rows for wait in row.waits
    ]
    return lines, find_circles(rows, owners)


def describe_tasks(hub: Hub) -> list[str]:
    """Return what each task does, each of its waits in a line of its own."""
    rows = list_tasks(hub)
    owners = Owners([(hub, rows)])
    lines = []
    for row in rows:
        if not row.waits:
            lines.append(
                f"{_label(row.task)}: {'not begun' if row.state == 'queued' else row.state}"
            )
        for wait in row.waits:
            end = "" if wait.left is None else f", {wait.left:.3f} s left"
            if wait.is_over:
                end = ", ready to go on"
            lines.append(f"{_label(row.task)}: {describe_wait(wait, owners)}{end}")
    return lines
