"""Virtual time: a clock that stands still while something can go on, and jumps otherwise."""

from collections.abc import Iterator
from contextlib import contextmanager

from .._coronet import Hub, _advance_time, get_hub
from ._leftovers import look_before_closing


@contextmanager
def virtual_time() -> Iterator[Hub]:
    """Give this thread a hub whose clock moves only when nothing else can go on.

    A context manager that gives the hub. In its block `sleep(3600)` is over as soon as there
    is nothing else to do: when no task can run and no descriptor that somebody waits for is
    ready, the clock jumps to the next deadline. Without any deadline and with nothing that
    could wake anybody there is a DeadlockError, as in real time.

    Descriptors are what they are otherwise; but what comes from another process or thread,
    a `to_thread()` included, comes after any amount of virtual time, for the clock waits for
    nobody. The clocks of the time module go on as ever; `Hub.time` is the virtual one.

    The hub that the thread had before is closed, and the new one is closed in the end. May switch:
    closing a hub ends its tasks.

    Source: pycoronet's own.
    """
    get_hub().close()
    hub = get_hub(backend="fake")
    try:
        yield hub
    finally:
        look_before_closing(hub)
        hub.close()


def advance(seconds: float) -> None:
    """Move the virtual clock on, as if the code that runs now had taken so long.

    seconds: 0 or more. What has become due meanwhile happens when the caller next waits. Never
    switches. Raises ValueError for a number below 0, and outside `virtual_time()`.

    Source: pycoronet's own.
    """
    _advance_time(seconds)
