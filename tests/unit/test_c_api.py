"""The C API: other extensions wait as coroutines wait. c_api/probe.c calls each function."""

from __future__ import annotations

import gc
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from c_api_case import STRICT, find_compiler, include_flags, run
from connections import attempt

import pycoronet
from pycoronet import (
    HANGUP,
    PRIORITY,
    READ,
    WRITE,
    BusyError,
    Cancelled,
    ClosedError,
    _coronet,
    current,
    get_hub,
    sk_conn,
    sleep,
    spawn,
    timeout,
)

SECOND = 1_000_000_000
HEADER = Path(pycoronet.get_include()) / "pycoronet.h"


@pytest.fixture(autouse=True)
def bounded(virtual_hub: object) -> Iterator[None]:
    """See to it that a test which fails does not hang."""
    with timeout(3600):
        yield


# --- Importing --------------------------------------------------------------------------


def test_import_finds_the_table_again_and_again(probe: Any) -> None:
    assert probe.import_() is None
    assert probe.import_() is None


@pytest.mark.parametrize(
    ("abi_version", "more", "advice"),
    [
        (2, 0, "rebuild the extension"),
        (2, -8, "rebuild the extension"),
        (0, 0, "install a newer pycoronet"),
        (1, -8, "install a newer pycoronet"),
    ],
)
def test_import_of_another_version_says_what_to_do(
    probe: Any, monkeypatch: pytest.MonkeyPatch, abi_version: int, more: int, advice: str
) -> None:
    size = probe.table_size() + more
    monkeypatch.setattr(_coronet, "_C_API", probe.table(abi_version, size))
    with pytest.raises(ImportError, match=rf"version {abi_version} \({size} bytes\): {advice}$"):
        probe.import_()
    with pytest.raises(ImportError, match=advice):  # nor does it work by some other call
        probe.now_ns()
    monkeypatch.undo()
    assert probe.import_() is None


def test_import_of_a_longer_table_is_fine(probe: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_coronet, "_C_API", probe.table(1, probe.table_size() + 64))
    assert probe.import_() is None
    monkeypatch.undo()
    assert probe.import_() is None


@pytest.mark.parametrize("calls", ["without", "with another thing"])
def test_import_without_the_capsule_says_what_to_do(
    probe: Any, monkeypatch: pytest.MonkeyPatch, calls: str
) -> None:
    if calls == "without":
        monkeypatch.delattr(_coronet, "_C_API")
    else:
        monkeypatch.setattr(_coronet, "_C_API", object())
    with pytest.raises(ImportError, match="install a newer pycoronet"):
        probe.import_()
    with pytest.raises(ImportError):
        probe.waiter_new()
    monkeypatch.undo()
    assert probe.import_() is None


