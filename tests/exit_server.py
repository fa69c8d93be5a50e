"""Runs the programs of test_exits.py, each in a process forked from this one.

That process is a fresh one, but for the imports, which would take most of the time. Reads from
standard input one line of JSON a program: [name, source]. Each runs as __main__, and ends as the
interpreter does. Its output goes into the files <number>.out and <number>.err of the folder
argv[1]; argv[2] is how many run at once, argv[3] how many seconds one may take. Prints a line a
program, when it has ended: its number and its status.
"""

from __future__ import annotations

import atexit as atexit
import faulthandler as faulthandler
import gc as gc
import json
import os
import signal
import socket as socket
import sys
import threading as threading
import warnings
import weakref as weakref
from collections.abc import Callable

import greenlet as greenlet

import pycoronet
from pycoronet import *  # noqa: F403


def say(*words: object) -> None:
    """Write a line at once."""
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


def pair(kind: type = pycoronet.sk_conn) -> tuple[object, ...]:
    """Return two connections, connected to one another."""
    return tuple(map(kind, socket.socketpair()))


def last(function: Callable[[], object]) -> None:
    """Call a function when the hub has been closed at exit."""
    atexit.unregister(pycoronet._close_at_exit)
    atexit.register(function)
    atexit.register(pycoronet._close_at_exit)


def become_program(number: int, folder: str, seconds: int) -> None:
    """Turn this forked process into one with an output of its own and a bounded life."""
    signal.alarm(seconds)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    for fd, name in ((1, "out"), (2, "err")):
        file = os.open(f"{folder}/{number}.{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(file, fd)
        os.close(file)


def next_program(folder: str, limit: int, seconds: int) -> tuple[str, str]:
    """Fork one process after the other; return in each of them, with a name and a source."""
    running: dict[int, int] = {}

    def collect() -> None:
        pid, status = os.waitpid(-1, 0)
        print(running.pop(pid), os.waitstatus_to_exitcode(status), flush=True)

    for number, line in enumerate(sys.stdin):
        if len(running) == limit:
            collect()
        pid = os.fork()
        if pid == 0:
            become_program(number, folder, seconds)
            name, source = json.loads(line)
            return name, source
        running[pid] = number
    while running:
        collect()
    os._exit(0)


# A connection that is left open is what some of these programs are about.
warnings.simplefilter("ignore", ResourceWarning)
# From 3.12 on Python warns of a fork beside threads, and that too.
warnings.filterwarnings("ignore", "This process .* is multi-threaded")
__name, __source = next_program(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
exec(compile(__source, __name, "exec"), globals())
