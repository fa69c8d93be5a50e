"""What help() says of each public name: arguments, units, errors, switching, and the source.

The rules are those of CONTRIBUTING.md's "Comments". A docstring that says "as `other()`" has
the rest from that one. A source line stands at the end of a docstring, and covers what is in
the class or module, unless that has its own.
"""

from __future__ import annotations

import importlib
import inspect
import operator
import pkgutil
import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest
from kept import Kept
from public_methods import METHODS

import pycoronet
from pycoronet import Event, Hub, _coronet, conet, libreact, libsock, spawn

DOCS = Path(__file__).resolve().parents[2] / "docs"

SWITCHES = re.compile(
    r"\b(?:[Nn]ever switch(?:es)?|[Mm]ay switch|(?<!or )[Ss]witches|Must not switch)\b"
)
IS_AS_ANOTHER = re.compile(r"\b(?:[Tt]he same )?[Aa]s (?:for |in )?`?[\w.]+\(.*?\)")
IS_MADE_BY_ANOTHER = re.compile(r"\bmade by `\w+\(\)`")
SOURCE = re.compile(r"^Source: .+\.\Z", re.MULTILINE | re.DOTALL)
IN_SECONDS = {"timeout", "seconds", "latency", "handshake_timeout", "defer_accept"}
CANNOT_BE_MADE = 1 << 7  # Py_TPFLAGS_DISALLOW_INSTANTIATION


class Name(NamedTuple):
    """A public name, and where it is."""

    path: str
    thing: Any
    owner: type | None
    module: ModuleType

    @property
    def doc(self) -> str:
        return re.sub(r"(?<=\S)\n(?=\S)", " ", inspect.getdoc(self.thing) or "")

    @property
    def is_called(self) -> bool:
        return inspect.isroutine(self.thing) and not inspect.isdatadescriptor(self.thing)


def list_modules() -> Iterator[ModuleType]:
    """Return the modules that are for users."""
    yield pycoronet
    for info in pkgutil.walk_packages(pycoronet.__path__, "pycoronet."):
        if not re.search(r"\._", info.name):
            module = importlib.import_module(info.name)
            if hasattr(module, "__all__"):
                yield module


def is_own(type_: type) -> bool:
    return type_.__module__.startswith("pycoronet")


def list_names(modules: Iterator[ModuleType]) -> Iterator[Name]:
    """Return the functions and types, and the methods and attributes of each type, once each."""
    seen: set[int] = set()
    for module in modules:
        for name in module.__all__:
            thing = getattr(module, name)
            is_type = isinstance(thing, type)
            if id(thing) in seen or not (is_type or inspect.isroutine(thing)):
                continue
            seen.add(id(thing))
            if is_type and not is_own(thing):
                continue  # one of the standard library's, by its own name
            path = f"{module.__name__}.{name}"
            yield Name(path, thing, None, module)
            if is_type:
                yield from list_members(path, thing, module)


def list_members(path: str, type_: type, module: ModuleType) -> Iterator[Name]:
    for base in filter(is_own, type_.__mro__):
        for name, member in vars(base).items():
            inner = member.__func__ if isinstance(member, classmethod | staticmethod) else member
            is_member = inspect.isroutine(inner) or inspect.isdatadescriptor(inner)
            if not name.startswith("_") and is_member and vars(type_).get(name, member) is member:
                yield Name(f"{path}.{name}", inner, type_, module)


def find_faults(name: Name) -> Iterator[str]:
    """Say what is missing in the docstring of a name."""
    doc, thing = name.doc, name.thing
    if inspect.ismemberdescriptor(thing) and not doc:
        if not re.search(rf"\b{thing.__name__}\b", inspect.getdoc(name.owner) or ""):
            yield "is not in the docstring of its class"
        return
    if not doc or (isinstance(thing, type) and "__doc__" not in vars(thing)):
        yield "has no docstring"
        return
    first = doc.partition("\n\n")[0].replace("\n", " ")
    if not re.match(r"[A-Z`\"]", first) or not first.endswith((".", "::", ":")):
        yield "does not begin with a sentence"
    if not find_source(name):
        yield "names no source"
    if name.is_called and not SWITCHES.search(doc) and not is_property_like(name):
        yield "does not say whether it can switch"
    yield from find_faults_of_parameters(name)


def is_property_like(name: Name) -> bool:
    """Exceptions carry data, and their methods, if any, are of the interpreter."""
    return name.owner is not None and issubclass(name.owner, BaseException)


def find_source(name: Name) -> str:
    places = [name.doc, inspect.getdoc(name.owner) if name.owner else "", name.module.__doc__]
    return next((found[0] for doc in places if (found := SOURCE.search((doc or "").strip()))), "")


def find_faults_of_parameters(name: Name) -> Iterator[str]:
    thing, doc = name.thing, name.doc
    shared = name.module.__doc__ or ""
    if isinstance(thing, type):
        if thing.__flags__ & CANNOT_BE_MADE or issubclass(thing, BaseException):
            return
    elif not name.is_called:
        return
    try:
        signature = inspect.signature(thing)
    except (TypeError, ValueError):
        yield "has no signature"
        return
    kinds = inspect.Parameter
    parameters = [
        parameter
        for parameter in signature.parameters.values()
        if parameter.name not in ("self", "cls") and not parameter.name.startswith("_")
    ]
    if IS_AS_ANOTHER.search(doc) or IS_MADE_BY_ANOTHER.search(doc):
        return
    for parameter in parameters:
        is_rest = parameter.kind in (kinds.VAR_POSITIONAL, kinds.VAR_KEYWORD)
        is_told = re.search(rf"\b{parameter.name}\b", doc) or f"`{parameter.name}`" in shared
        if not is_rest and not is_told:
            yield f"does not say what {parameter.name} is"
        if parameter.name in IN_SECONDS and "second" not in doc:
            yield f"does not say the unit of {parameter.name}"
    if "Must not switch" in doc:
        return  # users write it, and its class says what becomes of what it raises
    if parameters and name.is_called and not re.search(r"[Rr]aise|Error\b", doc):
        yield "names no errors"


