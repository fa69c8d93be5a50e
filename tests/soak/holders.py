"""The clients of held.py: many connections, most of them silent, some busy, others new.

Each is numbered; each message says whose it is. Whatever is not as it should be is an error.
"""

import random
import struct
import time
from collections import deque
from itertools import count
from socket import SHUT_WR, SO_LINGER, SOL_SOCKET

from measure import Histogram
from messages import WrongAnswerError, check_exchange, choose_length, make_message
from programs import read_orders, read_settings, say

from pycoronet import connect, joinall, sleep, spawn

PATIENCE_SECONDS = 30  # an answer that takes longer is lost
OPENERS = 32


class Clients:
    """All connections of this process, and what became of them."""

    def __init__(self, settings):
        self._settings = settings
        self._numbers = count()
        self._held = deque()  # silent ones and their numbers, the oldest first
        self._chance = random.Random(11)
        self._is_over = False
        self._busy = []
        self.round_trips = Histogram()
        self.exchanged = self.replaced = self.lost = 0
        self.errors = []

    def _note_error(self, error):
        self.lost += 1
        if len(self.errors) < 10:
            self.errors.append(f"{type(error).__name__}: {error}")

    def _open(self):
        number = next(self._numbers)
        addresses = self._settings.addresses
        conn = connect(tuple(addresses[number % len(addresses)]), timeout=PATIENCE_SECONDS)
        conn.settimeout(PATIENCE_SECONDS)
        self._exchange(conn, number, 0)
        return number, conn

    def _exchange(self, conn, number, which):
        check_exchange(conn, make_message(number, which, choose_length(self._chance)))
        self.exchanged += 1

    # --- The life of a connection -------------------------------------------------------

    def open_all(self):
        """Open as many as there are to be, and set some to work."""
        many = self._settings.connections
        joinall([spawn(self._open_some, many // OPENERS) for _ in range(OPENERS)])
        self._open_some(many % OPENERS)
        for _ in range(min(self._settings.active, len(self._held))):
            self._busy.append(spawn(self._work, *self._held.popleft()))
        self._busy += [spawn(self._replace) for _ in range(self._settings.replacers)]

    def _open_some(self, many):
        for _ in range(many):
            try:
                self._held.append(self._open())
            except (OSError, EOFError, WrongAnswerError) as error:
                self._note_error(error)

    def _work(self, number, conn):
        try:
            with conn:
                for which in count(1):
                    sleep(self._chance.uniform(0, 2 * self._settings.pause_seconds))
                    if self._is_over:
                        return
                    began = time.monotonic()
                    self._exchange(conn, number, which)
                    self.round_trips.add(time.monotonic() - began)
        except (OSError, EOFError, WrongAnswerError) as error:
            self._note_error(error)

    def _replace(self):
        while not self._is_over:
            sleep(self._chance.uniform(0, 2 * self._settings.replace_seconds))
            if self._held:
                self._end(*self._held.popleft())
                self._open_some(1)
                self.replaced += 1

    def _end(self, number, conn):
        """See that it still answers, and end it in one of the ways there are."""
        try:
            with conn:
                self._exchange(conn, number, 1)
                way = number % 4
                if way == 0:  # the end of file first, and nothing behind it
                    conn.shutdown(SHUT_WR)
                    if conn.recv(1):
                        raise WrongAnswerError("bytes behind the end")
                elif way == 1:  # an answer that nobody takes, and a reset
                    conn.setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
                    conn.sendall(b"never mind")
        except (OSError, EOFError, WrongAnswerError) as error:
            self._note_error(error)

    def close_all(self):
        """End the work, and then each connection, which has to answer once more."""
        self._is_over = True
        joinall(self._busy)
        joinall([spawn(self._close_some) for _ in range(OPENERS)])

    def _close_some(self):
        while self._held:
            self._end(*self._held.popleft())


def report_each_second(clients):
    """Tell what was done so far."""
    while True:
        say(
            exchanged=clients.exchanged,
            replaced=clients.replaced,
            lost=clients.lost,
            errors=clients.errors,
            round_trips=clients.round_trips.describe(),
        )
        sleep(1)


settings = read_settings()
clients = Clients(settings)
reporter = spawn(report_each_second, clients)
for word in read_orders():
    if word == "open":
        clients.open_all()
        say(opened=True)
    elif word == "close":
        clients.close_all()
        reporter.cancel()
        say(lost=clients.lost, errors=clients.errors, exchanged=clients.exchanged)
        say(closed=True)
