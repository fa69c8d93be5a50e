"""spawn.py pycoronet|gevent|eventlet|asyncio|uvloop|trio SECONDS: what starting and joining costs.

Prints the processor time, in nanoseconds, of starting a coroutine that does nothing and
waiting for its end, measured from inside another coroutine.
"""

import sys
from time import process_time_ns

from counts import choose_counts, parse_seconds

WARM_UP = 2_000
SECONDS = parse_seconds()


def nothing():
    pass


async def nothing_async():
    pass


def time_spawns(spawn_and_join):
    for count in choose_counts(WARM_UP, SECONDS):
        start_ns = process_time_ns()
        for _ in range(count):
            spawn_and_join()
    return (process_time_ns() - start_ns) / count


def run_pycoronet():
    from pycoronet import spawn

    return spawn(time_spawns, lambda: spawn(nothing).join()).get()


def run_gevent():
    from gevent import spawn

    return spawn(time_spawns, lambda: spawn(nothing).join()).get()


def run_eventlet():
    import warnings

    warnings.simplefilter("ignore")  # its notice of retirement
    from eventlet import spawn

    return spawn(time_spawns, lambda: spawn(nothing).wait()).wait()


async def time_tasks():
    import asyncio

    loop = asyncio.get_running_loop()
    for count in choose_counts(WARM_UP, SECONDS):
        start_ns = process_time_ns()
        for _ in range(count):
            await loop.create_task(nothing_async())
    return (process_time_ns() - start_ns) / count


def run_asyncio():
    import asyncio

    return asyncio.run(time_tasks())


def run_uvloop():
    import uvloop

    return uvloop.run(time_tasks())


def run_trio():
    import trio

    async def time_nurseries():
        for count in choose_counts(WARM_UP, SECONDS):
            start_ns = process_time_ns()
            for _ in range(count):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(nothing_async)
        return (process_time_ns() - start_ns) / count

    return trio.run(time_nurseries)


if __name__ == "__main__":
    print(globals()["run_" + sys.argv[1]]())
