"""Counting user-space instructions with valgrind's callgrind.

Whoever counts runs a program twice, over few and over many operations, and divides the
difference of the counts by that of the operations: then starting and ending cancel out.
"""

import re
import shutil

from processes import BUILD

OUT_FILE = BUILD / "callgrind.out"
MISSING = "valgrind is not installed"


def is_possible():
    return shutil.which("valgrind") is not None


def make_command(*command):
    """Return the command line that runs `command` and counts."""
    OUT_FILE.unlink(missing_ok=True)
    return ["valgrind", "-q", "--tool=callgrind", f"--callgrind-out-file={OUT_FILE}", *command]


def read_count():
    """Return the instructions of the run that has just ended, from start to end."""
    return int(re.search(r"^(?:totals|summary): (\d+)", OUT_FILE.read_text(), re.M)[1])
