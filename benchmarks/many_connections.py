"""What connections cost that do nothing: to those that do something, and in memory."""

import contextlib

from contest import (
    BOTH,
    Contestant,
    collect_cpu,
    collect_rounds,
    make_command,
    ratio,
    run_rounds,
)
from figures import Chart, format_spread, median
from processes import Load, Server, raise_file_limit
from report import Table, judge, nobody_asked_for, skipped

IDLE_NEIGHBOURS = 9000
IDLE_CONNECTIONS = 10000
ACTIVE_CONNECTIONS = 64
GROWTH = (1, 10, 100, 1000, 5000, 15000)
GROWTH_SERVERS = ["pycoronet", "bare C", "uvloop Protocol", "gevent", "asyncio streams", "trio"]
# Of a server's or a load's descriptors, those that are no connections.
SPARE_DESCRIPTORS = 200
TOO_FEW_FILES = "the limit on open files is too low"


def idle_neighbours(settings):
    """Run the echo with thousands of connections beside it that do nothing, and without."""
    title = f"Echo: {ACTIVE_CONNECTIONS} connections beside {IDLE_NEIGHBOURS:,} idle ones"
    if raise_file_limit() < IDLE_NEIGHBOURS + SPARE_DESCRIPTORS:
        return skipped(title, TOO_FEW_FILES)
    names = settings.choose(["pycoronet", "bare C", "uvloop Protocol", "gevent"])
    if not names:
        return nobody_asked_for(title)
    loads = {"with": lambda port: Load(port, "--idle", IDLE_NEIGHBOURS), "without": Load}
    with contextlib.ExitStack() as stack:
        contestants = {
            f"{name}, {which}": Contestant(stack, make_command(name, "echo"), make_load)
            for name in names
            for which, make_load in loads.items()
        }
        run_rounds(settings, contestants)
    headers = ["server", "CPU µs/request with", "CPU µs/request without"]
    headers += ["with ÷ without", "must", "aim"]
    rows, groups = [], {}
    for name in names:
        busy, quiet = (contestants[f"{name}, {which}"] for which in loads)
        limits = (1.15, None) if name == "pycoronet" else (None, None)
        cells = [format_spread(busy.cpu_us), format_spread(quiet.cpu_us)]
        rows.append([name, *cells, *judge(ratio(busy, quiet), *limits)])
    for which in loads:
        members = {name: contestants[f"{name}, {which}"] for name in names}
        groups[f"{which} {IDLE_NEIGHBOURS:,} idle ones beside them"] = collect_cpu(members)
    chart = Chart.of_rounds("CPU µs/request", groups)
    return Table(title, headers, rows, collect_rounds(contestants), chart)


def idle_memory(settings):
    """Share out the resident memory among connections that wait for their next request."""
    title = f"Memory: {IDLE_CONNECTIONS:,} connections after one echo each"
    if raise_file_limit() < IDLE_CONNECTIONS + SPARE_DESCRIPTORS:
        return skipped(title, TOO_FEW_FILES)
    rows, kib = [], {}
    for name in settings.choose(BOTH):
        settings.progress.step(name)
        with contextlib.ExitStack() as stack:
            server = Server(make_command(name, "echo"))
            stack.callback(server.stop)
            before = server.read_resident_bytes()
            load = Load(server.port, "--connections", 0, "--idle", IDLE_CONNECTIONS)
            stack.callback(load.stop)
            grown = (server.read_resident_bytes() - before) / IDLE_CONNECTIONS
        kib[name] = [grown / 1024]
        limits = {"pycoronet": (7.5, 6.5), "pycoronet callbacks": (1.0, None)}
        rows.append([name, *judge(grown / 1024, *limits.get(name, (None, None)))])
    if not rows:
        return nobody_asked_for(title)
    headers = ["server", "KiB a connection", "must", "aim"]
    return Table(title, headers, rows, kib, Chart.of_rounds("KiB a connection", {"": kib}))


def make_growth_load(count):
    """Return the function from a port to a load of `count` connections, few of them active."""
    active = min(count, ACTIVE_CONNECTIONS)
    return lambda port: Load(port, "--connections", active, "--idle", count - active)


def run_growth(settings, names, counts):
    """Return {(name, count): contestant} after rounds of all of them in turn."""
    with contextlib.ExitStack() as stack:
        contestants = {}
        for count in counts:
            for name in names:
                settings.progress.step(f"{count:,} connections to {name}")
                contestants[name, count] = Contestant(
                    stack, make_command(name, "echo"), make_growth_load(count)
                )
        labelled = {f"{name}, {count:,}": one for (name, count), one in contestants.items()}
        run_rounds(settings, labelled)
    return contestants


def growth(settings):
    """Run the echo on 64 connections of ever more: what a request costs when many are open."""
    title = f"Growth: echo on {ACTIVE_CONNECTIONS} of so many connections"
    limit = raise_file_limit() - SPARE_DESCRIPTORS
    counts = [count for count in GROWTH if count <= limit]
    names = settings.choose(GROWTH_SERVERS)
    if not names:
        return nobody_asked_for(title)
    contestants = run_growth(settings, names, counts)
    few = max(count for count in counts if count <= 100)
    rows = []
    for name in names:
        medians = [median(contestants[name, count].cpu_us) for count in counts]
        growing = ratio(contestants[name, counts[-1]], contestants[name, few])
        rows.append([name, *(f"{each:.2f}" for each in medians), f"{growing:.2f}"])
    headers = ["CPU µs/request", *(f"{count:,}" for count in counts)]
    headers.append(f"{counts[-1]:,} ÷ {few:,}")
    columns = {str(count): {name: contestants[name, count] for name in names} for count in counts}
    chart = Chart.of_rounds(
        "CPU µs/request",
        {count: collect_cpu(column) for count, column in columns.items()},
        f"connections, of which {ACTIVE_CONNECTIONS} at most are active",
    )
    rounds = {count: collect_rounds(column) for count, column in columns.items()}
    note = "" if counts == list(GROWTH) else f"more than {counts[-1]:,}: {TOO_FEW_FILES}"
    return Table(title, headers, rows, rounds, chart, note)
