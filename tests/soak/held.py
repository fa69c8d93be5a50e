"""Load, part one: connections that are held for long; some are busy, others come and go.

The server's memory after a fifth of the time is compared with that at the end.
"""

import statistics
import time

from measure import count_descriptors, in_words, read_resident_bytes
from programs import Program, Progress

MIB = 1 << 20
OPEN_SECONDS = 120
CLOSE_SECONDS = 120
MEMORY_GROWTH_LIMIT = 2 * MIB
HOSTS = [f"127.0.0.{number}" for number in range(1, 9)]


def run(verdicts, seconds, connections, active):
    """Hold connections for a time; return the figures."""
    with (
        Program("server.py", handler="blocks", hosts=HOSTS, limits={}) as server,
        Program("sleeper.py") as sleeper,
    ):
        addresses = server.wait_for("addresses", 20)
        before = count_descriptors(server.pid)
        with Program(
            "holders.py",
            addresses=addresses,
            connections=connections,
            active=active,
            pause_seconds=0.25,
            replacers=8,
            replace_seconds=0.04,
        ) as holders:
            holders.tell("open")
            holders.wait_for("opened", OPEN_SECONDS)
            server.tell("begin")
            server.wait_for("begun", 20)
            samples = _watch(server, holders, seconds)
            open_at_end = server.report["open"]
            lateness = server.report["lateness"]
            machine = sleeper.report["lateness"]
            holders.tell("close")
            holders.wait_for("closed", CLOSE_SECONDS)
            done = dict(holders.report)
        after = _wait_for_descriptors(server, before)
        time.sleep(1.1)  # for the server's last report
        figures = {
            "connections": open_at_end,
            "seconds": seconds,
            "clients": done,
            "server": server.report,
            "resident_bytes": samples,
            "descriptors": [before, after],
            "lateness_ms": lateness,
            "machine_lateness_ms": machine,
        }
    _judge(verdicts, figures, connections, active)
    return figures


def _watch(server, holders, seconds):
    """Note the server's memory each second; the list has (second, bytes)."""
    progress = Progress("held")
    began = time.monotonic()
    samples = []
    while (passed := time.monotonic() - began) < seconds:
        resident = read_resident_bytes(server.pid)
        samples.append((round(passed, 1), resident))
        told = holders.report
        progress.show(
            f"{server.report['open']:,} open, {resident / MIB:.1f} MiB, "
            f"{told['exchanged']:,} answers, {told['replaced']:,} replaced, {told['lost']} errors"
        )
        time.sleep(1)
    return samples


def _wait_for_descriptors(server, before):
    """Return how many the server has when all clients are gone."""
    give_up = time.monotonic() + 10
    while (after := count_descriptors(server.pid)) > before and time.monotonic() < give_up:
        time.sleep(0.1)
    return after


def _resident_around(samples, second, width):
    near = [size for at, size in samples if second - width <= at <= second + width]
    return statistics.median(near)


def _judge(verdicts, figures, connections, active):
    part = "held"
    seconds = figures["seconds"]
    clients, server = figures["clients"], figures["server"]
    found = f"{figures['connections']:,}, of them {active:,} active, for {seconds} s"
    verdicts.check(
        part, f"{connections:,} connections", found, figures["connections"] >= connections - 50
    )
    found = f"{clients['exchanged']:,} answers checked, {clients['lost']} errors"
    verdicts.check(part, "every answer, every byte", found, clients["lost"] == 0)
    for error in clients["errors"]:
        verdicts.check(part, "  error", error, False)
    unexpected = {kind: n for kind, n in server["errors"].items() if n and kind != "reset"}
    unexpected |= {kind: n for kind, n in server["shed"].items() if n}
    verdicts.check(part, "no error in the server", str(unexpected or "none"), not unexpected)
    width = max(seconds / 60, 1.5)
    early = _resident_around(figures["resident_bytes"], seconds / 5, width)
    late = _resident_around(figures["resident_bytes"], seconds - width, width)
    found = f"{early / MIB:.2f} MiB after {seconds // 5} s, {late / MIB:.2f} MiB after {seconds} s"
    is_flat = late - early <= MEMORY_GROWTH_LIMIT
    verdicts.check(part, "memory grows by 2 MiB or less", found, is_flat)
    before, after = figures["descriptors"]
    found = f"{before} before, {after} after {server['accepted']:,} connections"
    verdicts.check(part, "no descriptor leaked", found, before == after)
    verdicts.check(part, "wake-ups late by", in_words(figures["lateness_ms"]), None)
    found = in_words(figures["machine_lateness_ms"])
    verdicts.check(part, "  a plain program beside it", found, None)
    verdicts.check(part, "round trips take", in_words(clients["round_trips"]), None)
