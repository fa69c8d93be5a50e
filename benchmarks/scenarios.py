"""The tests: who is measured with which load, and what pycoronet has to reach.

Each function here takes the settings of the run and returns one Table. A comparison runs
all its servers at the same time and gives each a round in turn, so that whatever else the
machine does falls on all of them alike; a ratio is taken within each round, and what is
reported is the median over the rounds.
"""

import contextlib
import pathlib
import shutil
import tempfile
from statistics import median, quantiles

from environment import PYTHON, ROOT, make_certificate
from processes import (
    BUILD,
    HERE,
    ConnectLoad,
    FileLoad,
    HttpLoad,
    Load,
    Server,
    TlsLoad,
    WorkerServer,
    raise_file_limit,
)
from report import Table, judge, skipped

SERVERS = {
    "pycoronet": ["pycoronet_server.py"],
    "pycoronet callbacks": ["pycoronet_server.py", "--style=callbacks"],
    "uvloop Protocol": ["asyncio_server.py", "--loop=uvloop", "--style=protocol"],
    "uvloop streams": ["asyncio_server.py", "--loop=uvloop", "--style=streams"],
    "asyncio streams": ["asyncio_server.py", "--loop=asyncio", "--style=streams"],
    "gevent": ["gevent_server.py"],
    "eventlet": ["eventlet_server.py"],
    "Server": ["pycoronet_server.py", "--server=coroutine"],
    "Server callbacks": ["pycoronet_server.py", "--server=callback"],
    "Server threads": ["pycoronet_server.py", "--server=threadpool"],
    "ThreadingTCPServer": ["threading_server.py"],
}
BARE_C = {
    "echo": "echo_server",
    "lines": "line_server",
    "http": "http_server",
    "one-line": "one_line_server",
}
PEERS = ["bare C", *list(SERVERS)[2:7]]
ALL = ["pycoronet", *PEERS]
BOTH = [*ALL, "pycoronet callbacks"]
CNHTTPD = ROOT / "examples" / "cnhttpd.py"
IDLE_NEIGHBOURS = 9000
IDLE_CONNECTIONS = 10000
COUNTED_REQUESTS = 50000
FILE_BYTES = 1 << 30


def make_command(name, mode, certificate=None, options=()):
    """Return the function from a port to the command line of server `name`."""
    tls = [] if certificate is None else ["--tls", certificate]
    if name == "bare C":
        return lambda port: [BUILD / BARE_C[mode], port]
    if name == "bare C blocks":
        return lambda port: [BUILD / BARE_C["echo"], port]
    if name == "cnhttpd.py":
        return lambda port: [PYTHON, CNHTTPD, "-p", port]
    script, *own = SERVERS[name]
    return lambda port: [PYTHON, HERE / "python" / script, port, mode, *own, *options, *tls]


def choose(settings, names):
    """Drop pycoronet, and what is built on it, from a run of the peers only."""
    ours = {"pycoronet", "pycoronet callbacks", "cnhttpd.py"} if settings.peers_only else set()
    return [name for name in names if name not in ours]


class Contestant:
    """One server with its load, and what the rounds have given so far."""

    def __init__(self, stack, command, make_load, make_server=Server):
        self.cpu_us = []
        self.per_second = []
        self.server = make_server(command)
        stack.callback(self.server.stop)
        self.load = make_load(self.server.port)
        stack.callback(self.load.stop)

    def measure(self, seconds):
        before = self.server.read_cpu_seconds()
        done = self.load.run(f"seconds {seconds}")
        cpu_seconds = self.server.read_cpu_seconds() - before
        self.cpu_us.append(cpu_seconds / done["requests"] * 1e6)
        self.per_second.append(done["requests"] / done["seconds"])


def run_rounds(settings, contestants):
    """Give everyone a round to warm up and then the rounds that count, in turn."""
    contestants = list(contestants)
    for contestant in contestants:
        contestant.measure(settings.seconds)
        contestant.cpu_us.clear()
        contestant.per_second.clear()
    for number in range(settings.rounds):
        start = number % len(contestants)
        for contestant in contestants[start:] + contestants[:start]:
            contestant.measure(settings.seconds)


def ratio(over, under):
    """Return the median of the ratios of two contestants, taken round by round."""
    return median(a / b for a, b in zip(over.cpu_us, under.cpu_us, strict=True))


def format_spread(numbers):
    """Return the median and, behind it, the range of the middle half."""
    if len(numbers) < 3:
        return f"{median(numbers):.2f}"
    low, _, high = quantiles(numbers, n=4)
    return f"{median(numbers):.2f} ({low:.2f}–{high:.2f})"


