"""Handlers that are named by a text: what is found, and what is said when nothing is."""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Callable
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest

from pycoronet import Protocol
from pycoronet.server._imports import HandlerError, load_handler

numbers = itertools.count()

Write = Callable[[str], str]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Return a function that makes a module of some lines and returns its name."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def write_module(source: str) -> str:
        name = f"handlers_of_a_test_{next(numbers)}"
        (tmp_path / f"{name}.py").write_text(source)
        return name

    return write_module


def test_imports_function_is_found(write):
    name = write("def handler(conn, address):\n    return 'called'\n")
    assert load_handler(f"{name}:handler")(None, None) == "called"


def test_imports_attribute_of_an_attribute_is_found(write):
    name = write("class App:\n    @staticmethod\n    def handler(conn, address):\n        pass\n")
    assert load_handler(f"{name}:App.handler").__name__ == "handler"


def test_imports_file_that_is_newer_than_the_process_is_seen(write, tmp_path):
    load_handler(f"{write('handler = print')}:handler")  # the folder is remembered as it is
    before = tmp_path.stat()
    name = write("handler = print")
    os.utime(tmp_path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert load_handler(f"{name}:handler") is print


@pytest.mark.parametrize("text", ["Echo", "echo"])
def test_imports_protocol_is_found(write, text):
    source = "from pycoronet import Protocol\nclass Echo(Protocol): pass\necho = Echo()\n"
    found = load_handler(f"{write(source)}:{text}")
    assert isinstance(found, Protocol) or issubclass(found, Protocol)


def test_imports_module_in_a_package_is_found(write, tmp_path):
    package = tmp_path / "package_of_a_test"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "app.py").write_text("handler = print\n")
    assert load_handler("package_of_a_test.app:handler") is print
    with pytest.raises(HandlerError, match=r"^there is no module 'package_of_a_test\.ap' "):
        load_handler("package_of_a_test.ap:handler")
    with pytest.raises(HandlerError, match=r"^there is no module 'nothing_of_a_test' "):
        load_handler("nothing_of_a_test.app:handler")


@pytest.mark.parametrize("text", ["", "app", "app:", ":handler", "app.handler"])
def test_imports_text_that_names_nothing_says_how(text):
    with pytest.raises(HandlerError, match="say MODULE:NAME, such as app:handler"):
        load_handler(text)


@pytest.mark.parametrize(
    ("source", "name", "message"),
    [
        ("def handler(): pass", "handlr", r"has no 'handlr'; did you mean 'handler'\?$"),
        ("def handler(): pass", "xyz", r"\.py\) has no 'xyz'$"),
        ("def handler(): pass", "handler.x.y", "has no 'handler.x.y'$"),
        ("handler = 3", "handler", "cannot be called: it is an int$"),
        ("import nothing_of_a_test", "h", r"\.py, line 1: ModuleNotFoundError: No module named"),
        ("\n\ndef (", "h", r"\.py, line 3: SyntaxError: "),
        ("\ndef f():\n    1/0\nf()", "h", r"\.py, line 3: ZeroDivisionError: division by zero$"),
        ("raise ValueError('one\\ntwo')", "h", r"\.py, line 1: ValueError: one$"),
        ("raise ValueError", "h", r"\.py, line 1: ValueError$"),
        ("import sys; sys.exit('no')", "h", r"\.py, line 1: SystemExit: no$"),
    ],
)
def test_imports_failure_is_told_in_one_line(write, source, name, message):
    with pytest.raises(HandlerError, match=message) as caught:
        load_handler(f"{write(source)}:{name}")
    assert "\n" not in str(caught.value)


def test_imports_failure_of_another_module_says_where_it_is(write):
    inner = write("1/0")
    with pytest.raises(HandlerError, match=rf"{inner}\.py, line 1: ZeroDivisionError"):
        load_handler(f"{write(f'import {inner}')}:handler")


def test_imports_failure_without_a_line_names_the_module(write, tmp_path):
    name = f"library_of_a_test{EXTENSION_SUFFIXES[0]}"
    (tmp_path / name).write_text("no library")
    with pytest.raises(
        HandlerError, match=r"^module 'library_of_a_test' cannot be imported: ImportError: "
    ):
        load_handler("library_of_a_test:handler")


def test_imports_ctrl_c_is_passed_on(write):
    with pytest.raises(KeyboardInterrupt):
        load_handler(f"{write('raise KeyboardInterrupt')}:handler")
