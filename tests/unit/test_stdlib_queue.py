"""CPython's own queue tests against our classes: threads as tasks, and threads as they are."""

from __future__ import annotations

import types
import unittest
from typing import Any
from unittest import mock

from stdlib_case import OnTasks, on_tasks, on_threads

import pycoronet
from pycoronet import errors

threads: Any = on_threads("test_queue")
tasks: Any = on_tasks("test_queue")


OURS = types.SimpleNamespace(
    Queue=pycoronet.Queue,
    LifoQueue=pycoronet.LifoQueue,
    PriorityQueue=pycoronet.PriorityQueue,
    SimpleQueue=pycoronet.SimpleQueue,
    Empty=errors.Empty,
    Full=errors.Full,
    ShutDown=errors.ShutDown,
)


class PolledByTasks:
    """Where readers poll a queue, which a task may do only if it lets the others run."""

    def _read_msg_thread(self, q: Any, results: list[bool], barrier_start: Any) -> None:
        get = q.get
        polled = mock.Mock(wraps=q)
        polled.get = lambda block: (block or pycoronet.sleep(0), get(block))[1]
        super()._read_msg_thread(polled, results, barrier_start)  # type: ignore[misc]


class QueueOnTasks(PolledByTasks, OnTasks, tasks.QueueTest, unittest.TestCase):
    queue = OURS


class LifoQueueOnTasks(PolledByTasks, OnTasks, tasks.LifoQueueTest, unittest.TestCase):
    queue = OURS


class PriorityQueueOnTasks(PolledByTasks, OnTasks, tasks.PriorityQueueTest, unittest.TestCase):
    queue = OURS


class FailingQueueOnTasks(OnTasks, tasks.FailingQueueTest, unittest.TestCase):
    queue = OURS


class SimpleQueueOnTasks(OnTasks, tasks.CSimpleQueueTest):
    queue = OURS


class QueueOnThreads(threads.QueueTest, unittest.TestCase):
    queue = OURS


class LifoQueueOnThreads(threads.LifoQueueTest, unittest.TestCase):
    queue = OURS


class PriorityQueueOnThreads(threads.PriorityQueueTest, unittest.TestCase):
    queue = OURS


class FailingQueueOnThreads(threads.FailingQueueTest, unittest.TestCase):
    queue = OURS


class SimpleQueueOnThreads(threads.CSimpleQueueTest):
    queue = OURS