def make_rows(contestants, ours, limits):
    """Return a row a contestant: its own figures, and `ours` in proportion to it."""
    rows = []
    for name, one in contestants.items():
        value = None
        if ours in contestants and name != ours:
            value = ratio(contestants[ours], one)
        rows.append(
            [
                name,
                format_spread(one.cpu_us),
                f"{median(one.per_second):.0f}",
                *judge(value, *limits.get(name, (None, None))),
            ]
        )
    return rows


def collect_raw(contestants):
    return {
        name: {"cpu_us": one.cpu_us, "per_second": one.per_second}
        for name, one in contestants.items()
    }


def compare(
    settings, title, unit, names, mode, make_load, limits, ours="pycoronet", certificate=None
):
    """Run `names` side by side and return the table; `limits` is name -> (must, aim)."""
    with contextlib.ExitStack() as stack:
        contestants = {
            name: Contestant(stack, make_command(name, mode, certificate), make_load)
            for name in choose(settings, names)
        }
        run_rounds(settings, contestants.values())
    headers = [
        "server",
        f"CPU µs/{unit} (middle half)",
        f"{unit}s/s",
        f"{ours} ÷ it",
        "must",
        "aim",
    ]
    rows = make_rows(contestants, ours, limits)
    return Table(title, headers, rows, collect_raw(contestants))


def echo(settings):
    return compare(
        settings,
        "Echo: 64 connections × 64 bytes",
        "request",
        ALL,
        "echo",
        Load,
        {
            "bare C": (1.25, 1.15),
            "uvloop Protocol": (0.95, 0.85),
            "uvloop streams": (0.75, 0.65),
            "gevent": (0.45, 0.38),
            "eventlet": (0.40, 0.33),
        },
    )


def accept(settings):
    """Connect, one line there and back, close: what a connection costs, not what is said on it."""
    gevent, uvloop = (1 / 1.5, None), (1 / 1.2, None)
    return compare(
        settings,
        "Accepting: connect, one line of 64 bytes, close; 64 at a time",
        "connection",
        ["Server", "pycoronet", *(name for name in PEERS if name != "eventlet")],
        "one-line",
        ConnectLoad,
        {"gevent": gevent, "uvloop Protocol": uvloop, "uvloop streams": uvloop},
        ours="Server",
    )


def accept_callbacks(settings):
    return compare(
        settings,
        "Accepting by callbacks: connect, one line of 64 bytes, close; 64 at a time",
        "connection",
        ["Server callbacks", "pycoronet callbacks", "bare C", "uvloop Protocol", "gevent"],
        "one-line",
        ConnectLoad,
        {"gevent": (1 / 1.5, None), "uvloop Protocol": (1 / 1.2, None)},
        ours="Server callbacks",
    )


def threads(settings):
    """Serve each connection in a native thread: out of a pool, or started for it."""
    return compare(
        settings,
        "Threads: connect, one line of 64 bytes, close; 64 at a time",
        "connection",
        ["Server threads", "ThreadingTCPServer"],
        "one-line",
        ConnectLoad,
        {"ThreadingTCPServer": (1 / 2, None)},
        ours="Server threads",
    )


class WorkerContestant(Contestant):
    """The same with a server that has workers: also how much of the work the busiest does."""

    def __init__(self, stack, command, make_load, count):
        super().__init__(stack, command, make_load, lambda made: WorkerServer(made, count))
        self.busiest = []

    def measure(self, seconds):
        before = self.server.read_worker_cpu_seconds()
        super().measure(seconds)
        after = self.server.read_worker_cpu_seconds()
        used = [end - begin for begin, end in zip(before, after, strict=True)]
        self.busiest.append(max(used) / sum(used))


def processes(settings):
    """Two workers beside one, on one core: what sharing costs, and how even the shares are."""
    title = "Processes: two workers and one, all on one core"
    if settings.peers_only:
        return skipped(title, "a comparison of pycoronet's own")
    shapes = {
        "one": (1, "reuse_port"),
        "reuse_port": (2, "reuse_port"),
        "exclusive": (2, "exclusive"),
    }
    rows, raw = [], {}
    for unit, mode, make_load in (
        ("request", "echo", Load),
        ("connection", "one-line", ConnectLoad),
    ):
        with contextlib.ExitStack() as stack:
            contestants = {}
            for name, (count, sharing) in shapes.items():
                options = [f"--processes={count}", f"--sharing={sharing}"]
                command = make_command("Server", mode, options=options)
                contestants[name] = WorkerContestant(stack, command, make_load, count)
            run_rounds(settings, contestants.values())
        for name, one in contestants.items():
            label = f"{unit}s, " + ("one worker" if name == "one" else f"two, {name}")
            value = None if name == "one" else ratio(one, contestants["one"])
            limits = (1.1, None) if name == "reuse_port" and unit == "request" else (None, None)
            share = f"{median(one.busiest):.2f}"
            rows.append([label, format_spread(one.cpu_us), share, *judge(value, *limits)])
            raw[label] = {"cpu_us": one.cpu_us, "busiest": one.busiest}
    headers = ["workers", "CPU µs (middle half)", "share of the busier", "÷ one", "must", "aim"]
    return Table(title, headers, rows, raw)


