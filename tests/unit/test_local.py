"""Local: attributes of each task, of main programs, callbacks and threads; their lifetime."""

from __future__ import annotations

import gc
import threading
import weakref
from typing import Any

import greenlet
import pytest
from processes import lines_of
from sync_case import in_callback

from pycoronet import Local, Pool, current, get_hub, sleep, spawn

pytestmark = pytest.mark.usefixtures("virtual_hub")


class Value:
    """Something that can be seen to go."""


def in_thread(function: Any) -> Any:
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(function()))
    thread.start()
    thread.join()
    return found[0]


# --- Whose they are -------------------------------------------------------------------------


def test_each_task_has_its_own_attributes() -> None:
    local = Local()

    def work(number: int) -> Any:
        assert not hasattr(local, "value")
        local.value = number
        for _ in range(3):
            sleep(1)
            assert local.value == number
        return vars(local)

    assert [task.get() for task in [spawn(work, number) for number in range(20)]] == [
        {"value": number} for number in range(20)
    ]
    assert vars(local) == {}


def test_a_task_that_a_worker_runs_next_begins_with_none() -> None:
    local = Local()
    spawn(setattr, local, "value", 1).join()
    assert not spawn(hasattr, local, "value").get()


def test_the_main_program_keeps_its_own_whatever_hub_it_has() -> None:
    local = Local()
    local.value = "main"
    assert not spawn(hasattr, local, "value").get()
    get_hub().close()
    assert local.value == "main"
    get_hub(backend="fake")
    sleep(1)
    assert local.value == "main"


def test_callbacks_have_theirs_together_and_until_the_hub_is_closed() -> None:
    local = Local()
    local.value = "main"
    assert not in_callback(lambda: hasattr(local, "value"))
    in_callback(lambda: setattr(local, "value", Value()))
    reference = weakref.ref(in_callback(lambda: local.value))
    assert reference() is not None
    assert local.value == "main"
    get_hub().close()
    gc.collect()
    assert reference() is None


def test_a_plain_thread_has_its_own_and_needs_no_hub() -> None:
    assert lines_of(
        """
        local = Local()
        local.value = "main"
        def work():
            assert not hasattr(local, "value")
            local.value = "thread"
            say(local.value, pycoronet._coronet._hub_exists())
            sleep(0)
            say(local.value, spawn(hasattr, local, "value").get())
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        say(local.value)
        """
    ) == ["thread False", "thread False", "main"]


def test_a_greenlet_nested_in_a_task_has_the_task_s() -> None:
    local = Local()

    def work() -> Any:
        local.value = current()
        return greenlet.greenlet(lambda: local.value).switch()

    task = spawn(work)
    assert task.get() is task


def test_a_forked_child_keeps_those_of_who_forked() -> None:
    assert lines_of(
        """
        local = Local()
        local.value = "main"
        def work():
            local.value = "task"
            if os.fork() == 0:
                sleep(0)
                say(local.value, spawn(hasattr, local, "value").get())
            else:
                os.wait()
        spawn(work).join()
        say(local.value)
        """
    ) == ["task False", "main"]


def test_calls_of_a_pool_have_their_own() -> None:
    local = Local()

    def call(number: int) -> bool:
        had = hasattr(local, "value")
        local.value = number
        sleep(1)
        return had or local.value != number

    assert Pool(3).map(call, range(10)) == [False] * 10


# --- What attributes may be -----------------------------------------------------------------


def test_attributes_are_got_set_and_deleted() -> None:
    local = Local()
    local.value = 1
    assert (local.value, vars(local), "value" in dir(local)) == (1, {"value": 1}, True)
    del local.value
    for call in (
        lambda: local.value,
        lambda: delattr(local, "value"),
        lambda: setattr(local, "__dict__", {}),
    ):
        with pytest.raises(AttributeError):
            call()
    vars(local)["other"] = 2
    assert local.other == 2
    assert "Local" in repr(local)
    with pytest.raises(TypeError):
        setattr(local, 5, 5)  # type: ignore[call-overload]


def test_arguments_are_for_subclasses() -> None:
    for arguments, keywords in (((1,), {}), ((), {"a": 1})):
        with pytest.raises(TypeError, match="no arguments"):
            Local(*arguments, **keywords)


