"""sleepers.py pycoronet|gevent|eventlet|asyncio|uvloop|trio COUNT: the memory of sleeping tasks.

Prints how many bytes of resident memory each of so many coroutines takes that sleep.
"""

import pathlib
import re
import sys

COUNT = int(sys.argv[2])
HOUR = 3600


def read_resident_bytes():
    status = pathlib.Path("/proc/self/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) * 1024


def weigh(sleep, spawn):
    """Return bytes a sleeper; the first one brings in what all of them use."""
    begun = []

    def sleep_long():
        begun.append(None)
        sleep(HOUR)

    def spawn_sleepers(count):
        sleepers = [spawn(sleep_long) for _ in range(count)]
        while len(begun) < count:
            sleep(0.01)
        begun.clear()
        return sleepers

    sleepers = spawn_sleepers(1)
    before = read_resident_bytes()
    sleepers += spawn_sleepers(COUNT)
    return (read_resident_bytes() - before) / COUNT


def run_pycoronet():
    from pycoronet import sleep, spawn

    return spawn(weigh, sleep, spawn).get()


def run_gevent():
    from gevent import sleep, spawn

    return spawn(weigh, sleep, spawn).get()


def run_eventlet():
    import warnings

    warnings.simplefilter("ignore")  # its notice of retirement
    from eventlet import sleep, spawn

    return spawn(weigh, sleep, spawn).wait()


async def weigh_async():
    from asyncio import create_task, sleep

    begun = []

    async def sleep_long():
        begun.append(None)
        await sleep(HOUR)

    async def spawn_sleepers(count):
        sleepers = [create_task(sleep_long()) for _ in range(count)]
        while len(begun) < count:
            await sleep(0.01)
        begun.clear()
        return sleepers

    sleepers = await spawn_sleepers(1)
    before = read_resident_bytes()
    sleepers += await spawn_sleepers(COUNT)
    return (read_resident_bytes() - before) / COUNT


def run_asyncio():
    import asyncio

    return asyncio.run(weigh_async())


def run_uvloop():
    import uvloop

    return uvloop.run(weigh_async())


def run_trio():
    import trio

    begun = []

    async def sleep_long():
        begun.append(None)
        await trio.sleep(HOUR)

    async def start_sleepers(nursery, count):
        for _ in range(count):
            nursery.start_soon(sleep_long)
        while len(begun) < count:
            await trio.sleep(0.01)
        begun.clear()

    async def weigh_nursery():
        async with trio.open_nursery() as nursery:
            await start_sleepers(nursery, 1)
            before = read_resident_bytes()
            await start_sleepers(nursery, COUNT)
            grown = read_resident_bytes() - before
            nursery.cancel_scope.cancel()
        return grown / COUNT

    return trio.run(weigh_nursery)


if __name__ == "__main__":
    print(globals()["run_" + sys.argv[1]]())
