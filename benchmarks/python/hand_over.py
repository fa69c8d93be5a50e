"""hand_over.py pycoronet|gevent|eventlet|asyncio|uvloop|trio SECONDS: what a queue costs.

Two coroutines and two queues: each puts into one, which wakes the other, and waits at its own.
Prints the processor time, in nanoseconds, of one item from put() to the end of its get().
"""

import math
from time import process_time_ns

from counts import choose_counts, parse_seconds
from libraries import print_result

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
    from asyncio import Queue, create_task

    queues = Queue(), Queue()
    answering = create_task(answer_async(*queues))
    result = await ask_async(*queues)
    await answering
    return result


def time_coroutines(library):
    queues = library.Queue(), library.Queue()
    library.spawn(answer, *queues)
    return ask(*queues)


async def answer_trio(requests, replies):
    async for item in requests:
        await replies.send(item)


async def time_channels():
    from trio import open_memory_channel, open_nursery

    send_request, requests = open_memory_channel(math.inf)
    send_reply, replies = open_memory_channel(math.inf)
    async with open_nursery() as nursery, send_request:
        nursery.start_soon(answer_trio, requests, send_reply)
        for count in choose_counts(WARM_UP, SECONDS):
            start_ns = process_time_ns()
            for number in range(count):
                await send_request.send(number)
                assert await replies.receive() == number
        return (process_time_ns() - start_ns) / (2 * count)


if __name__ == "__main__":
    print_result(time_coroutines, time_tasks, time_channels)
