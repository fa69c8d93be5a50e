"""The clients of attacks.py that mean well: they ask, wait for the answer, and ask again.

Each has an address of its own, as real ones have, and connects anew after some questions: an
attack that keeps newcomers out harms them too.
"""

import socket
import time

from measure import Histogram
from programs import read_orders, read_settings, say

from pycoronet import sk_conn, sleep, spawn

PATIENCE_SECONDS = 5
QUESTIONS_PER_CONNECTION = 10

settings = read_settings()
addresses = [tuple(address) for address in settings.addresses]
pause_seconds = 0.0
answered = lost = 0
errors = []
waits = Histogram()


def ask_often(number):
    """Be one client, for one connection."""
    global answered
    sock = socket.socket()
    sock.bind((f"127.0.64.{number + 1}", 0))
    with sk_conn(sock) as conn:
        conn.settimeout(PATIENCE_SECONDS)
        conn.connect(addresses[number % len(addresses)])
        for which in range(QUESTIONS_PER_CONNECTION):
            question = b"%d %d\n" % (number, which)
            began = time.monotonic()
            conn.write(question)
            answer = conn.readln()
            if answer != question:
                raise ValueError(f"{question!r} was answered by {answer!r}")
            waits.add(time.monotonic() - began)
            answered += 1
            if pause_seconds:
                sleep(pause_seconds)


def live(number):
    """Be one client."""
    global lost
    while True:
        try:
            ask_often(number)
        except Exception as error:
            lost += 1
            if len(errors) < 10:
                errors.append(f"{type(error).__name__}: {error}")
            sleep(0.1)


for number in range(settings.clients):
    spawn(live, number)
for window, word in enumerate(read_orders()):
    # What was answered since the last order belongs to the window that ends here.
    report = {"answered": answered, "lost": lost, "waits": waits.describe(), "errors": errors}
    say(**report)
    say(window=window)
    answered = lost = 0
    waits = Histogram()
    pause_seconds = float(word)
