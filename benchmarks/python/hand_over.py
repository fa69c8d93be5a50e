"""hand_over.py pycoronet|gevent|eventlet|asyncio|uvloop: what handing an item over costs.

Two coroutines and two queues: each puts into one, which wakes the other, and waits at its own.
Prints the processor time, in nanoseconds, of one item from put() to the end of its get().
"""

import sys
from time import process_time_ns

COUNT = 50_000
WARM_UP = 5_000


def answer(requests, replies):
    for _ in range(WARM_UP + COUNT):
        replies.put(requests.get())


def ask(requests, replies):
    for count in (WARM_UP, COUNT):
        start_ns = process_time_ns()
        for number in range(count):
            requests.put(number)
            assert replies.get() == number
    return (process_time_ns() - start_ns) / (2 * COUNT)


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
    for _ in range(WARM_UP + COUNT):
        await replies.put(await requests.get())


async def ask_async(requests, replies):
    for count in (WARM_UP, COUNT):
        start_ns = process_time_ns()
        for number in range(count):
            await requests.put(number)
            assert await replies.get() == number
    return (process_time_ns() - start_ns) / (2 * COUNT)


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


if __name__ == "__main__":
    print(globals()["run_" + sys.argv[1]]())
