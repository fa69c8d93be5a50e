"""What coroutines cost apart from what they read and write: starting, giving way, timing out.

Each figure but the timers' comes from a script of python/ that times itself and is started
anew for each round, the libraries in turn.
"""

import json
import subprocess
from statistics import median

from environment import PYTHON
from processes import BUILD, HERE, SERVER_CORE, start_process
from report import Table, judge, skipped
from scenarios import choose, collect_raw, format_spread, make_rows, run_rounds

LIBRARIES = ["pycoronet", "uvloop", "asyncio", "gevent", "eventlet"]
SLEEPERS = 10_000
# What one operation on a timer may take, in nanoseconds.
TIMER_LIMITS = {"in order": 100, "at random": 300}
TIMER_ROUNDS = 5


def run_program(*words):
    """Return what a program prints that runs on the servers' core."""
    with start_process(words, SERVER_CORE, stdout=subprocess.PIPE) as process:
        output = process.communicate()[0]
    if process.returncode != 0:
        raise RuntimeError(f"it failed: {process.args}")
    return output


class ScriptRun:
    """A contestant that is a run of a script that prints the nanoseconds of an operation."""

    def __init__(self, name, script, *options):
        self.command = [PYTHON, HERE / "python" / script, name, *options]
        self.cpu_us = []
        self.per_second = []

    def measure(self, seconds):
        microseconds = float(run_program(*self.command)) / 1000
        self.cpu_us.append(microseconds)
        self.per_second.append(1e6 / microseconds)


def compare(settings, title, unit, limits, script, *options):
    """Run `script` with each library and return the table; `limits` is name -> must."""
    names = choose(settings, LIBRARIES)
    contestants = {name: ScriptRun(name, script, *options) for name in names}
    run_rounds(settings, contestants.values())
    headers = [
        "library",
        f"CPU µs/{unit} (middle half)",
        f"{unit}s/s",
        "pycoronet ÷ it",
        "must",
        "aim",
    ]
    rows = make_rows(
        contestants, "pycoronet", {name: (must, None) for name, must in limits.items()}
    )
    return Table(title, headers, rows, collect_raw(contestants))


def spawn(settings):
    title = "Starting a coroutine that does nothing and joining it"
    return compare(settings, title, "spawn", {"gevent": 0.15, "uvloop": 0.4}, "spawn.py")


def hand_over(settings):
    title = "Handing an item over from one coroutine to another through a queue"
    return compare(settings, title, "item", {"gevent": 0.25, "uvloop": 0.25}, "hand_over.py")


def timeouts(settings):
    title = "Entering and leaving a block that may take a minute"
    return compare(settings, title, "block", {"gevent": 0.15, "uvloop": 0.15}, "timeouts.py")


def sleep_zero(settings):
    """Run one task, which nobody waits for, and many that give way to each other."""
    rows, raw = [], {}
    for tasks in (1, 100):
        names = choose(settings, LIBRARIES)
        contestants = {name: ScriptRun(name, "sleep_zero.py", tasks) for name in names}
        run_rounds(settings, contestants.values())
        cells = make_rows(contestants, "pycoronet", {"gevent": (0.4, None), "uvloop": (0.4, None)})
        rows += [[f"{name}, {tasks} task" + "s" * (tasks > 1), *others] for name, *others in cells]
        raw |= {f"{name}, {tasks}": each for name, each in collect_raw(contestants).items()}
    headers = ["library", "CPU µs/sleep (middle half)", "sleeps/s", "pycoronet ÷ it", "must", "aim"]
    return Table("sleep(0): giving way to others", headers, rows, raw)


def sleepers(settings):
    """Weigh once: memory does not vary as time does."""
    kib = {
        name: float(run_program(PYTHON, HERE / "python" / "sleepers.py", name, SLEEPERS)) / 1024
        for name in choose(settings, LIBRARIES)
    }
    rows = []
    for name, each in kib.items():
        ours = kib["pycoronet"] / each if "pycoronet" in kib and name != "pycoronet" else None
        must = 1.0 if name == "gevent" else None
        rows.append([name, f"{each:.2f}", *judge(ours, must)[:2]])
    headers = ["library", "KiB a task", "pycoronet ÷ it", "must"]
    return Table(f"Memory: {SLEEPERS:,} tasks that sleep", headers, rows, kib)


def timers(settings):
    title = "Timers: one of 1,000,000, in C, through the reactor"
    if settings.peers_only:
        return skipped(title, "a measure of pycoronet's own")
    rounds = [json.loads(run_program(BUILD / "timers")) for _ in range(TIMER_ROUNDS)]
    rows = []
    for name in rounds[0]:
        numbers = [each[name] for each in rounds]
        must = TIMER_LIMITS[name.partition(", ")[2]]
        rows.append([name, format_spread(numbers), *judge(median(numbers), must)[:2]])
    return Table(title, ["operation", "CPU ns (middle half)", "median", "must"], rows, rounds)
