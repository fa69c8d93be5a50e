"""`python -m pycoronet ps`: what the tasks of a process do, once."""

from __future__ import annotations

import argparse
import shutil
from typing import Any

from ._inspecting import Process, add_arguments, format_hub, printable

__all__ = ["add_parser"]

DESCRIPTION = """\
List the tasks of a process: what each waits for, and for how long.

  mkdir -m 700 /run/user/1000/coronet
  PYCORONET_INSPECT=/run/user/1000/coronet python server.py &
  PYCORONET_INSPECT=/run/user/1000/coronet python -m pycoronet ps $!

  FOR       since the turn of the loop in which the wait began
  SWITCHES  how often the task has waited or given way
  CPU       as far as it was measured, which is while somebody runs `top`

Whoever runs, because the hub is stuck or just busy, is shown with its stack. Tasks that wait
for one another in a circle are named at the end.
"""


def add_parser(subparsers: Any) -> None:
    """Add the command to those of an argparse parser."""
    parser = subparsers.add_parser(
        "ps",
        help="list the tasks of a process",
        usage="python -m pycoronet ps PID [OPTION ...]",
        description=DESCRIPTION,
    )
    add_arguments(parser)
    parser.set_defaults(run=run)


def _format_cpu(seconds: float) -> str:
    return f"{seconds:.3f} s" if seconds else "-"


def _format_process(snapshot: dict[str, Any], width: int) -> list[str]:
    hubs = snapshot["hubs"]
    count = sum(len(hub["tasks"]) for hub in hubs)
    lines = [f"process {snapshot['pid']}: hubs: {len(hubs)}, tasks: {count}"]
    for hub in hubs:
        cells = {
            task["id"]: (str(task["switches"]), _format_cpu(task["cpu"])) for task in hub["tasks"]
        }
        lines += ["", f"hub of {printable(hub['thread'])} on {hub['engine']}"]
        lines += format_hub(hub, hub["tasks"], ("SWITCHES", "CPU"), cells, width)
        if hub["stack"]:
            who = "a callback" if hub["holder"] is None else f"Task {hub['holder']!r}"
            lines += ["", f"{printable(who)} runs:"]
            for part in hub["stack"]:
                lines += [f"  {printable(line)}" for line in part.splitlines()]
    if snapshot["circles"]:
        lines += ["", *map(printable, snapshot["circles"])]
    return lines


def run(arguments: argparse.Namespace) -> int:
    """Carry the command out; return its exit status."""
    process = Process(arguments)
    try:
        snapshot = process.ask("ps")
    finally:
        process.close()
    try:
        print("\n".join(_format_process(snapshot, shutil.get_terminal_size().columns)))
    except BrokenPipeError:  # not reached: who reads goes before the end
        pass  # whoever read has enough
    return 0
