"""Run one scenario with one fault after another; a process that run.py starts.

    python -m faults.case FOLDER SCENARIO count    # prints how often each function is called
    python -m faults.case FOLDER SCENARIO          # a fault a line in, a verdict a line out

The interposer is loaded already. A scenario that hangs, or computes without end, is ended with
the process; run.py sees in which case that was.
"""

from __future__ import annotations

import asyncio
import ctypes
import errno
import faulthandler
import gc
import json
import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from faults.errnos import is_passing
from faults.scenarios import SCENARIOS, causes, noted, parts, reported

import pycoronet
from pycoronet import _coronet

# Seconds until a wait that nothing ended is a hang; then the process has as long to end.
LIMIT = 10

# A case may make so many calls, and take so many seconds of computing: that of the clean run
# so many times, and some.
CALLS_FACTOR, MORE_CALLS = 4, 10_000
CPU_FACTOR, MORE_CPU = 10, 2.0

# So often may be tried what goes on failing for a while.
MOST_ATTEMPTS = 20

# As many calls as there may be.
FOR_EVER = 1 << 40

SERVER_THREAD = "pycoronet server"
ORIGINS = ("extension", "python")

# What a program has to expect.
_EXPECTED = (
    OSError,
    EOFError,
    pycoronet.Cancelled,
    pycoronet.BusyError,
    asyncio.CancelledError,
)


class Plan(ctypes.Structure):
    """struct plan of interpose.c."""

    _fields_ = (
        ("function", ctypes.c_int),
        ("origin", ctypes.c_int),
        ("first", ctypes.c_int64),
        ("count", ctypes.c_int64),
        ("error", ctypes.c_int),
        ("limit", ctypes.c_int64),
        ("milliseconds", ctypes.c_int64),
    )


class Interposer:
    """The library that was loaded before all others."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL(None)
        self._library.faults_count.restype = ctypes.c_int64
        self._library.faults_injected.restype = ctypes.c_int64
        names = (ctypes.c_char_p * 100).in_dll(self._library, "faults_names")
        self.names = []
        for name in names:
            if name is None:
                break
            self.names.append(name.decode())
        self._library.faults_set_extension(*map(ctypes.c_size_t, _mapping(_coronet.__file__)))

    def begin(self, plan: Plan | None) -> None:
        self._library.faults_begin(None if plan is None else ctypes.byref(plan))

    def end(self) -> None:
        self._library.faults_end()

    def plan(self, fault: dict[str, Any]) -> Plan:
        fault = {**fault, "function": self.names.index(fault["function"])}
        fault["origin"] = ORIGINS.index(fault["origin"])
        return Plan(**fault)

    @property
    def injected(self) -> int:
        return int(self._library.faults_injected())

    def counts(self) -> dict[str, dict[str, int]]:
        """Return how often each function was called, by who called it."""
        return {
            origin: {
                name: count
                for index, name in enumerate(self.names)
                if (count := self._library.faults_count(index, number))
            }
            for number, origin in enumerate(ORIGINS)
        }


def _mapping(path: str) -> tuple[int, int]:
    """Return where a library lies in memory."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    ranges = [line.split()[0].split("-") for line in lines if line.endswith(path)]
    return min(int(low, 16) for low, _ in ranges), max(int(high, 16) for _, high in ranges)


class Reports:
    """What was raised where nobody could catch it."""

    def __init__(self) -> None:
        self.errors = reported
        sys.unraisablehook = lambda report: self.errors.append(report.exc_value)
        threading.excepthook = lambda report: self.errors.append(report.exc_value)
        handler = logging.Handler()
        handler.emit = self._note_record  # type: ignore[method-assign]
        logging.basicConfig(handlers=[handler], level=logging.INFO)

    def _note_record(self, record: logging.LogRecord) -> None:
        if record.exc_info:
            self.errors.append(record.exc_info[1])
        if isinstance(record.args, tuple):
            self.errors += [each for each in record.args if isinstance(each, BaseException)]


class Outcome:
    """What came of running a scenario once."""

    def __init__(self) -> None:
        self.value: Any = None
        self.error: BaseException | None = None
        self.seconds = self.cpu = 0.0


