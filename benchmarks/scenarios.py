"""The tests whose load is requests: who is measured with which, and what pycoronet has to reach.

Each function here that takes the settings of the run returns one Table.
"""

import contextlib
import pathlib
import shutil
import tempfile

from contest import (
    ALL,
    CNHTTPD,
    PEERS,
    Contestant,
    collect_cpu,
    collect_rounds,
    make_command,
    make_rows,
    ratio,
    run_rounds,
)
from environment import PYTHON, ROOT, make_certificate
from figures import Chart, format_spread, median
from options import OURS
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
)
from report import Table, judge, nobody_asked_for, skipped

FILE_BYTES = 1 << 30
COUNTED_REQUESTS = 50000
SENDFILE_NOTE = "eventlet, uvloop and trio have no sendfile; gevent's reads the file and sends it."


def compare(
    settings, title, unit, names, mode, make_load, limits, ours="pycoronet", certificate=None
):
    """Run `names` side by side and return the table; `limits` is name -> (must, aim)."""
    names = settings.choose(names)
    if not names:
        return nobody_asked_for(title)
    with contextlib.ExitStack() as stack:
        contestants = {
            name: Contestant(stack, make_command(name, mode, certificate), make_load)
            for name in names
        }
        run_rounds(settings, contestants)
    cost = f"CPU µs/{unit}"
    headers = ["server", f"{cost} (middle half)", f"{unit}s/s", f"{ours} ÷ it", "must", "aim"]
    rows = make_rows(contestants, ours, limits)
    chart = Chart.of_rounds(cost, {"": collect_cpu(contestants)})
    return Table(title, headers, rows, collect_rounds(contestants), chart)


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
        "one worker": (1, "reuse_port"),
        "two, reuse_port": (2, "reuse_port"),
        "two, exclusive": (2, "exclusive"),
    }
    rows, raw, groups = [], {}, {}
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
            run_rounds(settings, contestants)
        groups[f"CPU µs a {unit}"] = collect_cpu(contestants)
        for name, one in contestants.items():
            label = f"{unit}s, {name}"
            value = None if name == "one worker" else ratio(one, contestants["one worker"])
            is_limited = name == "two, reuse_port" and unit == "request"
            limits = (1.1, None) if is_limited else (None, None)
            share = f"{median(one.busiest):.2f}"
            rows.append([label, format_spread(one.cpu_us), share, *judge(value, *limits)])
            raw[label] = {"cpu_us": one.cpu_us, "busiest": one.busiest}
    headers = ["workers", "CPU µs (middle half)", "share of the busier", "÷ one", "must", "aim"]
    return Table(title, headers, rows, raw, Chart.of_rounds("CPU µs", groups, own_scales=True))


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
        "Lines: 64 connections, one line of 64 bytes in flight",
        "line",
        ALL,
        "lines",
        Load,
        {},
    )


def pipelining(settings):
    return compare(
        settings,
        "Pipelining: 64 connections, 16 lines of 64 bytes in flight",
        "line",
        ALL,
        "lines",
        lambda port: Load(port, "--in-flight", 16),
        {"uvloop streams": (0.10, 0.08), "gevent": (0.10, 0.08)},
    )


def pipelining_callbacks(settings):
    """Compare with bare C that sends the blocks back as they are: the least there can be."""
    limits = {"bare C blocks": (2.5, None), "uvloop streams": (0.10, None), "gevent": (0.10, None)}
    return compare(
        settings,
        "Pipelining by callbacks: 64 connections, 16 lines of 64 bytes in flight",
        "line",
        ["pycoronet callbacks", "bare C blocks", *ALL],
        "lines",
        lambda port: Load(port, "--in-flight", 16),
        limits,
        ours="pycoronet callbacks",
    )


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


def make_file_command(name, path):
    """Return the function from a port to the command line of a server of one file."""
    if name == "bare C":
        return lambda port: [BUILD / "file_server", port, path]
    script = HERE / "python" / "file_server.py"
    return lambda port: [PYTHON, script, name, port, path]


def sendfile(settings):
    """Time, not processor time: how long a large file takes to whoever throws it away."""
    title = f"sendfile: {FILE_BYTES >> 20:,} MiB to a receiver that throws them away"
    with contextlib.ExitStack() as stack:
        folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        path = folder / "sparse"
        with path.open("wb") as file:
            file.truncate(FILE_BYTES)
        contestants = {
            name: Contestant(
                stack, make_file_command(name, path), lambda port: FileLoad(port, FILE_BYTES)
            )
            for name in settings.choose(["pycoronet", "bare C", "asyncio", "gevent"])
        }
        run_rounds(settings, contestants)
    if not contestants:
        return nobody_asked_for(title)
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
    headers = ["server", "GiB/s (middle half)", "CPU ms/GiB", f"{OURS}'s time ÷ its", "must", "aim"]
    chart = Chart.of_rounds("CPU ms/GiB", {"": collect_cpu(contestants, 2**30 / FILE_BYTES / 1000)})
    return Table(title, headers, rows, collect_rounds(contestants), chart, SENDFILE_NOTE)


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
        ["cnhttpd.py", *ALL],
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
            [name for name in ALL if name not in ("bare C", "eventlet")],
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
