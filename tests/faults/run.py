"""Every system call fails in turn with every errno that it may have, and does less than asked.

    python -m faults.run INTERPOSER [--all | --sample N] [--only SCENARIO] [--function NAME]

Each scenario is run once without a fault, to count its calls. Then one process after another
runs it with one fault a time. Prints what failed and how often each function did.
"""

from __future__ import annotations

import argparse
import collections
import errno
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from faults.errnos import BYTES, ERRNOS, SHORTAGES, is_passing
from faults.scenarios import SCENARIOS, prepare

FOR_EVER = 1 << 40

# So many failures in a row of what passes by itself; so long what accepting waits for.
STORM = 30
SHORTAGE = {"count": FOR_EVER, "milliseconds": 250}

# Functions that are Python's own business, or our harness': it opens and looks as well.
OF_PYTHON = frozenset(
    [
        "bind",
        "close",
        "dup",
        "fcntl",
        "getsockname",
        "listen",
        "pipe2",
        "setsockopt",
        "socket",
        "socketpair",
        "syscall",
        "unlink",
        "waitid",
    ]
)

# What the program rightly waits for to change.
ENDLESS = {("getpeername", errno.ENOTCONN)}

# Python itself passes over the first; after the others socketpair() loses what it has made.
IGNORED_BY_PYTHON = {
    ("close", errno.EINTR),
    ("getsockname", errno.EBADF),
    ("getsockname", errno.ENOTSOCK),
}

Fault = dict[str, Any]


