"""Reading lines that have come: what a call of readln() costs when the line is there.

Each contestant is a process of python/read_lines.py that stays from round to round.
"""

import subprocess

import instructions
from contest import collect_cpu, collect_rounds, ratio, run_rounds
from environment import PYTHON
from figures import Chart, format_spread
from processes import HERE, SERVER_CORE, start_process
from report import Table, judge, nobody_asked_for, skipped

SCRIPT = HERE / "python" / "read_lines.py"
LINE_SIZES = [40, 200]
# Blocks of 64 KiB: so many a round, and in the two runs that are counted.
BLOCKS = 100
FEW_BLOCKS = 2
MANY_BLOCKS = 22
NAMES = {
    "pycoronet": "pycoronet",
    "pycoronet, for line in conn": "pycoronet-iteration",
    "asyncio StreamReader": "asyncio",
    "gevent makefile()": "gevent",
}
LIMITS = {"asyncio StreamReader": 0.2, "gevent makefile()": 0.83}


class LineReader:
    """A running read_lines.py, with what its rounds have given so far."""

    def __init__(self, name, line_bytes):
        self.cpu_us = []
        self.per_second = []
        command = [PYTHON, SCRIPT, NAMES[name], line_bytes]
        self.process = start_process(
            command, SERVER_CORE, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def measure(self, seconds):
        self.process.stdin.write(f"{BLOCKS}\n")
        self.process.stdin.flush()
        nanoseconds = float(self.process.stdout.readline())
        self.cpu_us.append(nanoseconds / 1e3)
        self.per_second.append(1e9 / nanoseconds)

    def stop(self):
        self.process.communicate()


def make_rows(readers, line_bytes):
    rows = []
    for name, reader in readers.items():
        value = None
        if "pycoronet" in readers and name in LIMITS:
            value = ratio(readers["pycoronet"], reader)
        nanoseconds = [1e3 * number for number in reader.cpu_us]
        cells = judge(value, LIMITS.get(name))[:2]
        rows.append([f"{name}, {line_bytes} bytes", format_spread(nanoseconds), *cells])
    return rows


def buffered_lines(settings):
    title = "Lines that are there: one call each"
    rows, rounds, groups = [], {}, {}
    for line_bytes in LINE_SIZES:
        readers = {name: LineReader(name, line_bytes) for name in choose_names(settings)}
        try:
            run_rounds(settings, readers)
        finally:
            for reader in readers.values():
                reader.stop()
        rows += make_rows(readers, line_bytes)
        rounds[f"{line_bytes} bytes"] = collect_rounds(readers)
        groups[f"lines of {line_bytes} bytes"] = collect_cpu(readers, 1000)
    headers = ["reader", "CPU ns/line (middle half)", "pycoronet ÷ it", "must"]
    if not rows:
        return nobody_asked_for(title)
    return Table(title, headers, rows, rounds, Chart.of_rounds("CPU ns/line", groups))


def choose_names(settings):
    return settings.choose(NAMES)


def count_instructions(name, line_bytes, blocks):
    command = instructions.make_command(PYTHON, SCRIPT, NAMES[name], str(line_bytes))
    subprocess.run(command, input=f"{blocks}\n", text=True, check=True, stdout=subprocess.PIPE)
    return instructions.read_count()


def line_instructions(settings):
    """Count a few blocks and many: starting and ending cancel out, receiving does not."""
    title = "User-space instructions: lines that are there"
    if not instructions.is_possible():
        return skipped(title, instructions.MISSING)
    rows, counts = [], {}
    for line_bytes in LINE_SIZES:
        lines = (MANY_BLOCKS - FEW_BLOCKS) * (64 * 1024 // line_bytes)
        group = counts.setdefault(f"lines of {line_bytes} bytes", {})
        for name in choose_names(settings):
            settings.progress.step(f"{name}, {line_bytes} bytes")
            few = count_instructions(name, line_bytes, FEW_BLOCKS)
            many = count_instructions(name, line_bytes, MANY_BLOCKS)
            group[name] = [(many - few) / lines]
            rows.append([f"{name}, {line_bytes} bytes", f"{group[name][0]:.0f}"])
    if not rows:
        return nobody_asked_for(title)
    chart = Chart.of_rounds("instructions/line", counts)
    return Table(title, ["reader", "instructions/line"], rows, counts, chart)
