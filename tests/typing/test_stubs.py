"""The stub of the C module names what the module has, and nothing else.

The signatures are compared too, as far as the module's docstrings tell them. Whether the
types are right is for mypy and stubtest, which `make lint` runs.
"""

from __future__ import annotations

import ast
import inspect
import re
import signal
import socket
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import pycoronet
from pycoronet import _coronet, conet

STUB = Path(pycoronet.__file__).with_name("_coronet.pyi")

# What Python adds to every module and every type.
OF_EVERY_MODULE = set(vars(ModuleType("empty"))) | {"__file__"}
OF_DEBUG_BUILDS = {"live_counts"}
# A type has its annotations from when somebody first asks for them, such as staticmethod().
OF_EVERY_TYPE = set(vars(object)) | {"__module__", "__weakref__", "__annotations__"}

Names = dict[str, list[ast.AST]]


def names_of(body: list[ast.stmt]) -> Names:
    """Return what a stub's body defines, overloads together; private helpers are not."""
    names: Names = {}
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.setdefault(node.name, []).append(node)
        elif isinstance(node, ast.AnnAssign) and ast.unparse(node.annotation) != "TypeAlias":
            names.setdefault(ast.unparse(node.target), []).append(node)
    return names


@pytest.fixture(scope="module")
def stub() -> Names:
    """Return the names of the stub."""
    files = (STUB, STUB.with_name("_coronet_sync.pyi"))
    names = names_of([node for file in files for node in ast.parse(file.read_text("utf-8")).body])
    # A protocol is there for the annotations only.
    return {name: nodes for name, nodes in names.items() if not is_protocol(nodes[0])}


def is_protocol(node: ast.AST) -> bool:
    return isinstance(node, ast.ClassDef) and any(
        isinstance(base, ast.Name) and base.id == "Protocol" for base in node.bases
    )


def module_types() -> list[type]:
    things = vars(_coronet).values()
    return [it for it in things if isinstance(it, type) and it.__module__.startswith("pycoronet")]


def test_stub_names_what_the_module_has(stub: Names) -> None:
    assert sorted(stub) == sorted(set(vars(_coronet)) - OF_EVERY_MODULE - OF_DEBUG_BUILDS)


@pytest.mark.parametrize("type_", module_types(), ids=lambda type_: type_.__name__)
def test_stub_names_what_each_type_has(stub: Names, type_: type) -> None:
    (node,) = stub[type_.__name__]
    assert isinstance(node, ast.ClassDef)
    # object() has them as well, but where a type makes its own the stub may say how.
    optional = {"__new__", "__repr__", "__init__"}
    optional |= {"__getattribute__", "__setattr__", "__delattr__", "__dict__"}
    named = set(names_of(node.body))
    present = set(vars(type_)) - OF_EVERY_TYPE
    assert sorted(named - optional) == sorted(present - optional)
    if type_.__base__ is object:  # the stub of another one may leave it to the base
        # A base class takes what its subclass takes, and so may have __init__ in its stub alone.
        assert bool({"__new__", "__init__"} & named) == ("__new__" in vars(type_))


@pytest.mark.parametrize("type_", module_types(), ids=lambda type_: type_.__name__)
def test_stub_says_final_for_types_without_subclasses(stub: Names, type_: type) -> None:
    (node,) = stub[type_.__name__]
    assert isinstance(node, ast.ClassDef)
    decorators = [ast.unparse(decorator) for decorator in node.decorator_list]
    try:
        type("Derived", (type_,), {})
    except TypeError:
        assert decorators == ["final"]
    else:
        adds_fields = type_.__base__ is object
        assert decorators == (["disjoint_base"] if adds_fields else [])


@pytest.mark.parametrize("type_", module_types(), ids=lambda type_: type_.__name__)
def test_stub_says_which_attributes_can_be_set(stub: Names, type_: type) -> None:
    (node,) = stub[type_.__name__]
    assert isinstance(node, ast.ClassDef)
    for name, (member, *_) in names_of(node.body).items():
        descriptor = vars(type_).get(name)
        if inspect.isgetsetdescriptor(descriptor) or inspect.ismemberdescriptor(descriptor):
            is_writable = isinstance(member, ast.AnnAssign)
            assert can_be_set(type_, name) == is_writable, name


