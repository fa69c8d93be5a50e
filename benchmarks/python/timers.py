"""timers.py pycoronet|gevent|eventlet|asyncio|uvloop|trio SECONDS: what a timer costs that expires.

So many coroutines sleep for a millisecond or two again and again; together they want to be
woken more often than most libraries can. Prints the processor time, in nanoseconds, of one
sleep.
"""

import random
from itertools import cycle, islice
from time import process_time_ns

from counts import choose_counts, parse_seconds
from libraries import print_result

TASKS = 1000
WARM_UP = 5
SHORTEST, LONGEST = 0.0005, 0.0025
SECONDS = parse_seconds()


def make_delays():
    """Return the same scattered delays in each run, for one task after the other to take."""
    numbers = random.Random(1)
    return cycle([numbers.uniform(SHORTEST, LONGEST) for _ in range(997)])


def time_sleeps(library):
    sleep, delays = library.sleep, make_delays()

    def sleep_often(count):
        for delay in islice(delays, count):
            sleep(delay)

    for count in choose_counts(WARM_UP, SECONDS):
        start_ns = process_time_ns()
        tasks = [library.spawn(sleep_often, count) for _ in range(TASKS)]
        for task in tasks:
            library.join(task)
    return (process_time_ns() - start_ns) / (TASKS * count)


async def sleep_often_async(sleep, delays, count):
    for delay in islice(delays, count):
        await sleep(delay)


async def time_sleeps_async():
    from asyncio import create_task, sleep

    delays = make_delays()
    for count in choose_counts(WARM_UP, SECONDS):
        start_ns = process_time_ns()
        tasks = [create_task(sleep_often_async(sleep, delays, count)) for _ in range(TASKS)]
        for task in tasks:
            await task
    return (process_time_ns() - start_ns) / (TASKS * count)


async def time_sleeps_trio():
    from trio import open_nursery, sleep

    delays = make_delays()
    for count in choose_counts(WARM_UP, SECONDS):
        start_ns = process_time_ns()
        async with open_nursery() as nursery:
            for _ in range(TASKS):
                nursery.start_soon(sleep_often_async, sleep, delays, count)
    return (process_time_ns() - start_ns) / (TASKS * count)


if __name__ == "__main__":
    print_result(time_sleeps, time_sleeps_async, time_sleeps_trio)
