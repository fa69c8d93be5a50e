"""sleep_zero.py pycoronet|gevent|eventlet|asyncio|uvloop|trio SECONDS TASKS: what giving way costs.

So many coroutines do nothing but let the others go first. Prints the processor time, in
nanoseconds, of one sleep(0).
"""

import sys
from time import process_time_ns

from counts import choose_counts, parse_seconds

TASKS = int(sys.argv[3])
SECONDS = parse_seconds()
WARM_UP = 10_000 // TASKS


def time_sleeps(sleep, spawn, join):
    """Return nanoseconds a sleep; `join(spawn(function, argument))` waits for the end."""

    def give_way(count):
        for _ in range(count):
            sleep(0)

    for count in choose_counts(WARM_UP, SECONDS):
        start_ns = process_time_ns()
        others = [spawn(give_way, count) for _ in range(TASKS - 1)]
        give_way(count)
        for other in others:
            join(other)
    return (process_time_ns() - start_ns) / (TASKS * count)


def run_pycoronet():
    from pycoronet import Task, sleep, spawn

    return spawn(time_sleeps, sleep, spawn, Task.join).get()


def run_gevent():
    from gevent import Greenlet, sleep, spawn

    return spawn(time_sleeps, sleep, spawn, Greenlet.join).get()


def run_eventlet():
    import warnings

    warnings.simplefilter("ignore")  # its notice of retirement
    from eventlet import sleep, spawn
    from eventlet.greenthread import GreenThread

    return spawn(time_sleeps, sleep, spawn, GreenThread.wait).wait()


async def time_sleeps_async():
    import asyncio

    sleep = asyncio.sleep

    async def give_way(count):
        for _ in range(count):
            await sleep(0)

    for count in choose_counts(WARM_UP, SECONDS):
        start_ns = process_time_ns()
        others = [asyncio.create_task(give_way(count)) for _ in range(TASKS - 1)]
        await give_way(count)
        for other in others:
            await other
    return (process_time_ns() - start_ns) / (TASKS * count)


def run_asyncio():
    import asyncio

    return asyncio.run(time_sleeps_async())


def run_uvloop():
    import uvloop

    return uvloop.run(time_sleeps_async())


def run_trio():
    import trio

    async def give_way(count):
        for _ in range(count):
            await trio.sleep(0)

    async def time_sleeps():
        for count in choose_counts(WARM_UP, SECONDS):
            start_ns = process_time_ns()
            async with trio.open_nursery() as nursery:
                for _ in range(TASKS):
                    nursery.start_soon(give_way, count)
        return (process_time_ns() - start_ns) / (TASKS * count)

    return trio.run(time_sleeps)


if __name__ == "__main__":
    print(globals()["run_" + sys.argv[1]]())
