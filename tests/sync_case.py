"""What the tests of locks and queues share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pycoronet import get_hub, sleep


def hold(lock: Any, log: list[Any], name: object, seconds: float = 1) -> None:
    """Have a lock for a while, and note when it was got."""
    with lock:
        log.append(name)
        sleep(seconds)


def in_callback(function: Callable[[], Any]) -> Any:
    """Call a function in a hub callback; return what it returns, or raise what it raises."""
    outcome: list[Any] = []

    def call() -> None:
        try:
            outcome.append((function(), None))
        except Exception as error:
            outcome.append((None, error))

    get_hub().call_soon(call)
    sleep(0)
    sleep(0)
    value, error = outcome[0]
    if error is not None:
        raise error
    return value
