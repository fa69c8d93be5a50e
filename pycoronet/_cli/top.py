"""`python -m pycoronet top`: who uses the CPU among the tasks of a process, live."""

from __future__ import annotations

import argparse
import time
from typing import Any

from ._inspecting import Process, add_arguments, format_hub, printable
from ._screen import Screen, add_repetition

__all__ = ["add_parser"]

DESCRIPTION = """\
Show which tasks of a process use the CPU, and what the others wait for, until Ctrl-C.

  PYCORONET_INSPECT=/run/user/1000/coronet python -m pycoronet top PID

  CPU       share of one CPU since the table before; the busiest come first
  SWITCHES  how often the task has waited or given way in a second of that time

CPU time is measured while this command runs: the process reads a clock at each switch then.
`ps --help` tells the rest.
"""


def add_parser(subparsers: Any) -> None:
    """Add the command to those of an argparse parser."""
    parser = subparsers.add_parser(
        "top",
        help="show which tasks of a process use the CPU, live",
        usage="python -m pycoronet top PID [OPTION ...]",
        description=DESCRIPTION,
    )
    add_arguments(parser)
    add_repetition(parser)
    parser.set_defaults(run=run)


class _Sample:
    """What a process said, and when."""

    def __init__(self, process: Process) -> None:
        self.snapshot = process.ask("top")
        self.taken = time.monotonic()
        self.hubs = {hub["id"]: hub["cpu"] for hub in self.snapshot["hubs"]}
        self.tasks = {
            task["id"]: (task["switches"], task["cpu"])
            for hub in self.snapshot["hubs"]
            for task in hub["tasks"]
        }


def _format(now: _Sample, before: _Sample, width: int) -> list[str]:
    """Return the table of what has happened between two samples."""
    seconds = max(now.taken - before.taken, 0.001)
    lines = []
    for hub in now.snapshot["hubs"]:
        gains = {}
        for task in hub["tasks"]:
            switches, cpu = before.tasks.get(task["id"], (0, 0.0))
            # Another task may have got the id of one that has ended.
            gains[task["id"]] = (
                max(task["cpu"] - cpu, 0.0) / seconds,
                max(task["switches"] - switches, 0) / seconds,
            )
        tasks = sorted(hub["tasks"], key=lambda task: gains[task["id"]], reverse=True)
        cells = {key: (f"{cpu:.1%}", f"{switches:,.1f}") for key, (cpu, switches) in gains.items()}
        own = max(hub["cpu"] - before.hubs.get(hub["id"], 0.0), 0.0) / seconds
        title = f"hub of {printable(hub['thread'])} on {hub['engine']}"
        lines += [f"{title}, tasks: {len(tasks)}, polling and callbacks: {own:.1%}"]
        lines += [*format_hub(hub, tasks, ("CPU", "SWITCHES"), cells, width), ""]
    return lines[:-1]


def run(arguments: argparse.Namespace) -> int:
    """Carry the command out; return its exit status."""
    process = Process(arguments)
    screen = Screen()
    try:
        before = _Sample(process)
        while True:
            time.sleep(arguments.interval)
            now = _Sample(process)
            screen.show(_format(now, before, screen.width))
            if arguments.once:
                break
            before = now
    except KeyboardInterrupt:
        pass  # how it is meant to end
    except BrokenPipeError:
        # not reached: who reads goes before the end
        pass  # whoever read has enough
    finally:
        process.close()
    return 0
