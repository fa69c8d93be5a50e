"""What the tests of pools share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from pycoronet import Pool, shield, sleep

RESULTS: dict[str, Callable[..., Any]] = {
    "map": Pool.map,
    "imap": lambda *arguments: list(Pool.imap(*arguments)),
    "imap_unordered": lambda *arguments: sorted(Pool.imap_unordered(*arguments)),
}
all_results = pytest.mark.parametrize("results", RESULTS.values(), ids=RESULTS)
iterators = pytest.mark.parametrize("name", ["imap", "imap_unordered"])


class Load:
    """A function to be called in a pool: takes so long, and counts how many do at once."""

    def __init__(self) -> None:
        self.now = self.most = self.begun = self.ended = 0

    def __call__(self, seconds: float, *rest: Any) -> Any:
        self.begun += 1
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            sleep(seconds)
            self.ended += 1
        finally:
            self.now -= 1
        return (seconds, *rest) if rest else seconds


def fail(error: BaseException, seconds: float = 0) -> None:
    sleep(seconds)
    raise error


def slow_to_end(log: list[str], error: BaseException | None = None) -> None:
    try:
        sleep(60)
    finally:
        with shield():
            sleep(1)
        log.append("ended")
        if error is not None:
            raise error
