"""spawn.py pycoronet|gevent|eventlet|asyncio|uvloop|trio SECONDS: what starting and joining costs.

Prints the processor time, in nanoseconds, of starting a coroutine that does nothing and
waiting for its end, measured from inside another coroutine.
"""

from time import process_time_ns

from counts import choose_counts, parse_seconds
from libraries import print_result

WARM_UP = 2_000
SECONDS = parse_seconds()


def nothing():
    pass


async def nothing_async():
    pass


def time_spawns(library):
    spawn, join = library.spawn, library.join
    for count in choose_counts(WARM_UP, SECONDS):
        start_ns = process_time_ns()
        for _ in range(count):
            join(spawn(nothing))
    return (process_time_ns() - start_ns) / count


async def time_tasks():
    from asyncio import get_running_loop

    loop = get_running_loop()
    for count in choose_counts(WARM_UP, SECONDS):
        start_ns = process_time_ns()
        for _ in range(count):
            await loop.create_task(nothing_async())
    return (process_time_ns() - start_ns) / count


async def time_nurseries():
    from trio import open_nursery

    for count in choose_counts(WARM_UP, SECONDS):
        start_ns = process_time_ns()
        for _ in range(count):
            async with open_nursery() as nursery:
                nursery.start_soon(nothing_async)
    return (process_time_ns() - start_ns) / count


if __name__ == "__main__":
    print_result(time_spawns, time_tasks, time_nurseries)
