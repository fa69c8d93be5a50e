"""The server of a soak: by blocks or by lines it sends back what it gets.

While it serves, a task sleeps ten milliseconds at a time and notes how late it wakes: that
is what any other coroutine of the server would have waited, too.
"""

import gc
import sys
import time
from itertools import count

from measure import Histogram
from programs import read_orders, read_settings, say

from pycoronet import Server, sleep, spawn, timeout

NAP_SECONDS = 0.01


def echo_blocks(conn, address):
    """Send back whatever comes, as it comes."""
    while data := conn.recv(65536):
        conn.sendall(data)


def make_line_handler(request_seconds):
    """Return a handler for lines, each to be there within a time from its first byte."""

    def echo_lines(conn, address):
        try:
            while conn.server.await_input(conn):
                with timeout(request_seconds):
                    line = conn.readln()
                if not line:
                    return
                conn.write(line)
                if line.startswith(b"last"):
                    return
            refused["idle"] += 1
        except TimeoutError:
            refused["slow"] += 1

    return echo_lines


def note_lateness(lateness):
    """Sleep, and note how late it was, again and again."""
    while True:
        due = time.monotonic() + NAP_SECONDS
        sleep(NAP_SECONDS)
        lateness.add(time.monotonic() - due)


def report_each_second(server, lateness):
    """Tell what the server has counted."""
    for second in count():
        stats = server.stats
        say(
            second=second,
            open=stats.open,
            accepted=stats.accepted,
            served=stats.connections_served,
            errors=stats.errors,
            shed=stats.shed,
            refused=refused,
            blocks=sys.getallocatedblocks(),
            lateness=lateness.describe(),
        )
        sleep(1)


settings = read_settings()
refused = {"idle": 0, "slow": 0}
handler = echo_blocks
if settings.handler == "lines":
    handler = make_line_handler(settings.request_seconds)
server = Server([(host, 0) for host in settings.hosts], handler, backlog=4096, **settings.limits)
server.start()
lateness = Histogram()
spawn(note_lateness, lateness)
spawn(report_each_second, server, lateness)
say(addresses=server.addresses)
for word in read_orders():
    if word == "begin":  # what came before was not to be measured
        lateness.clear()
        say(begun=True)
    elif word == "collect":
        gc.collect()
        say(collected=sys.getallocatedblocks())
server.close()
