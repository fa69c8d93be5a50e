"""timeouts.py pycoronet|gevent|eventlet|asyncio|uvloop|trio SECONDS: what bounding a block costs.

Prints the processor time, in nanoseconds, of entering and leaving a `with` block that may take
a minute and is over at once: how nearly all time-outs end.
"""

from time import process_time_ns

from counts import choose_counts, parse_seconds
from libraries import print_result

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


def time_timeouts(library):
    return time_blocks(library.timeout)


async def time_scopes():
    from trio import move_on_after

    return time_blocks(move_on_after)


if __name__ == "__main__":
    print_result(time_timeouts, time_blocks_async, time_scopes)
