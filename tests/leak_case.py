"""What the leak tests share: a case is run many times, and nothing may be more after it."""

from __future__ import annotations

import ctypes
import gc
import os
import socket
import sys
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from connections import MOMENT, open_descriptors

import pycoronet
from pycoronet import Task, sk_conn, sleep

# Fewer where each takes long; 0 where somebody else looks, as valgrind does: nothing is measured.
ROUNDS = int(os.environ.get("LEAK_ROUNDS", "100"))
UNMEASURED_ROUNDS = 2
WARM_UP = ROUNDS // 2

# What may be found without being a leak (a free list, a cache of the interpreter) does not
# grow with the rounds; one lost block a round would.
SPARE_BLOCKS = ROUNDS // 2
SPARE_BYTES = 30 * ROUNDS
SPARE_REFERENCES = 0.25  # a round; caches by time (a date in a header) take a few in hundreds
OWN_REFERENCES = 3  # what measuring takes by itself, in any number of rounds
SPARE_HEAP_BYTES = 16 * ROUNDS  # the smallest block of malloc's is larger

Case = Callable[[], None]


@contextmanager
def pair(kind: str = "unix") -> Iterator[tuple[Any, socket.socket]]:
    """Give a connection and the socket at its other end, both gone after it."""
    if kind == "tcp":
        with socket.create_server(("127.0.0.1", 0)) as server:
            left = socket.create_connection(server.getsockname())
            right, _ = server.accept()
    else:
        left, right = socket.socketpair()
    right.settimeout(10)
    conn = sk_conn(left)
    try:
        yield conn, right
    finally:
        conn.abort()
        right.close()


def count_objects(types: Sequence[type] = (sk_conn, Task)) -> dict[str, int]:
    """Return how many objects of just these types the collector knows."""
    gc.collect()
    counts = {kind.__name__: 0 for kind in types}
    for item in gc.get_objects():
        if type(item) in types:
            counts[type(item).__name__] += 1
    return counts


def run_rounds(case: Case, count: int) -> None:
    for _ in range(count):
        case()
    pycoronet.get_hub().run()


def least_growth(case: Case, measure: Callable[[], int], rounds: int = ROUNDS) -> int:
    """Return by how much [measure] grows in rounds, where it grows least: a leak grows always."""
    growths: list[int] = []
    while len(growths) < 5 and min(growths, default=1) > 0:
        gc.collect()
        before = measure()
        run_rounds(case, rounds)
        gc.collect()
        growths.append(measure() - before)
    return min(growths)


class MallocCounts(ctypes.Structure):
    """What mallinfo2() gives."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            "arena",
            "ordblks",
            "smblks",
            "hblks",
            "hblkhd",
            "usmblks",
            "fsmblks",
            "uordblks",
            "fordblks",
            "keepcost",
        )
    ]


def heap_bytes() -> int:
    """Return how much is allocated with malloc, where the C library can tell."""
    try:
        tell = ctypes.CDLL(None).mallinfo2
    except (AttributeError, OSError):
        return 0
    tell.restype = MallocCounts
    counts = tell()
    return int(counts.uordblks) + int(counts.hblkhd)


def traced_growth(case: Case, rounds: int) -> int:
    """Return the least growth of what Python's allocators gave out."""
    tracemalloc.start()
    try:
        return least_growth(case, lambda: tracemalloc.get_traced_memory()[0], rounds)
    finally:
        tracemalloc.stop()


def live_counts() -> dict[str, int]:
    """Return how many connections, timers ... there are, which a debug build of ours counts."""
    count: Callable[[], dict[str, int]] = getattr(pycoronet._coronet, "live_counts", dict)
    return count()


def check_references(case: Case, rounds: int) -> None:
    """See that no round leaves a reference, on a debug build of CPython, which counts all."""
    if hasattr(sys, "gettotalrefcount"):
        spare = max(OWN_REFERENCES, int(SPARE_REFERENCES * rounds))
        assert least_growth(case, sys.gettotalrefcount, rounds) <= spare


def check_few_rounds(case: Case) -> None:
    """Do the least of check_rounds(): references, blocks and counts of live things."""
    if ROUNDS == 0:
        run_rounds(case, UNMEASURED_ROUNDS)
        return
    rounds = ROUNDS // 10
    run_rounds(case, WARM_UP // 2)
    gc.collect()
    alive = live_counts()
    if least_growth(case, sys.getallocatedblocks, rounds) >= rounds // 2:
        # The interpreter keeps some dozens of empty objects of its own types.
        assert least_growth(case, sys.getallocatedblocks, ROUNDS) < SPARE_BLOCKS
    check_references(case, rounds)
    assert live_counts() == alive


def check_rounds(
    case: Case,
    *,
    types: Sequence[type] = (sk_conn, Task),
    counted: Sequence[Any] = (),
    by_malloc: bool = False,
    rounds: int = ROUNDS,
) -> None:
    """Run the case again and again: descriptors, objects, references and memory stay as many.

    types: of what objects there must not be more. counted: things whose references, like those
    of the types, must not be more. On debug builds no reference and nothing alive may be more
    at all. by_malloc: the memory that counts is malloc's, not Python's.
    rounds: fewer for a case that takes long.
    """
    if ROUNDS == 0:
        run_rounds(case, UNMEASURED_ROUNDS)
        return
    sleep(MOMENT)  # what the hub itself opens is open
    run_rounds(case, WARM_UP)
    counted = (*types, *counted)
    descriptors, objects = open_descriptors(), count_objects(types)
    references = [sys.getrefcount(value) for value in counted]
    alive = live_counts()
    more_blocks = least_growth(case, sys.getallocatedblocks, rounds)
    if by_malloc:
        more_memory = least_growth(case, heap_bytes, rounds)
    else:
        more_memory = traced_growth(case, rounds)
    check_references(case, rounds)
    assert live_counts() == alive
    assert open_descriptors() == descriptors
    assert count_objects(types) == objects
    assert more_blocks * ROUNDS < SPARE_BLOCKS * rounds
    assert more_memory * ROUNDS < (SPARE_HEAP_BYTES if by_malloc else SPARE_BYTES) * rounds
    for value, count in zip(counted, references, strict=True):
        assert abs(sys.getrefcount(value) - count) < 10
