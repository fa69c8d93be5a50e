"""How Hypothesis runs the state machines: the same examples each time, or many new ones.

PYCORONET_MACHINE_SECONDS=600 in the environment runs each for so long, with other examples each
time; a failure is then told as a program that can be copied into a test.
"""

from __future__ import annotations

import faulthandler
import os
import time

from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test

SECONDS = float(os.environ.get("PYCORONET_MACHINE_SECONDS", "0"))


def run_machine(machine: type[RuleBasedStateMachine], examples: int, steps: int) -> None:
    """Run so many examples of so many steps each."""
    base = settings(
        database=None,
        deadline=None,
        derandomize=not SECONDS,
        max_examples=examples,
        stateful_step_count=steps,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    if SECONDS:
        faulthandler.cancel_dump_traceback_later()  # pytest's, for what hangs
    start = time.monotonic()
    runs = 0
    while True:
        run_state_machine_as_test(machine, settings=base)
        runs += examples
        if time.monotonic() - start >= SECONDS:
            break
    if SECONDS:
        print(f"{machine.__name__}: {runs} examples of up to {steps} steps")