def choose_places(calls: int, *, every: bool) -> list[int]:
    """Return which calls of so many fail: the first two, one in the middle, the last."""
    if every:
        return list(range(calls))
    return sorted({place for place in (0, 1, calls // 2, calls - 1) if place < calls})


def make_faults(counts: dict[str, dict[str, int]], *, every: bool) -> Iterator[Fault]:
    """Give all that can happen to a scenario that makes so many calls."""
    for origin, functions in counts.items():
        for function, calls in functions.items():
            if origin == "python" and function not in OF_PYTHON:
                continue
            for place in choose_places(calls, every=every):
                fault = {"function": function, "origin": origin, "first": place, "count": 1}
                yield from make_kinds(fault)


def make_kinds(fault: Fault) -> Iterator[Fault]:
    """Give each thing that can happen at one place, once, several times and from there on."""
    function, origin = fault["function"], fault["origin"]
    for error in ERRNOS[function]:
        if origin == "python" and (function, error) in IGNORED_BY_PYTHON:
            continue
        yield {**fault, "error": error, "limit": 0}
        if fault["first"] > 0 or origin == "python":
            continue
        if is_passing(function, error):
            yield {**fault, "error": error, "limit": 0, "count": STORM}
        elif function == "accept4" and error in SHORTAGES:
            yield {**fault, "error": error, "limit": 0, **SHORTAGE}
        elif (function, error) not in ENDLESS:
            yield {**fault, "error": error, "limit": 0, "count": FOR_EVER}
    if origin == "extension" and function in BYTES:
        for limit in (1, 7, -1):
            yield {**fault, "error": 0, "limit": limit}
        if fault["first"] == 0:
            yield {**fault, "error": 0, "limit": 1000, "count": FOR_EVER}


def describe(fault: Fault) -> str:
    """Return a fault as people read it."""
    kind = errno.errorcode.get(fault["error"], f"cut to {fault['limit']}")
    count = "on" if fault["count"] == FOR_EVER else f"{fault['count']} times"
    if "milliseconds" in fault:
        count = f"for {fault['milliseconds']} milliseconds"
    return (
        f"{fault['function']} of {fault['origin']}: {kind}, from call {fault['first'] + 1}, {count}"
    )


class Runner:
    """Runs the cases of one scenario, in as few processes as end well."""

    def __init__(self, folder: Path, interposer: Path, scenario: str) -> None:
        self._folder = folder / scenario
        self._folder.mkdir()
        for file in folder.glob("*"):
            if file.is_file():
                (self._folder / file.name).symlink_to(file)
        self._interposer = interposer
        self._scenario = scenario

    def _start(self, *mode: str, **options: Any) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "faults.case", self._folder, self._scenario, *mode],
            env={
                **os.environ,
                "LD_PRELOAD": str(self._interposer),
                "PYTHONPATH": os.pathsep.join(sys.path),
                "PYTHONWARNINGS": "ignore",
            },
            stdout=subprocess.PIPE,
            text=True,
            **options,
        )

    def count(self) -> dict[str, dict[str, int]]:
        """Return how often each function is called without a fault."""
        process = self._start("count")
        output = process.communicate()[0]
        if process.returncode != 0:
            raise SystemExit(f"{self._scenario} fails without a fault")
        counts: dict[str, dict[str, int]] = json.loads(output)
        return counts

    def judge(self, faults: list[Fault]) -> Iterator[tuple[Fault, str, str]]:
        """Give a verdict for each."""
        waiting = list(faults)
        while waiting:
            yield from self._judge_in_one_process(waiting)

    def _judge_in_one_process(self, waiting: list[Fault]) -> Iterator[tuple[Fault, str, str]]:
        """Go on until all are done, or one ends the process; takes them off the list."""
        with tempfile.TemporaryFile("w+") as errors:
            process = self._start(stdin=subprocess.PIPE, stderr=errors)
            assert process.stdin is not None
            assert process.stdout is not None
            try:
                while waiting:
                    fault = waiting.pop(0)
                    try:
                        process.stdin.write(json.dumps(fault) + "\n")
                        process.stdin.flush()
                        line = process.stdout.readline()
                    except BrokenPipeError:
                        line = ""
                    if not line:
                        status = process.wait()
                        errors.seek(0)
                        yield fault, "failed", f"ends with {status}: {errors.read()[-3000:]}"
                        return
                    verdict, complaint = json.loads(line)
                    yield fault, verdict, complaint
            finally:
                process.stdin.close()
                process.stdout.close()
                process.wait()


class Result:
    """What came of all of it."""

    def __init__(self) -> None:
        self.verdicts: collections.Counter[str] = collections.Counter()
        self.functions: set[tuple[str, str]] = set()
        self._lock = threading.Lock()

    def note(self, scenario: str, fault: Fault, verdict: str, complaint: str) -> None:
        with self._lock:
            self.verdicts[verdict] += 1
            if verdict != "missed":
                self.functions.add((fault["origin"], fault["function"]))
            if verdict == "failed":
                print(f"FAILED {scenario}: {describe(fault)}\n    {complaint}", flush=True)


def run_scenario(runner: Runner, name: str, options: argparse.Namespace, result: Result) -> None:
    """Run all of the faults of one scenario, or a sample."""
    counts = runner.count()
    if name == "guest_of_asyncio":
        counts["python"] = {}  # its own affair
    faults = [
        fault
        for fault in make_faults(counts, every=options.all)
        if options.function in (None, fault["function"])
    ]
    if options.sample is not None and options.sample < len(faults):
        faults = random.Random(f"{options.seed} {name}").sample(faults, options.sample)
    began = time.monotonic()
    for fault, verdict, complaint in runner.judge(faults):
        result.note(name, fault, verdict, complaint)
    if options.verbose:
        print(f"{name}: {len(faults)} faults, {time.monotonic() - began:.0f} s", flush=True)


def main() -> int:
    """Run what the command line says; return 1 if anything failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("interposer", type=Path)
    parser.add_argument("--all", action="store_true", help="let each call fail, not four")
    parser.add_argument("--sample", type=int, help="so many faults a scenario, by chance")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", action="append", choices=SCENARIOS)
    parser.add_argument("--function")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--verbose", action="store_true")
    options = parser.parse_args()
    result = Result()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(options.jobs) as pool:
        names = options.only or SCENARIOS
        prepare(Path(folder), has_tls="echo_over_tls" in names)
        jobs = []
        for name in names:
            runner = Runner(Path(folder), options.interposer.resolve(), name)
            jobs.append(pool.submit(run_scenario, runner, name, options, result))
        for job in jobs:
            job.result()
    total = sum(result.verdicts.values())
    print(
        f"{total} faults in {len(result.functions)} functions, {time.monotonic() - began:.0f} s "
        f"(seed {options.seed}): {result.verdicts['raised']} raised, "
        f"{result.verdicts['hidden']} were mended or did not matter, "
        f"{result.verdicts['missed']} were not met, {result.verdicts['failed']} FAILED"
    )
    return 1 if result.verdicts["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