def can_be_set(type_: type, name: str) -> bool:
    """Tell whether an attribute takes the value that it has."""
    if type_ is _coronet.sk_conn:
        left, right = socket.socketpair()
        with right, _coronet.sk_conn(left) as conn:
            return accepts(conn, name)
    hub = pycoronet.get_hub()
    left, right = socket.socketpair()
    handles: list[Any] = [
        hub.call_later(1, print),
        hub.add_hook(check=print),
        pycoronet.once(left.fileno(), pycoronet.READ, print),
        pycoronet.signal_handler(signal.SIGUSR1, print),
    ]
    things: dict[type, Any] = {
        **{type(handle): handle for handle in handles},
        _coronet.GroupBase: pycoronet.TaskGroup(),
        _coronet.Hub: hub,
        _coronet.Lock: pycoronet.Lock(),
        _coronet.Queue: pycoronet.Queue(),
        _coronet.RLock: pycoronet.RLock(),
        _coronet.RateGroup: pycoronet.RateGroup(pycoronet.RateLimit()),
        _coronet.RateLimit: pycoronet.RateLimit(),
        _coronet.Scope: pycoronet.timeout(1),
        _coronet.Semaphore: pycoronet.Semaphore(),
        _coronet.SimpleQueue: pycoronet.SimpleQueue(),
        _coronet.Task: pycoronet.current(),
        _coronet.Traffic: pycoronet.Traffic(),
        _coronet.TransportLayer: pycoronet.TransportLayer(),
    }
    for handle in handles:
        handle.cancel()
    left.close()
    right.close()
    return accepts(things[type_], name)


def accepts(thing: Any, name: str) -> bool:
    try:
        setattr(thing, name, getattr(thing, name))
    except AttributeError:
        return False
    return True


def parameters_of(node: ast.FunctionDef) -> list[tuple[str, Any]]:
    """Return (name, kind) of the parameters a stub's function has."""
    arguments = node.args
    parameters: list[tuple[str, Any]] = []
    parameters += [(a.arg, inspect.Parameter.POSITIONAL_ONLY) for a in arguments.posonlyargs]
    parameters += [(a.arg, inspect.Parameter.POSITIONAL_OR_KEYWORD) for a in arguments.args]
    if arguments.vararg:
        parameters.append((arguments.vararg.arg, inspect.Parameter.VAR_POSITIONAL))
    parameters += [(a.arg, inspect.Parameter.KEYWORD_ONLY) for a in arguments.kwonlyargs]
    if arguments.kwarg:
        parameters.append((arguments.kwarg.arg, inspect.Parameter.VAR_KEYWORD))
    return parameters


def signature_of(function: Any) -> list[tuple[str, Any]]:
    return [(p.name, p.kind) for p in inspect.signature(function).parameters.values()]


def test_stub_has_the_functions_signatures(stub: Names) -> None:
    checked = 0
    for name, nodes in stub.items():
        if isinstance(nodes[0], ast.FunctionDef) and len(nodes) == 1:
            assert parameters_of(nodes[0]) == signature_of(getattr(_coronet, name)), name
            checked += 1
    assert checked > 15


@pytest.mark.parametrize("type_", module_types(), ids=lambda type_: type_.__name__)
def test_stub_has_the_methods_signatures(stub: Names, type_: type) -> None:
    (node,) = stub[type_.__name__]
    assert isinstance(node, ast.ClassDef)
    for name, nodes in names_of(node.body).items():
        is_method = inspect.ismethoddescriptor(vars(type_).get(name)) and name[:2] != "__"
        if is_method and isinstance(nodes[0], ast.FunctionDef) and len(nodes) == 1:
            described = [p for p, _ in signature_of(vars(type_)[name])]
            assert [p for p, _ in parameters_of(nodes[0])] == described, name


def test_package_offers_nothing_it_does_not_have() -> None:
    for module in (pycoronet, conet):
        assert [name for name in module.__all__ if not hasattr(module, name)] == []
        assert len(set(module.__all__)) == len(module.__all__)


def test_each_public_name_is_in_the_file_for_type_checkers() -> None:
    text = Path(__file__).with_name("public_types.py").read_text("utf-8")
    words = set(re.findall(r"\w+", text))
    assert sorted(set(pycoronet.__all__) - words) == []


def test_package_is_marked_as_typed() -> None:
    assert STUB.with_name("py.typed").exists()
