"""The clients of churn.py: connections that live for one question and its answer.

They end in each of the ways there are: by a reset, the client first, the server first, and
half at a time.
"""

import struct
from itertools import count
from socket import SHUT_WR, SO_LINGER, SOL_SOCKET

from programs import read_orders, read_settings, say

from pycoronet import connect, joinall, sleep, spawn

PATIENCE_SECONDS = 30
AT_ONCE = 64
RESET = struct.pack("ii", 1, 0)

RESET_AFTER, CLIENT_FIRST, SERVER_FIRST, HALF = range(4)

settings = read_settings()
addresses = [tuple(address) for address in settings.addresses]
numbers = count()
limit = 0  # how many connections there are to be by now
done = 0
errors = []
lost = 0


def ask(number):
    """Be one client."""
    way = number % 4
    with connect(addresses[number // 4 % len(addresses)], timeout=PATIENCE_SECONDS) as conn:
        conn.settimeout(PATIENCE_SECONDS)
        question = b"%s %d\n" % (b"last" if way == SERVER_FIRST else b"more", number)
        conn.write(question)
        answer = conn.readln()
        if answer != question:
            raise ValueError(f"{question} was answered by {answer}")
        if way == RESET_AFTER:
            conn.setsockopt(SOL_SOCKET, SO_LINGER, RESET)
        elif way == HALF:
            conn.shutdown(SHUT_WR)
        if way in (SERVER_FIRST, HALF) and conn.recv(1):
            raise ValueError("there was something behind the answer")


def ask_many():
    """Be one client after the other."""
    global done, lost
    while (number := next(numbers)) < limit:
        try:
            ask(number)
        except Exception as error:
            lost += 1
            if len(errors) < 10:
                errors.append(f"{type(error).__name__}: {error}")
        done += 1


def report_each_second():
    while True:
        say(done=done, lost=lost, errors=errors)
        sleep(1)


reporter = spawn(report_each_second)
for word in read_orders():
    limit = int(word)
    numbers = count(done)
    joinall([spawn(ask_many) for _ in range(AT_ONCE)])
    say(done=done, lost=lost, errors=errors)
    say(reached=limit)
