"""sleep_zero.py pycoronet|gevent|eventlet|asyncio|uvloop|trio SECONDS TASKS: what giving way costs.

So many coroutines do nothing but let the others go first. Prints the processor time, in
nanoseconds, of one sleep(0).
"""

import sys
from time import process_time_ns

from counts import choose_counts, parse_seconds
from libraries import print_result

TASKS = int(sys.argv[3])
SECONDS = parse_seconds()
WARM_UP = 10_000 // TASKS


def time_sleeps(library):
    sleep = library.sleep

    def give_way(count):
        for _ in range(count):
            sleep(0)

    for count in choose_counts(WARM_UP, SECONDS):
        start_ns = process_time_ns()
        others = [library.spawn(give_way, count) for _ in range(TASKS - 1)]
        give_way(count)
        for other in others:
            library.join(other)
    return (process_time_ns() - start_ns) / (TASKS * count)


async def time_sleeps_async():
    from asyncio import create_task, sleep

    async def give_way(count):
        for _ in range(count):
            await sleep(0)

    for count in choose_counts(WARM_UP, SECONDS):
        start_ns = process_time_ns()
        others = [create_task(give_way(count)) for _ in range(TASKS - 1)]
        await give_way(count)
        for other in others:
            await other
    return (process_time_ns() - start_ns) / (TASKS * count)


async def time_sleeps_trio():
    from trio import open_nursery, sleep

    async def give_way(count):
        for _ in range(count):
            await sleep(0)

    for count in choose_counts(WARM_UP, SECONDS):
        start_ns = process_time_ns()
        async with open_nursery() as nursery:
            for _ in range(TASKS):
                nursery.start_soon(give_way, count)
    return (process_time_ns() - start_ns) / (TASKS * count)


if __name__ == "__main__":
    print_result(time_sleeps, time_sleeps_async, time_sleeps_trio)
