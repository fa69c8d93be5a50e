"""Load, part three: clients that mean well, while others attack: they are served as before.

Windows with and without the attacks alternate, and medians are compared, so that what else the
machine does falls on both. The server has a core to itself; attackers and good clients share
the other one. So two things are compared:

- paced: good clients ask ten times a second. Their rate has to be kept.
- saturated: they ask as fast as they are answered. There attackers take processor time from
  the good clients themselves, which in earnest have their own. What counts is how much of the
  server's core goes to the attacks: what it takes less what its answers take without them.
"""

import os
import statistics
import time

from measure import in_words, read_cpu_seconds
from programs import Program, Progress

HOSTS = [f"127.0.0.{number}" for number in range(1, 5)]
GOOD_CLIENTS = 100
PAUSE_SECONDS = 0.1
KEPT_SHARE = 0.8
SETTLE_SECONDS = 0.5

# What holds the attacks off. Each attack alone would exceed one of these.
LIMITS = {"max_connections": 1000, "max_per_address": 50}

ATTACKS = ["SlowLoris", "WideSlowLoris", "Flood", "GiantLines"]


def run(verdicts, rounds, window_seconds, *, without=None):
    """Alternate windows with and without the attacks; return the figures.

    without: the name of a limit to be left out, to see what it is worth.
    """
    patience = window_seconds * 0.4  # for a line to come, and between two of them
    limits = {**LIMITS, "idle_timeout": patience}
    settings = {"handler": "lines", "hosts": HOSTS, "request_seconds": patience}
    for given in (limits, settings):
        if without in given:
            given[without] = None
    cores = sorted(os.sched_getaffinity(0))
    first, last = (cores[0], cores[-1]) if len(cores) > 1 else (None, None)
    with Program("server.py", core=first, limits=limits, **settings) as server:
        addresses = server.wait_for("addresses", 20)
        with (
            Program(
                "good_clients.py", core=last, addresses=addresses, clients=GOOD_CLIENTS
            ) as good,
            Program(
                "attackers.py",
                core=last,
                addresses=addresses,
                attacks=ATTACKS,
                byte_seconds=patience / 3,
            ) as bad,
        ):
            windows = _Windows(server, good, bad, window_seconds)
            for _ in range(rounds):
                for mode, pause_seconds in (("saturated", 0.0), ("paced", PAUSE_SECONDS)):
                    for state in ("off", "on"):
                        windows.measure(mode, pause_seconds, state)
            time.sleep(1.1)  # for the server's last report
            figures = {
                "limits": {**limits, "request_seconds": settings["request_seconds"]},
                "windows": windows.all,
                "server": dict(server.report),
                "attacks": bad.report.get("attacks"),
            }
    _judge(verdicts, figures)
    return figures


class _Windows:
    """Stretches of time of the same length, and what was measured in each."""

    def __init__(self, server, good, bad, seconds):
        self._server = server
        self._good = good
        self._bad = bad
        self._seconds = seconds
        self._number = 0
        self._progress = Progress("attacks")
        self.all = []

    def measure(self, mode, pause_seconds, state):
        """Wait for a window to pass; return what it has shown."""
        self._bad.tell(state)
        self._take(pause_seconds)
        time.sleep(SETTLE_SECONDS)
        self._take(pause_seconds)
        cpu, began = read_cpu_seconds(self._server.pid), time.monotonic()
        time.sleep(self._seconds)
        cpu = read_cpu_seconds(self._server.pid) - cpu
        seconds = time.monotonic() - began
        told = self._take(pause_seconds)
        window = {"mode": mode, "attack": state, "seconds": seconds, "server_cpu": cpu, **told}
        self.all.append(window)
        self._progress.show(
            f"{mode}, attacks {state}: {told['answered'] / seconds:,.0f} answers a second, "
            f"{told['lost']} lost, {self._server.report.get('open', 0)} open"
        )
        return window

    def _take(self, pause_seconds):
        """End the window of the good clients; return what it was, without the window's number."""
        self._good.tell(str(pause_seconds))
        self._good.wait_for("window", 30, self._number)
        self._number += 1
        return {name: self._good.report[name] for name in ("answered", "lost", "waits", "errors")}


def _judge(verdicts, figures):
    part = "attacks"

    def median(mode, state, value):
        chosen = [w for w in figures["windows"] if (w["mode"], w["attack"]) == (mode, state)]
        return statistics.median(value(window) for window in chosen)

    def rate(window):
        return window["answered"] / window["seconds"]

    def core_share(window):
        return window["server_cpu"] / window["seconds"]

    off, on = median("paced", "off", rate), median("paced", "on", rate)
    found = f"{off:,.0f} answers a second without, {on:,.0f} with: {on / off:.0%}"
    verdicts.check(part, "paced clients keep 80 % of their rate", found, on >= KEPT_SHARE * off)
    off, on = median("saturated", "off", rate), median("saturated", "on", rate)
    cost_off = median("saturated", "off", core_share) / off
    left = 1 - (median("saturated", "on", core_share) - on * cost_off)
    found = f"{left:.0%}, at {cost_off * 1e6:.0f} microseconds for an answer"
    verdicts.check(part, "80 % of the server's core is left", found, left >= KEPT_SHARE)
    found = f"{off:,.0f} without, {on:,.0f} with: {on / off:.0%}"
    verdicts.check(part, "  saturated, clients beside attackers", found, None)
    paced = [window for window in figures["windows"] if window["mode"] == "paced"]
    lost = sum(window["lost"] for window in paced)
    verdicts.check(part, "no good client is refused", f"{lost} lost", lost == 0)
    for state in ("off", "on"):
        slowest = max(
            (window["waits"] for window in paced if window["attack"] == state),
            key=lambda waits: waits["p99"],
        )
        verdicts.check(part, f"  round trips, attacks {state}", in_words(slowest), None)
    for name, (connected, _closed) in figures["attacks"].items():
        verdicts.check(part, f"  {name}", f"{connected:,} connections", None)
    server = figures["server"]
    giant = server["errors"].pop("input")
    found = {
        "too many of an address": server["shed"]["address"],
        "giant": giant,
        **server["refused"],
    }
    verdicts.check(part, "each defence has acted", str(found), all(found.values()))
    unexpected = {kind: n for kind, n in server["errors"].items() if n and kind != "reset"}
    verdicts.check(part, "no error in the server", str(unexpected or "none"), not unexpected)
