"""Programs that once crashed, hung or might: each runs in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from processes import lines_of

CRASH = Path(__file__).resolve().parent.parent / "crash"

# What each program has to print at the end; how it got there is its own business.
PROGRAMS = {
    "drop_everything_at_exit": "finally\nfinally\nfinally\n",
    "waits_in_atexit": "late\nearly\n",
    "destructors_that_wait": "done\n",
    "handlers_that_wait": "done\n",
    "switches_wildly": "done\n",
}


def test_every_program_is_in_the_table() -> None:
    assert {path.stem for path in CRASH.glob("*.py")} == set(PROGRAMS)


@pytest.mark.parametrize("fresh", ["0", "1"])
@pytest.mark.parametrize("name", PROGRAMS)
def test_program_ends_well(name: str, fresh: str) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", str(CRASH / f"{name}.py")],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
        env={**os.environ, "PYCORONET_FRESH_GREENLETS": fresh},
    )
    assert (done.returncode, done.stdout) == (0, PROGRAMS[name]), done.stderr
    assert "Fatal" not in done.stderr


def test_exit_is_bounded_when_a_task_swallows_every_cancel() -> None:
    # In virtual time: it passes in the pauses that such a task is made to take.
    program = """
    get_hub(backend="fake")
    sys.unraisablehook = lambda report: say("reported:", report.object.name)
    def refuse():
        while True:
            try: sleep(1)
            except BaseException: pass
    spawn(refuse).name = "deaf"
    sleep(0)
    say("end")
    """
    assert lines_of(program) == ["end", "reported: deaf"]


def test_exit_is_bounded_when_a_task_is_shielded_for_ever() -> None:
    # In virtual time the five seconds it gets are no time at all.
    program = """
    get_hub(backend="fake")
    def refuse():
        with shield():
            while True: sleep(1)
    spawn(refuse)
    sleep(0)
    say("end")
    """
    assert lines_of(program) == ["end"]


def test_coroutine_never_entered_does_not_delay_the_exit() -> None:
    program = """
    from pycoronet._coronet import co_create
    kept = co_create(print)
    sleep(0)
    started = time.monotonic()
    get_hub().close()
    say(time.monotonic() - started < 4)
    """
    assert lines_of(program) == ["True"]


def test_exit_with_the_main_program_cancelled() -> None:
    program = """
    def pending():
        try: sleep(60)
        finally: say("finally")
    spawn(pending)
    sleep(0)
    current().cancel()
    """
    assert lines_of(program) == ["finally"]


@pytest.mark.parametrize("files", [["test_task.py", "test_scope.py"], ["test_turn.py"]])
def test_the_tests_pass_with_fresh_greenlets_too(files: list[str]) -> None:
    folder = Path(__file__).resolve().parent
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
        + ["--deselect", "tests/unit/test_turn.py::test_spawn_and_join_need_few_switches"]
        + [str(folder / name) for name in files],
        capture_output=True,
        text=True,
        timeout=55,
        check=False,
        env={**os.environ, "PYCORONET_FRESH_GREENLETS": "1"},
    )
    assert done.returncode == 0, done.stdout
