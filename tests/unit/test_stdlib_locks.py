"""CPython's own lock tests against our classes: threads as tasks, and threads as they are."""

from __future__ import annotations

from typing import Any

import pytest
from stdlib_case import OnTasks, on_tasks, on_threads

import pycoronet

threads: Any = on_threads("lock_tests")
tasks: Any = on_tasks("lock_tests")


class EventDetails:
    """What is left out: the insides of threading.Event."""

    def test_at_fork_reinit(self) -> None:
        pytest.skip("looks into the condition that threading.Event is made of")

    test_reset_internal_locks = test_at_fork_reinit


class ConditionDetails:
    """What a Condition does not have of an RLock."""

    def test_recursion_count(self) -> None:
        pytest.skip("threading.Condition does not have it either")


class LockOnTasks(OnTasks, tasks.LockTests):
    locktype = staticmethod(pycoronet.Lock)


class RLockOnTasks(OnTasks, tasks.RLockTests):
    locktype = staticmethod(pycoronet.RLock)


class ConditionAsRLockOnTasks(ConditionDetails, OnTasks, tasks.RLockTests):
    locktype = staticmethod(pycoronet.Condition)


class EventOnTasks(EventDetails, OnTasks, tasks.EventTests):
    eventtype = staticmethod(pycoronet.Event)


class ConditionOnTasks(OnTasks, tasks.ConditionTests):
    condtype = staticmethod(pycoronet.Condition)


class SemaphoreOnTasks(OnTasks, tasks.SemaphoreTests):
    semtype = staticmethod(pycoronet.Semaphore)


class BoundedSemaphoreOnTasks(OnTasks, tasks.BoundedSemaphoreTests):
    semtype = staticmethod(pycoronet.BoundedSemaphore)


class BarrierOnTasks(OnTasks, tasks.BarrierTests):
    barriertype = staticmethod(pycoronet.Barrier)


class LockOnThreads(threads.LockTests):
    locktype = staticmethod(pycoronet.Lock)


class RLockOnThreads(threads.RLockTests):
    locktype = staticmethod(pycoronet.RLock)


class ConditionAsRLockOnThreads(ConditionDetails, threads.RLockTests):
    locktype = staticmethod(pycoronet.Condition)


class EventOnThreads(EventDetails, threads.EventTests):
    eventtype = staticmethod(pycoronet.Event)


class ConditionOnThreads(threads.ConditionTests):
    condtype = staticmethod(pycoronet.Condition)


class SemaphoreOnThreads(threads.SemaphoreTests):
    semtype = staticmethod(pycoronet.Semaphore)


class BoundedSemaphoreOnThreads(threads.BoundedSemaphoreTests):
    semtype = staticmethod(pycoronet.BoundedSemaphore)


class BarrierOnThreads(threads.BarrierTests):
    barriertype = staticmethod(pycoronet.Barrier)
