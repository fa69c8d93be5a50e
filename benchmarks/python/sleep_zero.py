"""sleep_zero.py pycoronet|gevent|eventlet|asyncio|uvloop TASKS: what giving way costs.

So many coroutines do nothing but let the others go first. Prints the processor time, in
nanoseconds, of one sleep(0).
"""

import sys
from time import process_time_ns

TASKS = int(sys.argv[2])
SLEEPS = 200_000 // TASKS
WARM_UP = 10_000 // TASKS


def time_sleeps(sleep, spawn, join):
    """Return nanoseconds a sleep; `join(spawn(function, argument))` waits for the end."""

    def give_way(count):
        for _ in range(count):
            sleep(0)

    for count in (WARM_UP, SLEEPS):
        start_ns = process_time_ns()
        others = [spawn(give_way, count) for _ in range(TASKS - 1)]
        give_way(count)
        for other in others:
            join(other)
    return (process_time_ns() - start_ns) / (TASKS * SLEEPS)


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

    for count in (WARM_UP, SLEEPS):
        start_ns = process_time_ns()
        others = [asyncio.create_task(give_way(count)) for _ in range(TASKS - 1)]
        await give_way(count)
        for other in others:
            await other
    return (process_time_ns() - start_ns) / (TASKS * SLEEPS)


def run_asyncio():
    import asyncio

    return asyncio.run(time_sleeps_async())


def run_uvloop():
    import uvloop

    return uvloop.run(time_sleeps_async())


if __name__ == "__main__":
    print(globals()["run_" + sys.argv[1]]())
