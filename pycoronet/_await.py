"""await_(), which imports asyncio when it is first called and not before."""

from collections.abc import Awaitable
from typing import TypeVar

__all__ = ["await_"]

Result = TypeVar("Result")


def await_(awaitable: Awaitable[Result], /) -> Result:
    """Wait for an awaitable of asyncio: as `pycoronet.aio.await_()`, which tells more. Switches.

    Source: pycoronet's own.
    """
    from . import aio

    return aio.await_(awaitable)
