"""What is measured: processes as the kernel sees them, times in a histogram, and verdicts.

A histogram has a fixed size, so that measuring for ten minutes takes no memory itself.
"""

import math
import os
import pathlib
import re

# Steps of a twelfth of an octave: a percentile is at most 6 % too high.
STEPS_PER_OCTAVE = 12
OCTAVES = 26  # from a microsecond to a minute


class Histogram:
    """Times in seconds, by their order of magnitude; the greatest exactly."""

    def __init__(self):
        self.clear()

    def clear(self):
        """Forget all that was counted."""
        self.counts = [0] * (STEPS_PER_OCTAVE * OCTAVES)
        self.greatest = 0.0

    def add(self, seconds):
        """Count one."""
        step = int(math.log2(max(seconds * 1e6, 1.0)) * STEPS_PER_OCTAVE)
        self.counts[min(step, len(self.counts) - 1)] += 1
        if seconds > self.greatest:
            self.greatest = seconds

    def percentile(self, share):
        """Return the time that this share of all, from 0 to 1, does not exceed, in seconds."""
        left = sum(self.counts) * share
        for step, count in enumerate(self.counts):
            left -= count
            if count and left <= 0:
                upper_edge = 2 ** ((step + 1) / STEPS_PER_OCTAVE) / 1e6
                return min(upper_edge, self.greatest)
        return self.greatest

    def describe(self):
        """Return what is worth telling, in milliseconds."""
        shares = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999}
        told = {name: round(self.percentile(share) * 1e3, 2) for name, share in shares.items()}
        return {"count": sum(self.counts), **told, "max": round(self.greatest * 1e3, 2)}


def in_words(times):
    """Return what describe() has returned, as a text."""
    names = [name for name in times if name != "count"]
    return ", ".join(f"{name} {times[name]:g}" for name in names) + " ms"


def read_resident_bytes(pid):
    """Return how much memory of a process is resident."""
    status = pathlib.Path("/proc", str(pid), "status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) * 1024


def count_descriptors(pid):
    """Return how many descriptors a process has open."""
    return len(os.listdir(f"/proc/{pid}/fd"))  # noqa: PTH208  # no 20,000 paths for a number


def read_cpu_seconds(pid):
    """Return the processor time of all threads of a process."""
    files = pathlib.Path("/proc", str(pid), "task").glob("*/schedstat")
    return sum(int(file.read_text().split()[0]) for file in files) / 1e9


class Verdicts:
    """What has to hold, what was found, and whether it is so."""

    def __init__(self):
        self.rows = []

    def check(self, part, criterion, found, holds):
        """Note a criterion; holds: None says that it is a figure without a limit."""
        self.rows.append({"part": part, "criterion": criterion, "found": found, "holds": holds})

    @property
    def all_hold(self):
        """True if no criterion is broken."""
        return all(row["holds"] is not False for row in self.rows)

    def table(self):
        """Return the table, as lines."""
        words = {None: "    ", True: "PASS", False: "FAIL"}
        widths = [max(len(row[name]) for row in self.rows) for name in ("part", "criterion")]
        return [
            f"{words[row['holds']]}  {row['part']:{widths[0]}}  "
            f"{row['criterion']:{widths[1]}}  {row['found']}"
            for row in self.rows
        ]