def echo_callbacks(settings):
    return compare(
        settings,
        "Echo by callbacks: 64 connections × 64 bytes",
        "request",
        ["pycoronet callbacks", *ALL],
        "echo",
        Load,
        {"bare C": (1.12, None), "uvloop Protocol": (0.90, None)},
        ours="pycoronet callbacks",
    )


def ping_pong(settings):
    return compare(
        settings,
        "Ping-pong: one connection × 64 bytes",
        "request",
        ALL,
        "echo",
        lambda port: Load(port, "--connections", 1),
        {},
    )


def lines(settings):
    return compare(
        settings,
        "Lines: 64 connections, 16 lines of 64 bytes in flight",
        "line",
        ALL,
        "lines",
        lambda port: Load(port, "--in-flight", 16),
        {"uvloop streams": (0.10, 0.08), "gevent": (0.10, 0.08)},
    )


def line_callbacks(settings):
    """Compare with bare C that sends the blocks back as they are: the least there can be."""
    limits = {"bare C blocks": (2.5, None), "uvloop streams": (0.10, None), "gevent": (0.10, None)}
    return compare(
        settings,
        "Lines by callbacks: 64 connections, 16 lines of 64 bytes in flight",
        "line",
        ["pycoronet callbacks", "bare C blocks", *ALL],
        "lines",
        lambda port: Load(port, "--in-flight", 16),
        limits,
        ours="pycoronet callbacks",
    )


def idle_neighbours(settings):
    """Run the echo with thousands of connections beside it that do nothing, and without."""
    title = f"Echo: 64 connections beside {IDLE_NEIGHBOURS:,} idle ones"
    if raise_file_limit() < IDLE_NEIGHBOURS + 200:
        return skipped(title, "the limit on open files is too low")
    names = choose(settings, ["pycoronet", "bare C", "uvloop Protocol", "gevent"])

    def make_busy_load(port):
        return Load(port, "--idle", IDLE_NEIGHBOURS)

    with contextlib.ExitStack() as stack:
        pairs = {
            name: (
                Contestant(stack, make_command(name, "echo"), make_busy_load),
                Contestant(stack, make_command(name, "echo"), Load),
            )
            for name in names
        }
        run_rounds(settings, [one for pair in pairs.values() for one in pair])
    headers = [
        "server",
        "CPU µs/request with",
        "CPU µs/request without",
        "with ÷ without",
        "must",
        "aim",
    ]
    rows, raw = [], {}
    for name, (busy, quiet) in pairs.items():
        limits = (1.15, None) if name == "pycoronet" else (None, None)
        cells = [format_spread(busy.cpu_us), format_spread(quiet.cpu_us)]
        rows.append([name, *cells, *judge(ratio(busy, quiet), *limits)])
        raw |= collect_raw({f"{name} with": busy, f"{name} without": quiet})
    return Table(title, headers, rows, raw)


def idle_memory(settings):
    """Share out the resident memory among connections that wait for their next request."""
    title = f"Memory: {IDLE_CONNECTIONS:,} connections after one echo each"
    if raise_file_limit() < IDLE_CONNECTIONS + 200:
        return skipped(title, "the limit on open files is too low")
    rows, raw = [], {}
    for name in choose(settings, BOTH):
        with contextlib.ExitStack() as stack:
            server = Server(make_command(name, "echo"))
            stack.callback(server.stop)
            before = server.read_resident_bytes()
            load = Load(server.port, "--connections", 0, "--idle", IDLE_CONNECTIONS)
            stack.callback(load.stop)
            grown = (server.read_resident_bytes() - before) / IDLE_CONNECTIONS
        limits = {"pycoronet": (7.5, 6.5), "pycoronet callbacks": (1.0, None)}
        rows.append([name, *judge(grown / 1024, *limits.get(name, (None, None)))])
        raw[name] = {"bytes": grown}
    return Table(title, ["server", "KiB a connection", "must", "aim"], rows, raw)


