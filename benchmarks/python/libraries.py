"""The libraries that a script compares, `SCRIPT LIBRARY SECONDS ...`, and how each is started.

A script has three programs that measure the same: one for all whose coroutines are greenlets,
which takes the library's names from the argument; one for asyncio and uvloop; one for trio.
"""

import sys
from types import SimpleNamespace


def run_pycoronet(program):
    from pycoronet import Queue, Task, sleep, spawn, timeout

    names = SimpleNamespace(spawn=spawn, join=Task.join, sleep=sleep, timeout=timeout, Queue=Queue)
    return spawn(program, names).get()


def run_gevent(program):
    from gevent import Greenlet, Timeout, sleep, spawn
    from gevent.queue import Queue

    names = SimpleNamespace(
        spawn=spawn, join=Greenlet.join, sleep=sleep, timeout=Timeout, Queue=Queue
    )
    return spawn(program, names).get()


def run_eventlet(program):
    import warnings

    warnings.simplefilter("ignore")  # its notice of retirement
    from eventlet import Timeout, sleep, spawn
    from eventlet.greenthread import GreenThread
    from eventlet.queue import Queue

    names = SimpleNamespace(
        spawn=spawn, join=GreenThread.wait, sleep=sleep, timeout=Timeout, Queue=Queue
    )
    return spawn(program, names).wait()


def run_asyncio(program):
    import asyncio

    return asyncio.run(program())


def run_uvloop(program):
    import uvloop

    return uvloop.run(program())


def run_trio(program):
    import trio

    return trio.run(program)


def print_result(with_greenlets, with_asyncio, with_trio):
    """Run one of the programs on the library that the command line names; print its result."""
    run, program = {
        "pycoronet": (run_pycoronet, with_greenlets),
        "gevent": (run_gevent, with_greenlets),
        "eventlet": (run_eventlet, with_greenlets),
        "asyncio": (run_asyncio, with_asyncio),
        "uvloop": (run_uvloop, with_asyncio),
        "trio": (run_trio, with_trio),
    }[sys.argv[1]]
    print(run(program))
