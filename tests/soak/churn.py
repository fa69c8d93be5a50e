"""Load, part two: very many connections, each for one question, and nothing is left of them.

The server's memory after a tenth of them is compared with that at the end.
"""

import time

from measure import count_descriptors, read_cpu_seconds, read_resident_bytes
from programs import Program, Progress

MIB = 1 << 20
MEMORY_GROWTH_LIMIT = MIB
BLOCK_GROWTH_LIMIT = 1000  # of Python's memory, after a collection
# So many that no port is needed again while its last connection lingers in TIME_WAIT.
HOSTS = [f"127.0.0.{number}" for number in range(1, 33)]
SLOWEST_RATE = 200  # connections a second


def run(verdicts, connections):
    """Have so many connections, one after the other; return the figures."""
    began = time.monotonic()
    with (
        Program("server.py", handler="lines", hosts=HOSTS, limits={}, request_seconds=60) as server,
    ):
        addresses = server.wait_for("addresses", 20)
        before = count_descriptors(server.pid)
        with Program("short_clients.py", addresses=addresses) as clients:
            early = _reach(connections // 10, connections, server, clients)
            late = _reach(connections, connections, server, clients)
            seconds = time.monotonic() - began
            told = dict(clients.report)
        time.sleep(1.1)  # for the server's last report
        figures = {
            "connections": connections,
            "seconds": round(seconds, 1),
            "clients": told,
            "server": server.report,
            "early": early,
            "late": late,
            "descriptors": [before, count_descriptors(server.pid)],
            "server_cpu_seconds": read_cpu_seconds(server.pid),
        }
    _judge(verdicts, figures)
    return figures


def _reach(number, total, server, clients):
    """Go on until there have been so many; return what the server's memory is then."""
    progress = Progress("churn")
    give_up = time.monotonic() + 30 + total / SLOWEST_RATE
    clients.tell(str(number))
    while clients.report.get("reached") != number and time.monotonic() < give_up:
        told = clients.report
        resident = read_resident_bytes(server.pid) / MIB
        progress.show(
            f"{told.get('done', 0):,} done, {resident:.1f} MiB, {told.get('lost', 0)} lost"
        )
        time.sleep(0.1)
    clients.wait_for("reached", 1, number)
    server.report.pop("collected", None)
    server.tell("collect")
    blocks = server.wait_for("collected", 20)
    return {"resident_bytes": read_resident_bytes(server.pid), "blocks": blocks}


def _judge(verdicts, figures):
    part = "churn"
    clients, server = figures["clients"], figures["server"]
    number = figures["connections"]
    rate = number / figures["seconds"]
    found = f"{clients['done']:,} in {figures['seconds']:.0f} s ({rate:,.0f} a second)"
    verdicts.check(part, f"{number:,} connections", found, clients["done"] == number)
    found = f"{clients['lost']} lost or wrong"
    verdicts.check(part, "each question is answered", found, clients["lost"] == 0)
    for error in clients["errors"]:
        verdicts.check(part, "  error", error, False)
    counts = [server[name] for name in ("accepted", "served")]
    found = "{:,} accepted, {:,} served".format(*counts)
    verdicts.check(part, "the server has counted all", found, counts == [number, number])
    unexpected = {kind: n for kind, n in server["errors"].items() if n and kind != "reset"}
    verdicts.check(part, "no error in the server", str(unexpected or "none"), not unexpected)
    early, late = figures["early"], figures["late"]
    sizes = [state["resident_bytes"] / MIB for state in (early, late)]
    found = f"{sizes[0]:.2f} MiB after {number // 10:,}, {sizes[1]:.2f} MiB at the end"
    growth = late["resident_bytes"] - early["resident_bytes"]
    verdicts.check(part, "memory grows by 1 MiB or less", found, growth <= MEMORY_GROWTH_LIMIT)
    found = f"{early['blocks']:,} and {late['blocks']:,}"
    growth = late["blocks"] - early["blocks"]
    verdicts.check(part, "as many of Python's blocks", found, growth <= BLOCK_GROWTH_LIMIT)
    before, after = figures["descriptors"]
    verdicts.check(part, "no descriptor leaked", f"{before} before, {after} after", before == after)