class Runner:
    """Runs one scenario, again and again."""

    def __init__(self, folder: Path, scenario: Callable[[Path], Any]) -> None:
        self._folder = folder
        self._scenario = scenario
        self._interposer = Interposer()
        self._reports = Reports()
        for _ in range(2):  # the first imports something
            clean = self._run(None)
            if clean.error is not None:
                raise clean.error
        gc.collect()
        gc.freeze()
        self.clean = self._run(None)
        self.counts = self._interposer.counts()
        self._calls = sum(self.counts["extension"].values())
        self._descriptors = _count_descriptors()

    def _run(self, plan: Plan | None) -> Outcome:
        outcome = Outcome()
        self._reports.errors.clear()
        noted.clear()
        faulthandler.dump_traceback_later(2 * LIMIT, exit=True)
        began, cpu = time.monotonic(), time.process_time()
        self._interposer.begin(plan)
        try:
            with pycoronet.timeout(LIMIT):
                outcome.value = self._scenario(self._folder)
        except BaseException as error:
            outcome.error = error
        try:
            pycoronet.get_hub().close()
        except BaseException as error:
            outcome.error = outcome.error or error
        self._interposer.end()
        outcome.seconds, outcome.cpu = time.monotonic() - began, time.process_time() - cpu
        if outcome.error is not None:
            pycoronet.get_hub().close()  # if that was what failed
        for thread in threading.enumerate():
            if thread.name == SERVER_THREAD:  # they end by themselves, but not at once
                thread.join()
        faulthandler.cancel_dump_traceback_later()
        return outcome

    def judge(self, fault: dict[str, Any]) -> tuple[str, str]:
        """Return a verdict, and what there is to be said about it."""
        outcome = self._run(self._interposer.plan(fault))
        injected = self._interposer.injected
        calls = sum(self._interposer.counts()["extension"].values())
        complaint = (
            self._find_waste(outcome, calls)
            or self._find_impatience(fault, injected)
            or self._find_wrong(outcome, fault, injected)
            or self._find_leak(outcome)
        )
        if complaint is not None:
            return "failed", complaint
        if injected == 0:
            return "missed", ""
        return ("raised" if outcome.error is not None else "hidden"), ""

    def _find_waste(self, outcome: Outcome, calls: int) -> str | None:
        if outcome.seconds >= LIMIT:
            return f"hangs: {outcome.error!r}"
        if calls > CALLS_FACTOR * self._calls + MORE_CALLS:
            return f"busy loop: {calls} calls, {self._calls} in the clean run"
        if outcome.cpu > CPU_FACTOR * self.clean.cpu + MORE_CPU:
            return f"busy loop: {outcome.cpu:.1f} s of computing"
        return None

    def _find_impatience(self, fault: dict[str, Any], injected: int) -> str | None:
        if fault.get("milliseconds") and injected > MOST_ATTEMPTS:
            return f"busy loop: tried {injected} times in {fault['milliseconds']} milliseconds"
        return None

    def _find_wrong(self, outcome: Outcome, fault: dict[str, Any], injected: int) -> str | None:
        seen = (outcome.error, *self._reports.errors)
        errors = [each for error in seen for each in causes(error)]
        expected = _EXPECTED
        if fault["error"] == errno.ENOMEM:
            expected += (MemoryError,)
        if fault["error"] == errno.EPERM:
            expected += (ValueError,)
        for raised in (each for error in seen for each in parts(error)):
            if not isinstance(raised, expected):
                return f"raises {raised!r}"
        if outcome.error is None:
            if outcome.value != self.clean.value:
                return f"wrong: {str(outcome.value)[:200]}; reported {errors!r}"
            return None
        if injected == 0:
            return f"raises {errors!r} without a fault"
        is_storm = fault["count"] < FOR_EVER
        if is_storm and is_passing(fault["function"], fault["error"]):
            return f"raises {errors!r} where nothing was to be noticed"
        if not noted and not any(_tells_of(error, fault) for error in errors):
            name = errno.errorcode.get(fault["error"], "a short call")
            return f"raises {errors!r}, and nothing tells of {name}"
        return None

    def _find_leak(self, outcome: Outcome) -> str | None:
        outcome.error = None if outcome.error is None else OSError()  # its frames hold much
        self._reports.errors.clear()
        gc.collect()
        count, before = _count_descriptors(), self._descriptors
        self._descriptors = count
        return None if count <= before else f"{count - before} descriptors stay open"


def _tells_of(error: BaseException, fault: dict[str, Any]) -> bool:
    """Tell whether an exception says what the call failed with."""
    if fault["function"] == "if_nametoindex":
        return isinstance(error, socket.gaierror)  # the resolver is asked, and knows no better
    if fault["error"] == errno.ENOMEM and isinstance(error, MemoryError):
        return True
    # A file that is always ready says so. What could not be removed is there still.
    if fault["function"] == "epoll_ctl" and isinstance(error, (ValueError, FileExistsError)):
        return True
    number = fault["error"]
    if fault["function"] == "pread" and number == errno.EAGAIN:
        number = errno.EIO  # a file cannot be waited for
    return getattr(error, "errno", None) == number


def _count_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208


def main() -> None:
    folder, name, *mode = sys.argv[1:]
    os.environ.pop("LD_PRELOAD")
    runner = Runner(Path(folder), SCENARIOS[name])
    if mode == ["count"]:
        print(json.dumps(runner.counts))
        return
    for line in sys.stdin:
        print(json.dumps(runner.judge(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
