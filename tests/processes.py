"""Runs small programs for tests that need a process of their own."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from typing import Any

PREAMBLE = """
import atexit, os, signal, sys, threading, time
import pycoronet
from pycoronet import *
def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())
"""


# What lets allocations or calls fail runs without coverage.py, whose tracer would need them
# too: it would be that which fails, and crash. gcov goes on counting C.
WITHOUT_COVERAGE_PY = {"COVERAGE_PROCESS_CONFIG": "", "COVERAGE_PROCESS_START": ""}


def run_program(source: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a program after PREAMBLE in a fresh interpreter; its output is text."""
    environment = {**os.environ, **options.pop("environment", {})}
    return subprocess.run(
        [sys.executable, "-X", "dev", "-c", PREAMBLE + textwrap.dedent(source)],
        capture_output=True,
        text=True,
        timeout=options.pop("timeout", 50),
        env=environment,
        **options,
    )


def lines_of(source: str, *, status: int = 0, **options: Any) -> list[str]:
    """Run a program that must end with [status] and without complaints; return its lines."""
    done = run_program(source, **options)
    assert (done.returncode, done.stderr) == (status, ""), done.stdout + done.stderr
    return done.stdout.splitlines()