def test_import_without_pycoronet_is_the_usual_error(
    probe: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pycoronet._coronet", None)
    with pytest.raises(ModuleNotFoundError, match="pycoronet"):
        probe.import_()
    for call in (probe.now_ns, probe.current_task, probe.deadline_after, probe.park, probe.wake):
        with pytest.raises(ModuleNotFoundError):
            call()
    for call, arguments in ((probe.wait_fd, (0, READ)), (probe.notify_closing, (0,))):
        with pytest.raises(ModuleNotFoundError):
            call(*arguments)
    monkeypatch.undo()
    assert probe.import_() is None


def test_include_folder_has_the_header() -> None:
    assert Path(pycoronet.get_include()).is_absolute()
    assert re.search(r"#define PYCORONET_ABI_VERSION 1\n", HEADER.read_text())


@pytest.mark.parametrize(
    ("variable", "flags"),
    [
        ("CC", ["-xc", "-std=c99", "-pedantic"]),
        ("CC", ["-xc", "-std=c11", "-DPy_LIMITED_API=0x030A0000"]),
        ("CXX", ["-xc++", "-std=c++11"]),
    ],
)
def test_header_compiles_without_a_warning(variable: str, flags: list[str], tmp_path: Path) -> None:
    compiler = find_compiler(variable)
    source = tmp_path / "user"
    names = re.findall(r"^(pycoronet_\w+)\(", HEADER.read_text(), re.MULTILINE)
    assert len(names) == 9
    uses = "".join(f"    (void)&{name};\n" for name in names)
    headers = "#include <Python.h>\n#include <pycoronet.h>\n"
    source.write_text(f"{headers}void use(void);\nvoid use(void)\n{{\n{uses}}}\n")
    run([*compiler, *STRICT, *flags, *include_flags(), "-c", source, "-o", tmp_path / "user.o"])


# --- Clock and deadlines ----------------------------------------------------------------


def test_time_is_the_hubs(probe: Any) -> None:
    before = probe.now_ns()
    assert before == round(get_hub().time * SECOND)
    sleep(5)
    assert probe.now_ns() - before >= 5 * SECOND


def test_deadline_is_so_much_after_now(probe: Any) -> None:
    now = probe.now_ns()
    assert probe.deadline_after(2) == now + 2 * SECOND
    assert probe.deadline_after(0) == now
    assert probe.deadline_after(1e-9) == now + 1
    never = 2**63 - 1
    assert probe.deadline_after() == probe.deadline_after(None) == never
    assert probe.deadline_after(float("inf")) == never
    assert probe.deadline_after(1e300) < never  # a year is as long as it gets


@pytest.mark.parametrize(
    ("seconds", "error"),
    [(-1, ValueError), (float("nan"), ValueError), ("1", TypeError), (-(10**400), ValueError)],
)
def test_deadline_of_something_else_is_refused(
    probe: Any, seconds: Any, error: type[Exception]
) -> None:
    with pytest.raises(error, match="timeout must"):
        probe.deadline_after(seconds)


# --- Descriptors ------------------------------------------------------------------------


def test_wait_fd_returns_what_is_ready(probe: Any, pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    assert probe.wait_fd(writer, WRITE) == WRITE
    task = spawn(probe.wait_fd, reader, READ | PRIORITY)
    sleep(1)
    assert not task.done
    os.write(writer, b"x")
    assert task.get() == READ


def test_wait_fd_tells_a_hang_up(probe: Any, pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    task = spawn(probe.wait_fd, reader, READ)
    sleep(0)
    os.close(writer)
    assert task.get() & (READ | HANGUP)


def test_wait_fd_ends_at_its_deadline(probe: Any, pipe: tuple[int, int]) -> None:
    began = probe.now_ns()
    for delay in (3, 0):
        with pytest.raises(TimeoutError, match="wait_fd timed out"):
            probe.wait_fd(pipe[0], READ, probe.now_ns() + delay * SECOND)
    assert 3 * SECOND <= probe.now_ns() - began < 4 * SECOND
    with pytest.raises(TimeoutError):
        probe.wait_fd(pipe[0], READ, 0)  # long past
    os.write(pipe[1], b"x")
    assert probe.wait_fd(pipe[0], READ, 0) == READ


def test_wait_fd_far_deadline_counts_as_a_year(probe: Any, pipe: tuple[int, int]) -> None:
    task = spawn(probe.wait_fd, pipe[0], READ, 2**63 - 2)
    sleep(3000)
    assert not task.done
    task.cancel()


def test_wait_fd_is_cancelled(probe: Any, pipe: tuple[int, int]) -> None:
    task = spawn(probe.wait_fd, pipe[0], READ)
    sleep(0)
    task.cancel("enough")
    with pytest.raises(Cancelled):
        task.get()
    with pytest.raises(TimeoutError), timeout(1):
        probe.wait_fd(pipe[0], READ)


def test_wait_fd_bad_arguments_are_refused(probe: Any, pipe: tuple[int, int]) -> None:
    for events in (0, HANGUP, 8, -1, 1 << 20):
        with pytest.raises(ValueError, match="events must be READ, WRITE or PRIORITY"):
            probe.wait_fd(pipe[0], events)
    with pytest.raises(ValueError, match="deadline_ns must not be negative"):
        probe.wait_fd(pipe[0], READ, -1)
    for fd in (-1, 1_000_000):
        with pytest.raises(OSError, match=os.strerror(9)):
            probe.wait_fd(fd, READ)


def test_wait_fd_of_a_regular_file_is_refused(probe: Any, tmp_path: Path) -> None:
    with (tmp_path / "file").open("wb") as file, pytest.raises(ValueError, match="regular file"):
        probe.wait_fd(file.fileno(), WRITE, 0)


def test_wait_fd_of_two_is_busy(probe: Any, pipe: tuple[int, int]) -> None:
    task = spawn(probe.wait_fd, pipe[0], READ)
    task.name = "first"
    sleep(0)
    with pytest.raises(BusyError, match="'first' waits for descriptor"):
        probe.wait_fd(pipe[0], READ)
    task.cancel()


def test_wait_fd_of_a_connection_uses_what_it_has(probe: Any, ends: Any) -> None:
    left, right = ends.pair()
    task = spawn(probe.wait_fd, left.fileno(), READ)
    sleep(0)
    right.send(b"line\nmore")
    assert task.get() == READ
    assert left.readln() == b"line\n"
    assert probe.wait_fd(left.fileno(), READ) == READ  # "more" is in the buffer
    assert isinstance(left, sk_conn)


def test_notify_closing_ends_the_wait(probe: Any, pipe: tuple[int, int]) -> None:
    task = spawn(probe.wait_fd, pipe[0], READ)
    sleep(0)
    probe.notify_closing(pipe[0])
    with pytest.raises(ClosedError):
        task.get()
    probe.notify_closing(pipe[0])  # nobody waits
    probe.notify_closing(-1)


# --- Tasks ------------------------------------------------------------------------------


def test_current_task_is_the_one_that_runs(probe: Any) -> None:
    assert probe.current_task() is current()
    task = spawn(probe.current_task)
    assert task.get() is task


def test_current_task_in_a_callback_is_none(probe: Any) -> None:
    seen: list[Any] = []
    get_hub().call_soon(lambda: seen.append(probe.current_task()))
    sleep(0)
    assert seen == [None]


# --- Parking ----------------------------------------------------------------------------


def test_park_ends_when_it_is_woken(probe: Any) -> None:
    waiter = probe.waiter_new()
    task = spawn(probe.park, waiter)
    sleep(1)
    assert not task.done
    assert "waiting in probe.wait" in repr(task)
    probe.wake(waiter)
    assert task.get() is None


def test_wake_before_park_is_kept_once(probe: Any) -> None:
    waiter = probe.waiter_new()
    probe.wake(waiter)
    probe.wake(waiter)
    probe.park(waiter)
    with pytest.raises(TimeoutError, match=r"probe\.wait timed out"):
        probe.park(waiter, 0)


def test_wake_lets_go_who_waits_longest(probe: Any) -> None:
    waiter = probe.waiter_new()
    ended: list[int] = []

    def wait(number: int) -> None:
        probe.park(waiter)
        ended.append(number)

    for number in range(3):
        spawn(wait, number)
        sleep(0)
    for count in range(3):
        probe.wake(waiter)
        sleep(0)
        assert ended == list(range(count + 1))
    with pytest.raises(TimeoutError):
        probe.park(waiter, 0)  # all three were taken


def test_park_ends_at_its_deadline_and_a_late_wake_is_kept(probe: Any) -> None:
    waiter = probe.waiter_new()
    began = probe.now_ns()
    with pytest.raises(TimeoutError) as caught:
        probe.park(waiter, probe.deadline_after(2))
    assert 2 * SECOND <= probe.now_ns() - began < 3 * SECOND
    assert caught.value.errno is not None
    probe.wake(waiter)
    probe.park(waiter, 0)


def test_park_is_cancelled(probe: Any) -> None:
    waiter = probe.waiter_new()
    task = spawn(probe.park, waiter)
    sleep(0)
    task.cancel()
    with pytest.raises(Cancelled):
        task.get()
    with pytest.raises(TimeoutError), timeout(1):
        probe.park(waiter)


def test_wake_of_one_who_raises_goes_to_the_next(probe: Any) -> None:
    # Woken first, and the exception comes before it runs: the wake is not lost.
    waiter = probe.waiter_new()
    seen: list[object] = []

    def wait_in_main() -> None:
        get_hub().call_soon(probe.wake, waiter)
        get_hub().call_soon(interrupt)
        probe.park(waiter)

    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        wait_in_main()
    spawn(lambda: seen.append(attempt(probe.park, waiter, 0))).join()
    assert seen == [None]


def test_park_with_a_wake_counts_as_an_operation(probe: Any) -> None:
    # So two that always have a wake do not keep the others from running.
    waiter = probe.waiter_new()
    turns: list[int] = []
    ticker = spawn(lambda: [turns.append(sleep(0) or 1) for _ in range(100)])
    for _ in range(2000):
        probe.wake(waiter)
        probe.park(waiter)
    assert turns
    ticker.cancel()


def test_wake_is_given_back_if_giving_way_raises(probe: Any) -> None:
    waiter = probe.waiter_new()

    def run() -> int:
        current().cancel()
        for count in range(2000):
            probe.wake(waiter)
            try:
                probe.park(waiter)
            except Cancelled:
                return count
        return -1

    assert spawn(run).get() >= 0
    probe.park(waiter, 0)


def test_waiter_that_its_owner_lets_go_of_lives_while_somebody_parks(probe: Any) -> None:
    task = spawn(attempt, probe.park_alone)
    sleep(0)
    probe.let_go()
    gc.collect()
    others = [probe.waiter_new() for _ in range(10)]  # would have its place
    assert str(task.get()).endswith("probe.alone timed out")
    assert len(others) == 10


@pytest.mark.parametrize("thing", [(), (None,), (5,), (object(),), (type,)])
def test_park_and_wake_want_a_waiter(probe: Any, thing: tuple[object, ...]) -> None:
    for call in (probe.park, probe.wake):
        with pytest.raises(TypeError, match="a waiter of pycoronet_waiter_new"):
            call(*thing)


def test_park_negative_deadline_is_refused(probe: Any) -> None:
    waiter = probe.waiter_new()
    with pytest.raises(ValueError, match="PYCORONET_NEVER"):
        probe.park(waiter, -1)
    probe.wake(waiter)
    with pytest.raises(ValueError, match="PYCORONET_NEVER"):
        probe.park(waiter, -1)
    probe.park(waiter, 0)  # the wake was not taken


def test_waiter_is_made_by_extensions_alone(probe: Any) -> None:
    waiter = probe.waiter_new("unnamed")
    with pytest.raises(TypeError, match="cannot create"):
        type(waiter)()
    with pytest.raises(TimeoutError, match="park timed out"):
        probe.park(waiter, 0)


# --- Where nobody may wait --------------------------------------------------------------


def test_wait_in_a_callback_is_refused(probe: Any, pipe: tuple[int, int]) -> None:
    waiter, seen = probe.waiter_new(), []

    def call() -> None:
        seen.append(attempt(probe.park, waiter))
        seen.append(attempt(probe.wait_fd, pipe[0], READ))
        probe.wake(waiter)
        seen.append(attempt(probe.park, waiter))  # need not wait

    get_hub().call_soon(call)
    sleep(0)
    assert ["hub callback cannot" in str(error) for error in seen] == [True, True, False]
    assert seen[2] is None


def test_hub_that_closes_cancels_and_the_next_one_serves(probe: Any) -> None:
    waiter = probe.waiter_new()
    task = spawn(probe.park, waiter)
    sleep(0)
    get_hub().close()
    assert isinstance(task.exception, Cancelled)
    get_hub(backend="fake")
    probe.wake(waiter)  # nobody of the old hub is on its list
    probe.park(waiter, 0)
    get_hub().close()