def switches(settings):
    """Count, not time: how often pycoronet switches greenlets for a request."""
    title = "Switches of greenlets per request"
    if settings.peers_only:
        return skipped(title, "a count of pycoronet's own")
    rows, raw = [], {}
    for connections, limit in ((1, 0.01), (64, 1.1)):
        with contextlib.ExitStack() as stack:
            server = Server(make_command("pycoronet", "echo"))
            stack.callback(server.stop)
            load = Load(server.port, "--connections", connections)
            stack.callback(load.stop)
            load.run("requests 1000")
            before = server.read_switch_count()
            done = load.run(f"requests {COUNTED_REQUESTS}")
            count = server.read_switch_count() - before
        label = f"{connections} connections" if connections > 1 else "one connection"
        per_request = count / done["requests"]
        rows.append([label, *judge(per_request, limit)])
        raw[label] = {"switches": count, "requests": done["requests"]}
    return Table(title, ["load", "switches/request", "must", "aim"], rows, raw)


def sendfile(settings):
    """Time, not processor time: how long a large file takes to whoever throws it away."""
    title = f"sendfile: {FILE_BYTES >> 20:,} MiB to a receiver that throws them away"
    with contextlib.ExitStack() as stack:
        folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        path = folder / "sparse"
        with path.open("wb") as file:
            file.truncate(FILE_BYTES)
        script = HERE / "python" / "pycoronet_file_server.py"
        commands = {
            "pycoronet": lambda port: [PYTHON, script, port, path],
            "bare C": lambda port: [BUILD / "file_server", port, path],
        }
        contestants = {
            name: Contestant(stack, commands[name], lambda port: FileLoad(port, FILE_BYTES))
            for name in choose(settings, commands)
        }
        run_rounds(settings, contestants.values())
    rows = []
    for name, one in contestants.items():
        value = None
        if name != "pycoronet" and "pycoronet" in contestants:
            ours = contestants["pycoronet"].per_second
            value = median(a / b for a, b in zip(one.per_second, ours, strict=True))
        rates = [number * FILE_BYTES / 2**30 for number in one.per_second]
        cpu_ms = [number / 1000 for number in one.cpu_us]
        rows.append(
            [
                name,
                format_spread(rates),
                format_spread(cpu_ms),
                *judge(value, *((1.11, None) if name == "bare C" else (None, None))),
            ]
        )
    headers = [
        "server",
        "GiB/s (middle half)",
        "CPU ms/GiB",
        "pycoronet's time ÷ its",
        "must",
        "aim",
    ]
    return Table(title, headers, rows, collect_raw(contestants))


def http(settings):
    """cnhttpd, a whole server, against the least that wrk takes for one."""
    title = "HTTP: /mem-100 under wrk, 64 connections"
    if shutil.which("wrk") is None:
        return skipped(title, "wrk is not installed")
    if not CNHTTPD.exists() and not settings.peers_only:
        return skipped(title, f"there is no {CNHTTPD.relative_to(ROOT)}")
    return compare(
        settings,
        title,
        "request",
        ["cnhttpd.py", "bare C", "pycoronet", "uvloop Protocol", "uvloop streams", "gevent"],
        "http",
        lambda port: HttpLoad(port, "/mem-100"),
        {"bare C": (1.7, 1.4)},
        ours="cnhttpd.py",
    )


def compare_tls(settings, title, unit, mode, *options):
    with tempfile.TemporaryDirectory() as folder:
        certificate = make_certificate(pathlib.Path(folder))
        if certificate is None:
            return skipped(title, "openssl is not installed")
        return compare(
            settings,
            title,
            unit,
            ["pycoronet", "uvloop Protocol", "uvloop streams", "asyncio streams", "gevent"],
            mode,
            lambda port: TlsLoad(port, *options),
            {"gevent": (1.0, 0.7), "asyncio streams": (1.0, 0.5)},
            certificate=certificate,
        )


def tls_echo(settings):
    return compare_tls(settings, "TLS echo: 64 connections × 64 bytes", "request", "echo")


def tls_bulk(settings):
    size = ["--line", "--size", 1024 * 1024, "--connections", 4]
    return compare_tls(settings, "TLS bulk: 4 connections, 1 MiB each time", "MiB", "bulk", *size)


SCENARIOS = {
    "accept": accept,
    "accept-callbacks": accept_callbacks,
    "threads": threads,
    "processes": processes,
    "echo": echo,
    "echo-callbacks": echo_callbacks,
    "ping-pong": ping_pong,
    "lines": lines,
    "line-callbacks": line_callbacks,
    "idle-neighbours": idle_neighbours,
    "idle-memory": idle_memory,
    "switches": switches,
    "sendfile": sendfile,
    "http": http,
    "tls-echo": tls_echo,
    "tls-bulk": tls_bulk,
}
