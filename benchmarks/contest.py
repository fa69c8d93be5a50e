"""The contestants of a comparison, and the rounds they take in turn.

All of them run at the same time and each has a round in turn, so that whatever else the
machine does falls on all of them alike; a ratio is taken within each round, and what is
reported is the median over the rounds.
"""

from environment import PYTHON, ROOT
from figures import format_spread, median
from processes import BUILD, HERE, Server
from report import judge

SERVERS = {
    "pycoronet": ["pycoronet_server.py"],
    "pycoronet callbacks": ["pycoronet_server.py", "--style=callbacks"],
    "uvloop Protocol": ["asyncio_server.py", "--loop=uvloop", "--style=protocol"],
    "uvloop streams": ["asyncio_server.py", "--loop=uvloop", "--style=streams"],
    "asyncio streams": ["asyncio_server.py", "--loop=asyncio", "--style=streams"],
    "trio": ["trio_server.py"],
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
PEERS = ["bare C", *list(SERVERS)[2:8]]
ALL = ["pycoronet", *PEERS]
BOTH = [*ALL, "pycoronet callbacks"]
CNHTTPD = ROOT / "examples" / "cnhttpd.py"


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
    """Give {name: contestant} a round each to warm up, and then the rounds that count, in turn."""
    pairs = list(contestants.items())
    for name, contestant in pairs:
        settings.progress.step(f"{name}, warming up")
        contestant.measure(settings.seconds)
        contestant.cpu_us.clear()
        contestant.per_second.clear()
    for number in range(settings.rounds):
        start = number % max(len(pairs), 1)
        for name, contestant in pairs[start:] + pairs[:start]:
            settings.progress.step(f"{name}, round {number + 1} of {settings.rounds}")
            contestant.measure(settings.seconds)


def ratio(over, under):
    """Return the median of the ratios of two contestants, taken round by round."""
    return median(a / b for a, b in zip(over.cpu_us, under.cpu_us, strict=True))


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


def collect_rounds(contestants):
    """Return the numbers of every round, for the JSON file."""
    return {
        name: {"cpu_us": one.cpu_us, "per_second": one.per_second}
        for name, one in contestants.items()
    }


def collect_cpu(contestants, factor=1):
    """Return {name: the processor time of all rounds}, as Chart.of_rounds() takes it."""
    return {name: [factor * each for each in one.cpu_us] for name, one in contestants.items()}
