"""Imported by each interpreter that runs on the coverage build.

A process that ends by os._exit(), as forked children do, would lose the counters of gcov.
"""

from __future__ import annotations

import os
import sys
from typing import NoReturn

_exit = os._exit


def exit_with_counters(status: int) -> NoReturn:
    """End the process as os._exit() does, once the counters are written."""
    module = sys.modules.get("pycoronet._coronet")
    if module is not None:
        import ctypes

        ctypes.PyDLL(module.__file__).coronet_write_counters()
    _exit(status)


os._exit = exit_with_counters
