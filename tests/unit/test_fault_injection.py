"""Each system call can fail: that none is forgotten, and what was found by having them fail.

The whole of it is `make faults`; see tests/faults.
"""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from faults.errnos import CALLS, CANNOT_FAIL, ERRNOS
from faults.run import FOR_EVER, Runner, make_faults
from faults.scenarios import prepare
from platforms.symbols import read_symbols

import pycoronet
from pycoronet import _coronet

pytestmark = pytest.mark.linux_only

FOLDER = Path(__file__).resolve().parent.parent / "faults"

# Symbols of Python, and of what checks or measures a build.
_NOT_OURS = ("Py", "_Py", "PY_", "__asan", "__ubsan", "__tsan", "__gcov", "__sanitizer")


def imported() -> set[str]:
    """Return the functions that the extension has from others than Python."""
    wanted = read_symbols(Path(_coronet.__file__).read_bytes()).wanted
    return {name for name in wanted if not name.startswith(_NOT_OURS)}


@pytest.fixture(scope="session")
def interposer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the library that has calls fail."""
    if shutil.which("cc") is None:
        pytest.skip("needs a C compiler")
    if _coronet.HARD_MODE:
        pytest.skip("hard mode makes a million calls for each scenario")
    if pycoronet.get_hub().backend == "kqueue" or "LD_PRELOAD" in os.environ:
        pytest.skip("another library stands in for system calls already")
    folder = tmp_path_factory.mktemp("interposer")
    subprocess.run(["make", "-s", "-C", FOLDER, "interposer", f"BUILD={folder}"], check=True)
    return folder / "interpose.so"


@pytest.fixture
def judge(interposer: Path, tmp_path: Path) -> Callable[..., list[tuple[str, str]]]:
    """Return a function that runs a scenario with faults and returns the verdicts."""

    def run(scenario: str, *faults: dict[str, Any]) -> list[tuple[str, str]]:
        prepare(tmp_path)
        runner = Runner(tmp_path, interposer, scenario)
        return [(verdict, complaint) for _, verdict, complaint in runner.judge(list(faults))]

    return run


def fault(function: str, error: int, first: int = 0, **more: Any) -> dict[str, Any]:
    standard = {"origin": "extension", "count": 1, "limit": 0}
    return {**standard, "function": function, "error": error, "first": first, **more}


def test_every_function_that_is_imported_can_fail_or_has_a_reason() -> None:
    with pytest.raises(ValueError, match="epoll") as raised:
        pycoronet.get_hub(backend="none")
    if "kqueue" in str(raised.value):
        pytest.skip("the stand-in for kqueue has calls, too")
    unknown = {
        name
        for name in imported()
        if CALLS.get(name, name) not in ERRNOS.keys() | CANNOT_FAIL.keys()
    }
    assert unknown == set()


def test_what_cannot_fail_is_no_call_that_can() -> None:
    assert ERRNOS.keys() & CANNOT_FAIL.keys() == set()
    assert CALLS.keys() & ERRNOS.keys() == set()


def test_the_interposer_has_every_function_with_errnos(interposer: Path) -> None:
    exported = read_symbols(interposer.read_bytes()).exported
    assert ERRNOS.keys() - exported == set()
    assert CALLS.keys() - exported == set()


def test_a_file_that_is_not_ready_is_an_error_and_no_wait(judge: Any) -> None:
    # Of a file EAGAIN was taken to mean that the socket is full: that was waited for, for ever.
    assert judge("sendfile", fault("pread", errno.EAGAIN)) == [("raised", "")]


def test_callbacks_that_receive_are_told_if_nobody_knows_what_is_unread(judge: Any) -> None:
    # FIONREAD failed after a hang-up, and neither the rest nor the end was ever told.
    assert judge("questions", fault("ioctl", errno.ENOTTY)) == [("raised", "")]


def test_an_error_that_ends_accepting_is_told_without_serve_forever(judge: Any) -> None:
    # A server that start() began stopped in silence.
    broken = fault("accept4", errno.EBADF, count=FOR_EVER)
    assert judge("server_of_coroutines", broken) == [("raised", "")]


def test_a_server_stops_though_its_spare_descriptor_does_not_close(judge: Any) -> None:
    # stop() was left by the error, and who waited for it waited for ever.
    broken = fault("close", errno.EIO, origin="python")
    assert judge("server_of_coroutines", broken) == [("hidden", "")]


def test_a_hub_closes_though_its_engine_has_failed_once(judge: Any) -> None:
    # The loop ended with the error, and with it the parent of idle workers: close() computed
    # without end.
    verdicts = judge("accept_loop", *(fault("epoll_wait", errno.EINVAL, at) for at in (13, 14, 15)))
    assert {verdict for verdict, _ in verdicts} <= {"raised", "hidden", "missed"}


def test_a_hub_closes_though_its_engine_fails_each_time(judge: Any) -> None:
    # It was tried again for five seconds, with a report each time.
    broken = fault("epoll_wait", errno.EINVAL, count=FOR_EVER)
    assert judge("accept_loop", broken) == [("raised", "")]


def test_a_server_that_cannot_start_leaves_no_threads(judge: Any) -> None:
    # Those of the pool stayed for ever.
    assert judge("server_of_threads", fault("fstat", errno.EIO)) == [("raised", "")]


def test_a_server_ends_though_its_listeners_do_not_close(judge: Any) -> None:
    # The error was raised in the middle of the end: threads stayed.
    broken = fault("close", errno.EIO, count=FOR_EVER)
    assert judge("server_of_threads", broken) == [("raised", "")]


def test_communicate_raises_what_fails_first(judge: Any) -> None:
    # It waited for the output of a program that waited for the rest of its input.
    assert judge("programs", fault("epoll_ctl", errno.ENOSPC, 1)) == [("raised", "")]


def test_signals_that_cannot_be_read_are_no_busy_loop(judge: Any) -> None:
    # The pipe was watched by level: each wait ended at once.
    broken = fault("read", errno.EIO, count=FOR_EVER)
    assert judge("signals", broken) == [("hidden", "")]


def test_calls_that_fail_are_raised_or_mended(interposer: Path, tmp_path: Path) -> None:
    prepare(tmp_path)
    runner = Runner(tmp_path, interposer, "echo_over_unix")
    faults = list(make_faults(runner.count(), every=False))[::9]
    verdicts = [(verdict, complaint) for _, verdict, complaint in runner.judge(faults)]
    assert {verdict for verdict, _ in verdicts} >= {"raised", "hidden"}
    assert [complaint for verdict, complaint in verdicts if verdict == "failed"] == []


def at_each(function: str, error: int, places: int) -> list[dict[str, Any]]:
    """Return faults of so many calls, one after another."""
    return [fault(function, error, place) for place in range(places)]


@pytest.mark.parametrize(
    ("scenario", "faults"),
    [
        (
            "signals",
            [
                *at_each("epoll_create1", errno.EMFILE, 1),
                *at_each("eventfd", errno.EMFILE, 1),
                *at_each("epoll_ctl", errno.ENOSPC, 2),
                *at_each("fcntl", errno.EBADF, 2),
            ],
        ),
        (
            "questions",
            [
                *at_each("fcntl", errno.EBADF, 12),
                *at_each("epoll_ctl", errno.ENOSPC, 4),
                *at_each("epoll_wait", errno.EINVAL, 1),
                *at_each("getsockopt", errno.ENOPROTOOPT, 3),
            ],
        ),
        ("pipes", [*at_each("fcntl", errno.EBADF, 9), *at_each("epoll_ctl", errno.ENOSPC, 3)]),
        ("echo_over_tcp", at_each("fstat", errno.EIO, 2)),
    ],
)
def test_the_first_calls_that_fail_are_raised_or_mended(
    judge: Any, scenario: str, faults: list[dict[str, Any]]
) -> None:
    verdicts = judge(scenario, *faults)
    assert {verdict for verdict, _ in verdicts} <= {"raised", "hidden"}, verdicts