NAMES = list(list_names(list_modules()))


def test_names_are_found_in_all_places() -> None:
    paths = {name.path for name in NAMES}
    assert {
        "pycoronet.sk_conn.readln",
        "pycoronet.Pool.size",
        "pycoronet.conet.conet_read",
    } <= paths
    assert len(paths) == len(NAMES) > 500


@pytest.mark.parametrize("name", NAMES, ids=[name.path for name in NAMES])
def test_help_is_complete(name: Name) -> None:
    assert list(find_faults(name)) == []


def sample(doc: str, *, owner: type | None = None) -> Name:
    def function(timeout: float) -> None:
        raise AssertionError(timeout)

    function.__doc__ = doc
    return Name("sample", function, owner, pycoronet)


def test_help_that_lacks_something_is_found() -> None:
    whole = "Wait.\n\ntimeout: seconds. Raises OSError. Switches.\n\nSource: libevent's x."
    assert list(find_faults(sample(whole))) == []
    as_another = whole.replace("timeout: seconds. Raises OSError.", "As `join(5)`.")
    assert list(find_faults(sample(as_another))) == []
    for part, said, fault in [
        ("Wait.", "Wait", "does not begin with a sentence"),
        ("timeout:", "time:", "does not say what timeout is"),
        ("seconds", "long", "does not say the unit of timeout"),
        ("Raises OSError.", "", "names no errors"),
        ("Switches.", "It waits.", "does not say whether it can switch"),
        ("Source: libevent's x.", "", "names no source"),
    ]:
        assert list(find_faults(sample(whole.replace(part, said)))) == [fault]
    assert list(find_faults(sample(""))) == ["has no docstring"]


# The sources are real: they are in our modules of their names, in the pages for who comes from
# there, or in the standard library.


def list_sources() -> list[tuple[str, str]]:
    found = []
    for name in NAMES:
        source = find_source(name)
        found += [(name.path, word) for word in re.findall(r"\b\w+(?:[_.]\w+)+", source)]
    return found


def is_real(word: str) -> bool:
    if "." in word:
        return is_of_python(word)
    if word.startswith("on_"):
        return word in (libreact.__doc__ or "")
    for module, prefixes in (
        (conet, ("conet_", "co_")),
        (libsock, "sock_"),
        (libreact, "reactor_"),
    ):
        if word.startswith(prefixes):
            return word in module.__all__
    return any(is_on_page(word, page) for page in ("libevent-map.md", "cp-socket-map.md"))


def is_of_python(word: str) -> bool:
    if word == "queue.ShutDown":
        return True  # since Python 3.13
    module, _, rest = word.partition(".")
    try:
        operator.attrgetter(rest)(importlib.import_module(module))
    except AttributeError:
        return False
    return True


def is_on_page(word: str, page: str) -> bool:
    """Tell whether a map has the word, or its end: what all names there begin with is left out."""
    text = (DOCS / page).read_text("utf-8")
    parts = word.split("_")
    ends = ["_".join(parts[first:]) for first in range(len(parts))]
    return any(re.search(rf"(?<![a-z]){re.escape(end)}\b", text) for end in ends)


def test_sources_are_real() -> None:
    assert {path: word for path, word in list_sources() if not is_real(word)} == {}


@pytest.mark.parametrize(
    ("word", "is_one"),
    [
        ("conet_read", True),
        ("conet_reed", False),
        ("sock_touch", True),
        ("sock_feel", False),
        ("evbuffer_readln", True),
        ("evbuffer_sing", False),
        ("threading.Lock", True),
        ("threading.Look", False),
    ],
)
def test_sources_that_are_not_real_are_found(word: str, is_one: bool) -> None:
    assert is_real(word) == is_one


# "Never switches" is true: another task that is ready does not run meanwhile.


def never_switches(owner: str, method: str) -> bool:
    doc = inspect.getdoc(getattr(getattr(pycoronet, owner), method)) or ""
    return "ever switches" in doc and not re.search("(?<!ever )[Ss]witches", doc)


QUIET = [
    (owner, method)
    for owner, (_, calls) in METHODS.items()
    for method, call in calls.items()
    if isinstance(call, tuple) and never_switches(owner, method)
]


def test_quiet_methods_are_many() -> None:
    assert len(QUIET) > 60


def use_up_budget() -> None:
    """Have the next operation that counts give way: 256 have not had to wait."""
    event, ran = Event(), list[int]()
    event.set()
    spawn(ran.append, 1)
    while not ran:
        event.wait()
    for _ in range(0 if _coronet.HARD_MODE else 255):
        event.wait()


def runs_another(owner: str, method: str) -> bool:
    """Call a method; tell whether a task that is ready has run meanwhile."""
    maker, calls = METHODS[owner]
    call = calls[method]
    assert isinstance(call, tuple)
    ran: list[int] = []
    with ExitStack() as stack:
        it = maker(Kept(stack))
        use_up_budget()
        spawn(ran.append, 1)
        getattr(it, method)(*call)
        return bool(ran)


@pytest.mark.parametrize(("owner", "method"), QUIET, ids=[".".join(one) for one in QUIET])
def test_who_never_switches_never_does(owner: str, method: str, virtual_hub: Hub) -> None:
    assert not runs_another(owner, method)


def test_who_switches_is_seen(virtual_hub: Hub) -> None:
    assert runs_another("Task", "join")
