"""Each allocation of Python's that an operation makes fails in turn.

The outcome is MemoryError or success, and the hub goes on. Layers 1 and 2 have the same in C.
"""

from __future__ import annotations

import pytest
from no_memory_case import HELPERS, OPERATIONS
from processes import WITHOUT_COVERAGE_PY, lines_of

pytest.importorskip("_testcapi")

FIRST_ALLOCATIONS = 60

PROGRAM = (
    HELPERS
    + """
import _testcapi

get_hub(backend="fake")
reports = []
sys.unraisablehook = lambda report: reports.append(report.exc_type)
failures = 0
for number in range({first_allocations}):
    server = listen(("127.0.0.1", 0))
    left, right = pair()
    {setup}
    if {setup!r} == "get_hub().close()":
        close_all()
    _testcapi.set_nomemory(number, number + 1)
    try:
        {operation}
    except MemoryError:
        failures += 1
    finally:
        _testcapi.remove_mem_hooks()
    close_all()
    assert spawn(int).get() == 0
    sleep(2)
    assert get_hub().task_count == 0
    gc.collect()
say("failures:", failures > 0 or MemoryError in reports)
"""
)


# greenlet ends the program when it has no memory to keep a stack.
@pytest.mark.optimisation("an operation that need not wait does not switch")
@pytest.mark.parametrize("name", OPERATIONS)
def test_running_out_of_memory_is_a_clean_error(name: str) -> None:
    setup, operation = OPERATIONS[name]
    lines = lines_of(
        PROGRAM.format(
            setup=setup or "pass", operation=operation, first_allocations=FIRST_ALLOCATIONS
        ),
        environment={"PYTHONWARNINGS": "ignore::ResourceWarning", **WITHOUT_COVERAGE_PY},
    )
    assert lines == ["failures: True"]


def test_a_hub_that_cannot_be_made_leaves_nothing() -> None:
    lines = lines_of(
        """
        import _testcapi, gc
        for number in range(60):
            get_hub(backend="fake").close()
            _testcapi.set_nomemory(number, number + 1)
            try:
                get_hub(backend="fake")
            except MemoryError:
                _testcapi.remove_mem_hooks()
            else:
                _testcapi.remove_mem_hooks()
                # It was made all the same, and knows that this is the main thread.
                signal_handler(signal.SIGUSR1, int).cancel()
        get_hub().close()
        gc.collect()
        say(sum(type(item).__name__ == "Hub" for item in gc.get_objects()))
        """,
        environment=WITHOUT_COVERAGE_PY,
    )
    assert lines == ["0"]
