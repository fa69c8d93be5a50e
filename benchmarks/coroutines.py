"""What coroutines cost apart from what they read and write: starting, giving way, timing out.

Each figure but the million timers' comes from a script of python/ that times itself and is
started anew for each round, the libraries in turn.
"""

import json

from contest import collect_cpu, collect_rounds, make_rows, run_rounds
from environment import PYTHON
from figures import Chart, format_spread, median
from processes import BUILD, HERE, run_program
from report import Table, judge, nobody_asked_for, skipped

LIBRARIES = ["pycoronet", "uvloop", "asyncio", "trio", "gevent", "eventlet"]
SLEEPERS = 10_000
# What one operation on a timer may take, in nanoseconds.
TIMER_LIMITS = {"in order": 100, "at random": 300}
TIMER_ROUNDS = 5


class ScriptRun:
    """A contestant that is a run of a script that prints the nanoseconds of an operation."""

    def __init__(self, name, script, *options):
        self.command = [PYTHON, HERE / "python" / script, name]
        self.options = options
        self.cpu_us = []
        self.per_second = []

    def measure(self, seconds):
        microseconds = float(run_program(*self.command, seconds, *self.options)) / 1000
        self.cpu_us.append(microseconds)
        self.per_second.append(1e6 / microseconds)


def compare(settings, title, unit, limits, script, groups=None):
    """Run `script` with each library and return the table; `limits` is name -> must.

    `groups` is heading -> options of the script: then it is run with each of them.
    """
    limits = {name: (must, None) for name, must in limits.items()}
    rows, rounds, figures = [], {}, {}
    for group, options in (groups or {"": []}).items():
        names = settings.choose(LIBRARIES)
        contestants = {name: ScriptRun(name, script, *options) for name in names}
        run_rounds(settings, contestants)
        figures[group] = collect_cpu(contestants)
        behind = f", {group}" if group else ""
        cells = make_rows(contestants, "pycoronet", limits)
        rows += [[name + behind, *others] for name, *others in cells]
        rounds |= {name + behind: each for name, each in collect_rounds(contestants).items()}
    if not rows:
        return nobody_asked_for(title)
    cost = f"CPU µs/{unit}"
    headers = ["library", f"{cost} (middle half)", f"{unit}s/s", "pycoronet ÷ it", "must", "aim"]
    return Table(title, headers, rows, rounds, Chart.of_rounds(cost, figures))


def spawn(settings):
    title = "Starting a coroutine that does nothing and joining it"
    return compare(settings, title, "spawn", {"gevent": 0.15, "uvloop": 0.4}, "spawn.py")


def queue(settings):
    title = "Handing an item over from one coroutine to another through a queue"
    return compare(settings, title, "item", {"gevent": 0.25, "uvloop": 0.25}, "hand_over.py")


def timeouts(settings):
    title = "Entering and leaving a block that may take a minute"
    return compare(settings, title, "block", {"gevent": 0.15, "uvloop": 0.15}, "timeouts.py")


def timers(settings):
    title = "Timers that expire: 1,000 tasks that sleep for a millisecond or two"
    return compare(settings, title, "sleep", {}, "timers.py")


def sleep_zero(settings):
    """Run one task, which nobody waits for, and many that give way to each other."""
    return compare(
        settings,
        "sleep(0): giving way to others",
        "sleep",
        {"gevent": 0.4, "uvloop": 0.4},
        "sleep_zero.py",
        {"1 task": [1], "100 tasks": [100]},
    )


def sleepers(settings):
    """Weigh once: memory does not vary as time does."""
    kib = {}
    for name in settings.choose(LIBRARIES):
        settings.progress.step(name)
        output = run_program(PYTHON, HERE / "python" / "sleepers.py", name, SLEEPERS)
        kib[name] = [float(output) / 1024]
    rows = []
    for name, (each,) in kib.items():
        ours = kib["pycoronet"][0] / each if "pycoronet" in kib and name != "pycoronet" else None
        must = 1.0 if name == "gevent" else None
        rows.append([name, f"{each:.2f}", *judge(ours, must)[:2]])
    headers = ["library", "KiB a task", "pycoronet ÷ it", "must"]
    title = f"Memory: {SLEEPERS:,} tasks that sleep"
    if not rows:
        return nobody_asked_for(title)
    return Table(title, headers, rows, kib, Chart.of_rounds("KiB a task", {"": kib}))


def million_timers(settings):
    title = "Timers: one of 1,000,000, in C, through the reactor"
    if settings.peers_only:
        return skipped(title, "a measure of pycoronet's own")
    rounds = []
    for number in range(TIMER_ROUNDS):
        settings.progress.step(f"round {number + 1} of {TIMER_ROUNDS}")
        rounds.append(json.loads(run_program(BUILD / "timers")))
    numbers = {name: [each[name] for each in rounds] for name in rounds[0]}
    rows = []
    for name, each in numbers.items():
        must = TIMER_LIMITS[name.partition(", ")[2]]
        rows.append([name, format_spread(each), *judge(median(each), must)[:2]])
    headers = ["operation", "CPU ns (middle half)", "median", "must"]
    return Table(title, headers, rows, numbers, Chart.of_rounds("CPU ns", {"": numbers}))
