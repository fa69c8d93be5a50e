"""Two coroutines in C functions at once, and a third one that shows that nothing stands still.

Prints what came through the pipe, how many primes there are, and whether others could run.
"""

import os

import crunch

from pycoronet import sleep, spawn


def main() -> None:
    """Wait for a pipe and for a thread, both in C."""
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    turns = 0

    def count_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            sleep(0.001)

    ticker = spawn(count_turns)
    message = spawn(crunch.read, reader, 100, timeout=60)
    primes = spawn(crunch.count_primes, 100_000, timeout=60)
    sleep(0.01)
    os.write(writer, b"hello")
    print(message.get().decode())
    print(primes.get(), "primes")
    print("others ran" if turns > 1 else "nobody else ran")
    ticker.cancel()
    os.close(reader)
    os.close(writer)


if __name__ == "__main__":
    main()
