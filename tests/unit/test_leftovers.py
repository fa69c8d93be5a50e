"""nothing_left_behind(): what it finds, and what it leaves alone; as a fixture of pytest too."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from typing import Any

import pytest

import pycoronet
from pycoronet import get_hub, once, sk_conn, sleep, spawn
from pycoronet.testing import nothing_left_behind, pair, virtual_time

pytest_plugins = ["pytester"]


@pytest.fixture(autouse=True)
def own_hub() -> Iterator[None]:
    """Give each test a hub of its own, in real time."""
    get_hub().close()
    yield
    get_hub().close()


def leaves(text: str) -> Any:
    """Expect that leaving the block fails with a text."""
    return pytest.raises(AssertionError, match=text)


# --- The context manager --------------------------------------------------------------------------


def test_nothing_is_left_by_what_cleans_up() -> None:
    with nothing_left_behind():
        task = spawn(sleep, 0.001)
        with pair() as (left, right):
            left.write(b"x")
            assert right.recv(1) == b"x"
        get_hub().call_later(1000, print).cancel()
        task.join()


def test_a_task_is_found() -> None:
    with leaves("task <Task 'wait_for_ever"), nothing_left_behind():
        task = spawn(wait_for_ever)
    task.cancel()


def wait_for_ever() -> None:
    sleep(None)


def test_what_is_about_to_end_may_do_so() -> None:
    with nothing_left_behind():
        spawn(sleep, 0)
        spawn(wait_for_ever).cancel()
        left, right = socket.socketpair()
        sk_conn(left).close()
        right.close()


@pytest.mark.parametrize("kind", ["timer", "once"])
def test_what_is_to_be_called_is_found(kind: str) -> None:
    left, right = socket.socketpair()
    with left, right:
        with leaves("to be called: "), nothing_left_behind():
            if kind == "timer":
                handle: Any = get_hub().call_later(1000, print)
            else:
                handle = once(left, pycoronet.READ, print)
        handle.cancel()


def test_a_descriptor_is_found_and_described() -> None:
    with leaves("descriptor [0-9]+: .*"), nothing_left_behind():
        ends = os.pipe()
    for fd in ends:
        os.close(fd)


def test_a_connection_is_found_by_its_name() -> None:
    left, right = socket.socketpair()
    with right, leaves("left behind: .*<sk_conn fd="), nothing_left_behind():
        conn = sk_conn(left.dup())
    left.close()
    conn.close()


def test_what_was_there_before_is_no_leftover() -> None:
    task = spawn(wait_for_ever)
    handle = get_hub().call_later(1000, print)
    left, right = socket.socketpair()
    with left, right, nothing_left_behind():
        sleep(0)
    handle.cancel()
    task.cancel()


def test_a_number_that_was_closed_and_used_again_is_found() -> None:
    before = socket.socket()
    number = before.fileno()
    with leaves(f"descriptor {number}"), nothing_left_behind():
        before.close()
        after = socket.socket()
        assert after.fileno() == number
    after.close()


def test_what_nobody_refers_to_is_collected() -> None:
    with nothing_left_behind():
        cycle: list[Any] = [socket.socketpair()]
        cycle.append(cycle)
        for end in cycle[0]:
            end.close()
        del cycle


@pytest.mark.parametrize("kind", ["tasks", "timers", "descriptors"])
def test_each_kind_can_be_left_out(kind: str) -> None:
    left, right = socket.socketpair()
    with nothing_left_behind(**{kind: False}):
        kept: Any = None
        if kind == "tasks":
            kept = spawn(wait_for_ever)
        elif kind == "timers":
            kept = get_hub().call_later(1000, print)
        else:
            kept = left.dup()
    (kept.close if kind == "descriptors" else kept.cancel)()
    left.close()
    right.close()


def test_virtual_time_inside_is_looked_at_before_it_ends() -> None:
    with leaves("task <Task 'wait_for_ever"), nothing_left_behind(), virtual_time():
        spawn(wait_for_ever)
        sleep(1)
    with nothing_left_behind(), virtual_time():
        spawn(sleep, 5).join()


def test_virtual_time_outside() -> None:
    with virtual_time(), leaves("task"), nothing_left_behind():
        task = spawn(sleep, 1000)
    task.cancel()


def test_a_hub_of_its_own_is_no_leftover() -> None:
    with nothing_left_behind():
        get_hub().close()
        sleep(0)


def test_what_the_block_raises_comes_out() -> None:
    with pytest.raises(ZeroDivisionError), nothing_left_behind():
        task = spawn(wait_for_ever)
        raise ZeroDivisionError
    task.cancel()


# --- The fixture ----------------------------------------------------------------------------------

LEAKY = """
    import pytest
    from pycoronet import spawn, sleep, get_hub

    kept = []

    @pytest.fixture(scope="session")
    def wide():
        with open(__file__):
            yield

    @pytest.fixture
    def late():
        task = spawn(sleep, 1000)
        yield
        task.cancel()

    def leave():
        kept.append(get_hub().call_later(1000, print))
"""


def run(pytester: pytest.Pytester, code: str, *arguments: str, ini: str = "") -> pytest.RunResult:
    pytester.makepyfile(LEAKY + code)
    pytester.makeini("[pytest]\n" + ini)
    # In a process of its own: it finds the plugin by itself.
    return pytester.runpytest_subprocess("-p", "no:cacheprovider", *arguments, timeout=60)


def test_by_name_by_marker_and_not_at_all(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        """
    def test_nobody_asked():
        leave()

    def test_by_name(late, wide, nothing_left_behind):
        leave()

    def test_by_name_and_clean(late, nothing_left_behind, wide):
        pass

    @pytest.mark.nothing_left_behind
    def test_by_marker(late):
        leave()

    @pytest.mark.nothing_left_behind(timers=False)
    def test_of_tasks_alone():
        leave()

    @pytest.mark.nothing_left_behind
    def test_failed():
        leave()
        assert False
""",
    )
    result.assert_outcomes(passed=5, failed=1, errors=2)
    result.stdout.fnmatch_lines(["*left behind: to be called: <*"])
    result.stdout.fnmatch_lines(["ERROR *test_by_name *", "ERROR *test_by_marker *"])


def test_for_all_tests(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        """
    def test_leaks():
        kept.append(spawn(sleep, 1000))

    @pytest.mark.parametrize("number", [1, 2])
    def test_is_clean(late, wide, number):
        sleep(0)

    class TestInAClass:
        def test_leaks(self):
            kept.append(open(__file__))

    @pytest.mark.nothing_left_behind(descriptors=False)
    def test_may_keep_files():
        kept.append(open(__file__))
""",
        ini="pycoronet_nothing_left_behind = true",
    )
    result.assert_outcomes(passed=5, errors=2)


def test_who_does_not_ask_is_not_disturbed(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import sys
        import pycoronet

        def test_it():
            assert "pycoronet.testing" not in sys.modules
            assert not pycoronet._coronet._hub_exists()
        """
    )
    result = pytester.runpytest_subprocess("--setup-show", "--strict-markers", timeout=60)
    result.assert_outcomes(passed=1)
    result.stdout.no_fnmatch_line("*nothing_left_behind*")
