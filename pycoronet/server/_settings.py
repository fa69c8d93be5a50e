"""Settings: attributes that are checked when they are set, and fixed once a server listens."""

import math
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast, overload

from ._addresses import parse_addresses

if TYPE_CHECKING:
    from ._configuration import Configuration

__all__ = [
    "Setting",
    "anything",
    "check_wait",
    "one_of",
    "optional",
    "path",
    "seconds",
    "some_address",
    "whole",
]

Value = TypeVar("Value")

# Checks a value by the name of its setting, and returns it as it is to be kept.
Check = Callable[[str, Any], Value]


class Setting(Generic[Value]):
    """An attribute of a server, kept under its own name in the instance's dictionary."""

    def __init__(self, check: Check[Value]) -> None:
        self._check = check
        self._name = ""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, server: None, owner: type) -> "Setting[Value]": ...
    @overload
    def __get__(self, server: "Configuration", owner: type) -> Value: ...
    def __get__(self, server: "Configuration | None", owner: type) -> "Setting[Value] | Value":
        if server is None:
            return self
        value: Value = server.__dict__[self._name]
        return value

    def __set__(self, server: "Configuration", value: Value) -> None:
        if server.is_listening:
            raise RuntimeError(f"{self._name} has to be set before listen()")
        vars(server)[self._name] = self._check(self._name, value)


def whole(minimum: int) -> Check[int]:
    """Return a check for whole numbers from minimum on."""

    def check(name: str, value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError(f"{name} must be a whole number, not {value!r}")
        if value < minimum:
            raise ValueError(f"{name} must be at least {minimum}, not {value}")
        return value

    return check


def seconds(name: str, value: Any) -> float:
    """Check a time in seconds, which must be more than none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be a number of seconds, not {value!r}")
    if not 0 < value < math.inf:
        raise ValueError(f"{name} must be more than 0 seconds, not {value}")
    return float(value)


def check_wait(timeout: Any) -> None:
    """Check how long somebody is ready to wait, in seconds; None: as long as it takes."""
    if timeout is not None:
        if isinstance(timeout, bool) or not isinstance(timeout, int | float):
            raise TypeError(f"timeout must be a number of seconds or None, not {timeout!r}")
        if not timeout >= 0:
            raise ValueError(f"timeout must be at least 0 seconds, not {timeout}")


def anything(name: str, value: Any) -> Any:
    """Let each value pass; it is looked at by listen()."""
    return value


def some_address(name: str, value: Any) -> Any:
    """Check what can be listened on, or a list of such."""
    parse_addresses(value)
    return value


def path(name: str, value: Any) -> str:
    """Check a path, which may be a Path."""
    try:
        return os.fsdecode(value)
    except TypeError:
        raise TypeError(f"{name} must be a path, not {value!r}") from None


def optional(check: Check[Value]) -> Check[Value | None]:
    """Return a check that lets None pass, and leaves the rest to another one."""
    return lambda name, value: None if value is None else check(name, value)


def one_of(*words: str) -> Check[str]:
    """Return a check for one of some words."""

    def check(name: str, value: Any) -> str:
        if value not in words:
            known = ", ".join(map(repr, words))
            raise ValueError(f"{name} must be one of {known}, not {value!r}")
        return cast(str, value)

    return check
