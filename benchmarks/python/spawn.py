"""spawn.py pycoronet|gevent|eventlet|asyncio|uvloop: what starting and joining costs.

Prints the processor time, in nanoseconds, of starting a coroutine that does nothing and
waiting for its end, measured from inside another coroutine.
"""

import sys
from time import process_time_ns

COUNT = 50_000
WARM_UP = 5_000


def nothing():
    pass


async def nothing_async():
    pass


def time_spawns(spawn_and_join):
    for _ in range(WARM_UP):
        spawn_and_join()
    start_ns = process_time_ns()
    for _ in range(COUNT):
        spawn_and_join()
    return (process_time_ns() - start_ns) / COUNT


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
    for _ in range(WARM_UP):
        await loop.create_task(nothing_async())
    start_ns = process_time_ns()
    for _ in range(COUNT):
        await loop.create_task(nothing_async())
    return (process_time_ns() - start_ns) / COUNT


def run_asyncio():
    import asyncio

    return asyncio.run(time_tasks())


def run_uvloop():
    import uvloop

    return uvloop.run(time_tasks())


if __name__ == "__main__":
    print(globals()["run_" + sys.argv[1]]())