class Counter(Local):
    """Sets itself up for each task."""

    shared = "of the class"
    made = 0

    def __init__(self, start: int, *, step: int = 1) -> None:
        Counter.made += 1
        self.number = start
        self.step = step

    @property
    def following(self) -> int:
        self.number += self.step
        sleep(1)  # others use it meanwhile
        return int(self.number)

    @following.setter
    def following(self, number: int) -> None:
        sleep(1)
        self.number = number


def test_a_subclass_sets_up_each_task_once() -> None:
    counter = Counter(5, step=2)
    before = Counter.made
    assert [task.get() for task in [spawn(lambda: counter.following) for _ in range(5)]] == [7] * 5
    assert Counter.made == before + 5
    assert (counter.number, counter.following, counter.shared) == (5, 7, "of the class")
    assert Counter.made == before + 5


def test_properties_may_switch() -> None:
    counter = Counter(0)

    def work(number: int) -> list[int]:
        counter.following = 10 * number
        return [counter.following, counter.following, counter.number]

    tasks = [spawn(work, number) for number in range(5)]
    assert [task.get() for task in tasks] == [[n + 1, n + 2, n + 2] for n in range(0, 50, 10)]


def test_an_init_that_fails_is_tried_again() -> None:
    class Picky(Local):
        fails = False

        def __init__(self) -> None:
            self.tries = getattr(self, "tries", 0) + 1
            if Picky.fails:
                raise LookupError
            self.kept = Value()

    picky = Picky()
    Picky.fails = True
    for call in (
        lambda: picky.kept,
        lambda: setattr(picky, "kept", 1),
        lambda: vars(picky),
        Picky,
    ):
        with pytest.raises(LookupError):
            spawn(call).get()

    def work() -> Any:
        with pytest.raises(LookupError):
            picky.kept  # noqa: B018
        Picky.fails = False
        return picky.kept, picky.tries

    kept, tries = spawn(work).get()
    assert isinstance(kept, Value)
    assert tries == 1


def test_a_subclass_may_have_slots_that_all_share() -> None:
    class Slotted(Local):
        __slots__ = ("shared",)

    local = Slotted()
    local.shared = 1
    local.own = 2
    assert spawn(lambda: (local.shared, hasattr(local, "own"))).get() == (1, False)


# --- Lifetime -------------------------------------------------------------------------------


def keep_value(local: Any) -> weakref.ref[Value]:
    local.value = Value()
    return weakref.ref(local.value)


def test_they_go_when_the_task_ends_though_the_task_is_kept() -> None:
    local = Local()
    task = spawn(keep_value, local)
    assert task.get()() is None


def test_they_go_when_the_thread_ends() -> None:
    assert in_thread(lambda: keep_value(Local()))() is None
    local = Local()
    assert in_thread(lambda: keep_value(local))() is None
    assert in_thread(lambda: (sleep(0), keep_value(local)))[1]() is None


def test_they_go_with_the_local() -> None:
    local = Local()
    references: list[Any] = []

    def work(local: Local) -> None:
        references.append(keep_value(local))
        sleep(5)

    spawn(work, local)
    references.append(keep_value(local))
    sleep(1)
    assert None not in [reference() for reference in references]
    del local
    gc.collect()
    sleep(9)  # the task's frame refers to it
    gc.collect()
    assert [reference() for reference in references] == [None, None]


def test_a_local_among_its_own_values_is_garbage_while_tasks_go_on() -> None:
    locals_made: list[weakref.ref[Any]] = []

    def make() -> None:
        local = Local()
        local.me = local
        locals_made.append(weakref.ref(local))

    def work() -> None:
        make()
        sleep(5)

    make()
    spawn(work)
    sleep(1)
    gc.collect()
    assert [reference() for reference in locals_made] == [None, None]


def test_finalisers_may_use_the_local() -> None:
    local = Local()
    log: list[Any] = []

    class Last:
        def __del__(self) -> None:
            log.append(hasattr(local, "value"))
            local.again = Value()

    def work() -> None:
        local.value = Last()

    task = spawn(work)
    task.join()
    del task
    in_thread(work)
    gc.collect()
    assert log == [False, False]
    assert vars(local) == {}


def test_a_thousand_locals_and_a_thousand_tasks() -> None:
    many = [Local() for _ in range(1000)]
    for number, local in enumerate(many):
        local.value = number
    assert [local.value for local in many] == list(range(1000))
    local = many[0]
    tasks = [spawn(keep_value, local) for _ in range(1000)]
    assert [task.get()() for task in tasks] == [None] * 1000
    del many[:]
    gc.collect()
    assert local.value == 0
