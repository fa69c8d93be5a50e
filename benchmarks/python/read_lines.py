"""read_lines.py pycoronet|pycoronet-iteration|asyncio|gevent BYTES: lines that have come.

Reads numbers of blocks, one a line, from its input. For each it takes so many blocks of
64 KiB, full of lines of so many bytes, one after the other, reads their lines one by one and
prints the processor time of that in nanoseconds a line. A block's first line, whose call brings
the block in, is not counted.
"""

import socket
import sys
from itertools import islice, repeat
from time import process_time_ns

BLOCK_BYTES = 64 * 1024


def make_block(line_bytes):
    """Return a block and how many lines follow its first."""
    count = BLOCK_BYTES // line_bytes
    return (b"x" * (line_bytes - 1) + b"\n") * count, count - 1


def obey_commands(read_block, line_count):
    """Answer each number of blocks; `read_block()` returns its nanoseconds."""
    read_block()
    for command in sys.stdin:
        blocks = int(command)
        total_ns = sum(read_block() for _ in range(blocks))
        print(total_ns / (blocks * line_count), flush=True)


def run_pycoronet(block, count, iterates=False):
    from pycoronet import sk_conn, spawn

    ours, theirs = socket.socketpair()
    connection = sk_conn(ours)
    readln = connection.readln

    def read_block():
        theirs.sendall(block)
        readln()
        start_ns = process_time_ns()
        for _ in repeat(None, count):
            readln()
        return process_time_ns() - start_ns

    def iterate_block():
        theirs.sendall(block)
        readln()
        start_ns = process_time_ns()
        for _ in islice(connection, count):
            pass
        return process_time_ns() - start_ns

    spawn(obey_commands, iterate_block if iterates else read_block, count).join()


def run_gevent(block, count):
    import gevent.socket

    ours, theirs = gevent.socket.socketpair()
    # A buffer that takes the whole block, instead of the usual 8 KiB.
    readline = ours.makefile("rb", BLOCK_BYTES).readline

    def read_block():
        theirs.sendall(block)
        readline()
        start_ns = process_time_ns()
        for _ in repeat(None, count):
            readline()
        return process_time_ns() - start_ns

    obey_commands(read_block, count)


def run_asyncio(block, count):
    import asyncio

    async def read_lines(reader):
        readline = reader.readline
        await readline()
        start_ns = process_time_ns()
        for _ in repeat(None, count):
            await readline()
        return process_time_ns() - start_ns

    def step(coroutine):
        # Never waits: what it reads is there. So no loop has to run, and none is counted.
        try:
            coroutine.send(None)
        except StopIteration as end:
            return end.value
        raise RuntimeError("the reader waits")

    reader = asyncio.StreamReader(loop=asyncio.new_event_loop())

    def read_block():
        reader.feed_data(block)
        return step(read_lines(reader))

    obey_commands(read_block, count)


def main():
    name, line_bytes = sys.argv[1], int(sys.argv[2])
    block, count = make_block(line_bytes)
    if name == "pycoronet-iteration":
        run_pycoronet(block, count, iterates=True)
    else:
        globals()["run_" + name](block, count)


if __name__ == "__main__":
    main()
