"""Every public name, when it does well and when it fails, leaves no reference and no memory.

public_calls.py and public_methods.py have how each is called. A name that is not there fails
the first test, so nobody can add one and forget it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from functools import partial
from typing import Any

import pytest
from kept import Kept, nothing
from leak_case import check_few_rounds
from public_calls import CALLS
from public_methods import METHODS

import pycoronet
from pycoronet import Cancelled, get_hub, sleep, spawn, timeout

pytestmark = pytest.mark.leaks

# Of the special methods, those that a user calls by what stands for them.
SPECIAL = ("__await__", "__call__", "__enter__", "__exit__", "__iter__", "__len__", "__next__")


class Wrong:
    """The argument that nothing takes."""


WRONG = Wrong()
ENDS = ("close", "abort", "cancel", "shutdown")


@pytest.fixture(autouse=True)
def _virtual_hubs(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Have every hub be virtual, the one that comes after Hub.close() too, and be quiet."""
    monkeypatch.setattr(sys, "unraisablehook", lambda report: None)
    get_hub().close()
    monkeypatch.setenv("PYCORONET_ENGINE", "fake")
    yield
    get_hub().close()


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Have what is cancelled in a thread wait for the one before: none is started later on."""
    limits = pycoronet.get_thread_limits()
    pycoronet.set_thread_limits(calls=1, names=1)
    yield
    pycoronet.set_thread_limits(**limits)


def is_own(kind: type, name: str) -> bool:
    inherited = dir(BaseException) if issubclass(kind, BaseException) else dir(object)
    return name not in inherited and (not name.startswith("_") or name in SPECIAL)


def list_names() -> Iterator[tuple[str, str]]:
    """Give (name, "") for what is callable, (type, name) for what types have."""
    for name in pycoronet.__all__:
        value = getattr(pycoronet, name)
        if not callable(value):
            continue
        yield name, ""
        if isinstance(value, type):
            for attribute in dir(value):
                if is_own(value, attribute):
                    yield name, attribute


NAMES = list(list_names())


def is_method(owner: str, name: str) -> bool:
    return callable(getattr(getattr(pycoronet, owner), name))


def has_case(owner: str, name: str) -> bool:
    if not name:
        return owner in CALLS
    if issubclass(getattr(pycoronet, owner), BaseException):
        return True  # ordinary attributes of an object written in Python
    return owner in METHODS and (not is_method(owner, name) or name in METHODS[owner][1])


def test_every_public_name_has_a_case() -> None:
    assert [f"{owner}.{name}" for owner, name in NAMES if not has_case(owner, name)] == []
    known = {(owner, name) for owner in METHODS for name in METHODS[owner][1]}
    assert known | {(owner, "") for owner in CALLS} <= set(NAMES)


def make(kept: Kept, owner: str, name: str) -> tuple[Any, Any, Any]:
    """Return an object, or None for a function; what is called; and its case."""
    if not name:
        return None, getattr(pycoronet, owner), CALLS[owner]
    maker, calls = METHODS[owner]
    it = maker(kept)
    return it, getattr(it, name), calls[name]


def call_well(kept: Kept, owner: str, name: str, *, after: str | None = None) -> None:
    """Call as the table says; after: on an object that has been ended so."""
    it, function, case = make(kept, owner, name)
    if after is not None:
        getattr(it, after)()
    if callable(case):
        case(kept if it is None else it)
    else:
        function(*case)


def set_attribute(owner: str, name: str, *values: object, after: str | None = None) -> None:
    """Read, set and delete an attribute of a new object, as far as it lets itself be."""
    with ExitStack() as stack:
        it = METHODS[owner][0](Kept(stack))
        if after is not None:
            getattr(it, after)()
        for value in values or (getattr(it, name),):
            with suppress(AttributeError, TypeError, ValueError, RuntimeError, OSError):
                setattr(it, name, value)
        with suppress(AttributeError, TypeError, RuntimeError):
            delattr(it, name)


def do_well(owner: str, name: str) -> None:
    with ExitStack() as stack:
        call_well(Kept(stack), owner, name)


def attempt(function: Callable[..., object], *arguments: object, **keywords: object) -> None:
    """Call, whatever comes of it."""
    with suppress(Exception, Cancelled):
        function(*arguments, **keywords)


def take_wrong_arguments(owner: str, name: str) -> None:
    for arguments in ((WRONG,), (WRONG, WRONG), (WRONG,) * 3, (None,) * 12):
        with ExitStack() as stack:
            _, function, _ = make(Kept(stack), owner, name)
            attempt(function, *arguments)
    with ExitStack() as stack:
        _, function, _ = make(Kept(stack), owner, name)
        attempt(function, nonsense=WRONG)


def find_end(owner: str) -> str | None:
    """Return the method that ends an object of a type, if there is one."""
    kind = getattr(pycoronet, owner)
    return next((end for end in ENDS if callable(getattr(kind, end, None))), None)


def meet_what_has_ended(owner: str, name: str) -> None:
    end = find_end(owner)
    if name and end is not None:
        with ExitStack() as stack:
            attempt(call_well, Kept(stack), owner, name, after=end)


def call_what_raises(owner: str, name: str) -> None:
    nothing.raises = True
    try:
        attempt(do_well, owner, name)
        sleep(0)
    finally:
        nothing.raises = False


def be_cancelled(owner: str, name: str) -> None:
    task = spawn(attempt, do_well, owner, name)
    sleep(0)
    task.cancel()
    task.join()


def be_out_of_time(owner: str, name: str) -> None:
    def work() -> None:
        with timeout(0):
            do_well(owner, name)

    attempt(work)


WAYS = (
    take_wrong_arguments,
    meet_what_has_ended,
    call_what_raises,
    be_cancelled,
    be_out_of_time,
)
CALLABLES = [(o, n) for o, n in NAMES if not n or (o in METHODS and n in METHODS[o][1])]
ATTRIBUTES = [(o, n) for o, n in NAMES if n and o in METHODS and n not in METHODS[o][1]]


def name_id(value: tuple[str, str]) -> str:
    return ".".join(filter(None, value))


@pytest.mark.parametrize("names", CALLABLES, ids=name_id)
def test_what_does_well_leaves_nothing(names: tuple[str, str]) -> None:
    check_few_rounds(partial(do_well, *names))


@pytest.mark.parametrize("names", CALLABLES, ids=name_id)
def test_what_fails_leaves_nothing(names: tuple[str, str]) -> None:
    def each() -> None:
        for way in WAYS:
            way(*names)

    check_few_rounds(each)


@pytest.mark.parametrize("names", ATTRIBUTES, ids=name_id)
def test_attributes_leave_nothing(names: tuple[str, str]) -> None:
    end = find_end(names[0])

    def each() -> None:
        set_attribute(*names)
        set_attribute(*names, WRONG, None, -1, -1.5)
        if end is not None:
            attempt(set_attribute, *names, after=end)

    check_few_rounds(each)
