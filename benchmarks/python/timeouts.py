"""timeouts.py pycoronet|gevent|eventlet|asyncio|uvloop|trio SECONDS: what bounding a block costs.

Prints the processor time, in nanoseconds, of entering and leaving a `with` block that may take
a minute and is over at once: how nearly all time-outs end.
"""

import sys
from time import process_time_ns

from counts import choose_counts, parse_seconds

WARM_UP = 5_000
SECONDS = parse_seconds()
MINUTE = 60


def time_blocks(timeout):
    for count in choose_counts(WARM_UP, SECONDS):
        start_ns = process_time_ns()
        for _ in range(count):
            with timeout(MINUTE):
                pass
    return (process_time_ns() - start_ns) / count


def run_pycoronet():
    from pycoronet import spawn, timeout

    return spawn(time_blocks, timeout).get()


def run_gevent():
    from gevent import Timeout, spawn

    return spawn(time_blocks, Timeout).get()


def run_eventlet():
    import warnings

    warnings.simplefilter("ignore")  # its notice of retirement
    from eventlet import Timeout, spawn

    return spawn(time_blocks, Timeout).wait()


async def time_blocks_async():
    try:
        from asyncio import timeout
    except ImportError:  # before Python 3.11
        from async_timeout import timeout

    for count in choose_counts(WARM_UP, SECONDS):
        start_ns = process_time_ns()
        for _ in range(count):
            async with timeout(MINUTE):
                pass
    return (process_time_ns() - start_ns) / count


def run_asyncio():
    import asyncio

    return asyncio.run(time_blocks_async())


def run_uvloop():
    import uvloop

    return uvloop.run(time_blocks_async())


def run_trio():
    import trio

    async def time_scopes():
        return time_blocks(trio.move_on_after)

    return trio.run(time_scopes)


if __name__ == "__main__":
    print(globals()["run_" + sys.argv[1]]())
