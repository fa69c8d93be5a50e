"""The chained pipes: the reactor alone, in C, beside libevent, libev and libuv.

Each library has its program (c/chained_pipes_*.c), all with one driver; those whose headers
are not installed are left out. The programs of a load run at the same time and do a few runs
each in turn. They are started anew in each round, so that their memory lies elsewhere then.
"""

import contextlib
import json
import subprocess

from environment import run
from figures import Chart, median
from processes import BUILD, HERE, SERVER_CORE, raise_file_limit, start_process
from report import Table, judge, nobody_asked_for, skipped

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


def make_row(load, names, numbers, limit=None):
    """Return a row: the median of each, and ours in proportion to whoever is best."""
    ratios = [
        median(a / b for a, b in zip(numbers["pycoronet"], numbers[name], strict=True))
        for name in names
        if name not in OURS and "pycoronet" in numbers
    ]
    value, must, _ = judge(max(ratios, default=None), limit)
    return [load, *(f"{median(numbers[name]):.0f}" for name in names), value, must]


def run_load(settings, names, load):
    """Return command -> name -> the µs of each round of `load`."""
    rounds = []
    for number in range(settings.rounds):
        settings.progress.step(f"{load[0]:,} pipes, round {number + 1} of {settings.rounds}")
        rounds.append(run_round(names, load, number))
    return {
        command: {
            name: [each[place][command] for each in rounds] for place, name in enumerate(names)
        }
        for command in ("dispatch", "anew")
    }


def chained_pipes(settings):
    title = f"Chained pipes: CPU µs for {WRITES:,} writes and their events, C alone"
    if raise_file_limit() < 2 * max(LOADS)[0] + SPARE_DESCRIPTORS:
        return skipped(title, "the limit on open files is too low")
    run("make", "--quiet", "-C", HERE / "c", "chained-pipes")
    names = [
        name
        for name in settings.choose(PROGRAMS)
        if (BUILD / f"chained_pipes_{PROGRAMS[name][0]}").exists()
    ]
    if not names:
        return nobody_asked_for(title)
    usual, anew = {}, {}
    for pipes, active in LOADS:
        load = f"{pipes:,} pipes, {active} active"
        figures = run_load(settings, names, (pipes, active))
        usual[load], anew[f"{load}, anew"] = figures["dispatch"], figures["anew"]
    rows = [make_row(load, names, numbers, 1.0) for load, numbers in usual.items()]
    rows += [make_row(load, names, numbers) for load, numbers in anew.items()]
    headers = ["load", *names, "pycoronet ÷ the best", "must"]
    chart = Chart.of_rounds(f"CPU µs for {WRITES:,} writes", usual)
    return Table(title, headers, rows, usual | anew, chart)
