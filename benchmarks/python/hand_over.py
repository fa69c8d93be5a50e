"""hand_over.py pycoronet|gevent|eventlet|asyncio|uvloop|trio SECONDS: what a queue costs.

Two coroutines and two queues: each puts into one, which wakes the other, and waits at its own.
Prints the processor time, in nanoseconds, of one item from put() to the end of its get().
"""

import sys
from time import process_time_ns

from counts import choose_counts, parse_seconds

WARM_UP = 5_000
SECONDS = parse_seconds()


def answer(requests, replies):
    while (item := requests.get()) is not None:
        replies.put(item)


def ask(requests, replies):
    for count in choose_counts(WARM_UP, SECONDS):
        start_ns = process_time_ns()
        for number in range(count):
            requests.put(number)
            assert replies.get() == number
    result = (process_time_ns() - start_ns) / (2 * count)
    requests.put(None)
    return result


def run_pycoronet():
    from pycoronet import Queue, spawn

    queues = Queue(), Queue()
    spawn(answer, *queues)
    return spawn(ask, *queues).get()


def run_gevent():
    from gevent import spawn
    from gevent.queue import Queue

    queues = Queue(), Queue()
    spawn(answer, *queues)
    return spawn(ask, *queues).get()


def run_eventlet():
    import warnings

    warnings.simplefilter("ignore")  # its notice of retirement
    from eventlet import spawn
    from eventlet.queue import Queue

    queues = Queue(), Queue()
    spawn(answer, *queues)
    return spawn(ask, *queues).wait()


async def answer_async(requests, replies):
    while (item := await requests.get()) is not None:
        await replies.put(item)


async def ask_async(requests, replies):
    for count in choose_counts(WARM_UP, SECONDS):
        start_ns = process_time_ns()
        for number in range(count):
            await requests.put(number)
            assert await replies.get() == number
    result = (process_time_ns() - start_ns) / (2 * count)
    await requests.put(None)
    return result


async def time_tasks():
    import asyncio

    queues = asyncio.Queue(), asyncio.Queue()
    answering = asyncio.create_task(answer_async(*queues))
    result = await ask_async(*queues)
    await answering
    return result


def run_asyncio():
    import asyncio

    return asyncio.run(time_tasks())


def run_uvloop():
    import uvloop

    return uvloop.run(time_tasks())


def run_trio():
    import math

    import trio

    async def answer(requests, replies):
        async for item in requests:
            await replies.send(item)

    async def time_channels():
        send_request, requests = trio.open_memory_channel(math.inf)
        send_reply, replies = trio.open_memory_channel(math.inf)
        async with trio.open_nursery() as nursery, send_request:
            nursery.start_soon(answer, requests, send_reply)
            for count in choose_counts(WARM_UP, SECONDS):
                start_ns = process_time_ns()
                for number in range(count):
                    await send_request.send(number)
                    assert await replies.receive() == number
            return (process_time_ns() - start_ns) / (2 * count)

    return trio.run(time_channels)


if __name__ == "__main__":
    print(globals()["run_" + sys.argv[1]]())
