"""The chained pipes: the reactor alone, in C, beside libevent, libev and libuv.

Each library has its program (c/chained_pipes_*.c), all with one driver; those whose headers
are not installed are left out. The programs of a load run at the same time and do a few runs
each in turn. They are started anew in each round, so that their memory lies elsewhere then.
"""

import contextlib
import json
import subprocess
from statistics import median

from environment import run
from processes import BUILD, HERE, SERVER_CORE, raise_file_limit, start_process
from report import Table, judge, skipped

WRITES = 1000
# A round gives each program 25 runs of either kind, in five turns.
TURNS = 5
RUNS_A_TURN = 5
LOADS = [(pipes, active) for pipes in (100, 1000, 4900) for active in (1, 100)]
# Program and manner of watching. The first is held against those of others.
PROGRAMS = {
    "pycoronet": ("reactor",),
    "pycoronet by level": ("reactor", "level"),
    "libevent": ("libevent",),
    "libevent by edges": ("libevent", "edge"),
    "libev": ("libev",),
    "libuv": ("libuv",),
}
OURS = ["pycoronet", "pycoronet by level"]
SPARE_DESCRIPTORS = 100


class PipeRunner:
    """A program that waits for commands; see c/chained_pipes.c."""

    def __init__(self, name, pipes, active):
        program, *manner = PROGRAMS[name]
        self.microseconds = {"dispatch": [], "anew": []}
        self.process = start_process(
            [BUILD / f"chained_pipes_{program}", pipes, active, WRITES, *manner],
            SERVER_CORE,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def measure(self, command):
        self.process.stdin.write(f"{command} {RUNS_A_TURN}\n")
        self.process.stdin.flush()
        self.microseconds[command] += json.loads(self.process.stdout.readline())

    def stop(self):
        self.process.communicate()


def run_round(names, load, order):
    """Return name -> the medians in µs that one round of `load` gives, in a dict."""
    with contextlib.ExitStack() as stack:
        runners = [PipeRunner(name, *load) for name in names]
        for runner in runners:
            stack.callback(runner.stop)
        # All of one kind first: what the kernel does later to free old watches would fall on
        # whoever runs then.
        for turn in range(2 * TURNS):
            start = (order + turn) % len(runners)
            for runner in runners[start:] + runners[:start]:
                runner.measure("dispatch" if turn < TURNS else "anew")
    return [
        {command: median(runs) for command, runs in runner.microseconds.items()}
        for runner in runners
    ]


def make_row(label, names, rounds, figure, limit=None):
    """Return a row: the median of each, and ours in proportion to whoever is best."""
    columns = zip(*[[each[figure] for each in one] for one in rounds], strict=True)
    numbers = dict(zip(names, columns, strict=True))
    ratios = [
        median(a / b for a, b in zip(numbers["pycoronet"], theirs, strict=True))
        for name, theirs in numbers.items()
        if name not in OURS and "pycoronet" in numbers
    ]
    value, must, _ = judge(max(ratios, default=None), limit)
    return [label, *(f"{median(each):.0f}" for each in numbers.values()), value, must]


def chained_pipes(settings):
    title = f"Chained pipes: CPU µs for {WRITES:,} writes and their events, C alone"
    if raise_file_limit() < 2 * max(LOADS)[0] + SPARE_DESCRIPTORS:
        return skipped(title, "the limit on open files is too low")
    run("make", "--quiet", "-C", HERE / "c", "chained-pipes")
    names = [
        name
        for name, (program, *_) in PROGRAMS.items()
        if (BUILD / f"chained_pipes_{program}").exists()
        and not (settings.peers_only and name in OURS)
    ]
    rounds = {
        f"{pipes:,} pipes, {active} active": [
            run_round(names, (pipes, active), number) for number in range(settings.rounds)
        ]
        for pipes, active in LOADS
    }
    rows = [make_row(load, names, each, "dispatch", 1.0) for load, each in rounds.items()]
    rows += [make_row(f"{load}, anew", names, each, "anew") for load, each in rounds.items()]
    return Table(title, ["load", *names, "pycoronet ÷ the best", "must"], rows, rounds)
