"""Each call that layer 3 makes of CPython and of malloc fails in turn.

That needs a build with CORONET_COVERAGE=1: tests/coverage/failing_calls.c says how. Unlike
test_no_memory.py it can also try what switches, as greenlet's own allocations never fail.
"""

from __future__ import annotations

import ctypes

import pytest
from no_memory_case import HELPERS, OPERATIONS, SWITCHING_OPERATIONS
from processes import WITHOUT_COVERAGE_PY, lines_of

from pycoronet import _coronet

if not hasattr(ctypes.PyDLL(_coronet.__file__), "coronet_fail_call"):
    pytest.skip("the build has no calls that fail: make coverage", allow_module_level=True)

ALL_OPERATIONS = OPERATIONS | SWITCHING_OPERATIONS

# A pass lets each call fail once. Caches may grow for a while; what leaks grows with each pass.
PROGRAM = (
    HELPERS
    + """
import ctypes, faulthandler

is_failing = False
faulthandler.dump_traceback_later(40, exit=True)
library = ctypes.PyDLL(_coronet.__file__)
library.coronet_live_blocks.restype = ctypes.c_long
operation = compile({operation!r}, "operation", "exec")

def is_clean(error):
    members = getattr(error, "exceptions", ())
    return isinstance(error, MemoryError) or members != () and all(map(is_clean, members))

get_hub(backend="fake")
reports = []
sys.unraisablehook = lambda report: is_failing and reports.append(report.exc_type)
steady = (0, 0)
for step in range(20):
    number = failures = 0
    was_reached = True
    while was_reached:
        number += 1
        server = listen(("127.0.0.1", 0))
        left, right = pair()
        {setup}
        if "get_hub().close()" in {setup!r}:
            left = right = server = None  # it has closed them
        is_failing = True
        library.coronet_fail_call(number)
        try:
            exec(operation)
        except BaseException as error:
            was_reached = library.coronet_allow_calls()
            if not is_clean(error):
                raise
            failures += 1
        else:
            was_reached = library.coronet_allow_calls()
        is_failing = False
        close_all()
        cancel_all()
        assert spawn(int).get() == 0
        sleep(2)
        assert get_hub().task_count == 0
    failures += len(reports)
    assert set(reports) <= {{MemoryError}}, reports
    reports.clear()
    gc.collect()
    before, steady = steady, (library.coronet_live_blocks(), sys.getallocatedblocks())
    if all(now <= then for now, then in zip(steady, before)):
        break
else:
    say("leaks:", before, steady)
say("failures:", failures > 0 or number == 1)
"""
)


@pytest.mark.parametrize("name", ALL_OPERATIONS)
def test_a_failing_call_is_a_clean_error(name: str) -> None:
    setup, operation = ALL_OPERATIONS[name]
    lines = lines_of(
        PROGRAM.format(setup=setup or "pass", operation=operation),
        environment={
            "PYTHONWARNINGS": "ignore::ResourceWarning",
            "PYCORONET_ENGINE": "fake",
            **WITHOUT_COVERAGE_PY,
        },
    )
    assert lines == ["failures: True"]
