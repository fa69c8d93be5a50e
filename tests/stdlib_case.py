"""The standard library's own tests of locks and queues, for other classes and for tasks.

`on_threads()` gives a test module as it is; `on_tasks()` a copy of it in which threads are tasks
and time is the hub's.
"""

from __future__ import annotations

import importlib.util
import sys
import threading
import time
import types
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from types import ModuleType
from typing import Any
from unittest import mock

import pytest

import pycoronet
from pycoronet.testing import virtual_time

REASON = "the standard library's test package is not installed"


class TaskThread:
    """Has what the tests use of threading.Thread, and runs as a task."""

    def __init__(
        self, target: Callable[..., object] | None = None, args: tuple[Any, ...] = ()
    ) -> None:
        self._target = target
        self._args = args

    def start(self) -> None:
        self._task = pycoronet.spawn(self.run)

    def run(self) -> None:
        assert self._target is not None
        self._target(*self._args)

    def join(self, timeout: float | None = None) -> None:
        try:
            self._task.join(timeout)
        except TimeoutError:
            pass

    def is_alive(self) -> bool:
        return not self._task.done


def sleeping_retry(timeout: float) -> Iterator[None]:
    """Stand in for test.support's: look again and again."""
    for _ in range(int(timeout * 1000)):
        yield
        pycoronet.sleep(0.001)
    raise AssertionError("timed out")


def task_threading() -> ModuleType:
    """Return a module like threading, whose threads and locks are ours."""
    module = ModuleType("threading")
    vars(module).update(vars(threading))
    module.Thread = TaskThread  # type: ignore[attr-defined]
    module.get_ident = lambda: id(pycoronet.current())  # type: ignore[attr-defined]
    for name in ("Lock", "RLock", "Condition", "Event", "Semaphore", "Barrier"):
        setattr(module, name, getattr(pycoronet, name))
    return module


def on_threads(name: str) -> ModuleType:
    """Return a module of the package `test`; skip who asks where there is none."""
    module: ModuleType = pytest.importorskip(f"test.{name}", reason=REASON)
    return module


def on_tasks(name: str) -> ModuleType:
    """Return a copy of it that starts tasks instead of threads."""
    origin = on_threads(name)
    assert origin.__file__ is not None
    spec = importlib.util.spec_from_file_location(f"{name}_on_tasks", origin.__file__)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with mock.patch.dict(sys.modules, {"threading": task_threading()}):
        spec.loader.exec_module(module)
    copied = vars(module)
    copied["start_new_thread"] = lambda function, arguments: pycoronet.spawn(function, *arguments)
    copied["time"] = types.SimpleNamespace(
        **{
            **vars(time),
            "sleep": pycoronet.sleep,
            "monotonic": lambda: pycoronet.get_hub().time,
        }
    )
    if "support" in copied:
        support = {**vars(copied["support"]), "sleeping_retry": sleeping_retry}
        copied["support"] = types.SimpleNamespace(**support)
    return module


class OnTasks:
    """For a TestCase: runs each test in virtual time."""

    def setUp(self) -> None:
        self.hub_of_test = ExitStack()
        self.hub_of_test.enter_context(virtual_time())
        super().setUp()  # type: ignore[misc]

    def tearDown(self) -> None:
        super().tearDown()  # type: ignore[misc]
        self.hub_of_test.close()
