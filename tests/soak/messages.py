"""Messages whose every byte is known, and that differ from each other wherever they meet."""

import random
import struct

FILLING = random.Random(7).randbytes(1 << 17)
LONGEST = 1 << 16


class WrongAnswerError(Exception):
    """What came back is not what was sent."""


def make_message(client, number, length):
    """Return the message of this number of a client; the first 16 bytes say both."""
    start = (client * 7919 + number * 104729) % (len(FILLING) - LONGEST)
    return struct.pack(">QQ", client, number) + FILLING[start : start + length]


def choose_length(chance):
    """Return a length such as those that are seen: mostly short, now and then 64 KiB."""
    return LONGEST if chance.random() < 0.002 else int(2 ** chance.uniform(4, 12))


def check_exchange(conn, message):
    """Send a message, and see it come back to the last byte."""
    conn.sendall(message)
    answer = conn.read_exactly(len(message))
    if answer != message:
        raise WrongAnswerError(f"{len(message)} bytes sent, others came back")
