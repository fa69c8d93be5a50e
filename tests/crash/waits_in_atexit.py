"""Uses the library in exit functions before and after its own, one of which fails."""

import atexit
import os
import sys


def early():
    # Runs after the library's own exit function.
    assert pycoronet.spawn(lambda: 5).get() == 5
    pycoronet.spawn(pycoronet.sleep, 60)
    pycoronet.sleep(0.001)
    os.write(1, b"early\n")


atexit.register(early)

import pycoronet  # noqa: E402


def late():
    pycoronet.spawn(pycoronet.sleep, 60)
    pycoronet.sleep(0.001)
    os.write(1, b"late\n")
    raise SystemError("an exit function that fails")


atexit.register(late)
pycoronet.spawn(pycoronet.sleep, 60)
pycoronet.sleep(0)
sys.stderr = open(os.devnull, "w")  # noqa: SIM115, PTH123
