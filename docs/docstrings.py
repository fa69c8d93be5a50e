"""Makes reStructuredText of this project's docstrings, which are plain text with a few habits.

A line that begins with an argument's name and a colon begins an item; what is indented is a
program; `name()` is a link if there is such a name; all else means nothing but itself.
"""

from __future__ import annotations

import inspect
import re
import textwrap
from itertools import groupby
from typing import Any

import public_names

_CODE = re.compile(r"`+([^`]+)`+")
_NAME = re.compile(r"[A-Za-z_][\w.]*(\(\))?")
_ARGUMENTS = re.compile(r"(\*{0,2}\w+(?:(?:, | and )\*{0,2}\w+)*): (?=\S)")

# What the docstrings call an object of a class.
_OBJECTS = {
    "conn": "pycoronet.sk_conn",
    "task": "pycoronet.Task",
    "hub": "pycoronet.Hub",
    "server": "pycoronet.server.Server",
}

# Of what has two names, the reference has the one in the module of its own.
_HOMES = {
    name.removeprefix("pycoronet.errors.").removeprefix("pycoronet.server."): name
    for name in public_names.places()
    if name.startswith(("pycoronet.errors.", "pycoronet.server."))
}


def _escape(text: str) -> str:
    return re.sub(r"([\\*|]|_(?!\w))", r"\\\1", text)


def _link(name: str) -> str:
    """Return a link to what is called so; to Sphinx a name that it does not know is code."""
    if not _NAME.fullmatch(name):
        return f"``{name}``"
    target = name.removesuffix("()")
    head, dot, rest = target.partition(".")
    target = (_OBJECTS if dot else _HOMES).get(head, head) + dot + rest
    return f":py:obj:`{name} <{target}>`"


def _inline(text: str) -> str:
    """Return lines in which nothing but backticks means something."""
    parts, end = [], 0
    for match in _CODE.finditer(text):
        parts += [_escape(text[end : match.start()]), _link(" ".join(match[1].split()))]
        if text[match.end() : match.end() + 1].isalnum():
            parts.append("\\ ")
        end = match.end()
    return "".join([*parts, _escape(text[end:])])


def _program(lines: list[str]) -> list[str]:
    """Return what is indented, with colours if it is Python."""
    text = textwrap.dedent("\n".join(lines)).strip("\n")
    try:
        compile(text, "docstring", "exec")
        language = "python"
    except SyntaxError:
        language = "text"
    return [f".. code-block:: {language}", "", *textwrap.indent(text, "    ").splitlines(), ""]


def _paragraph(lines: list[str], arguments: set[str]) -> list[str]:
    """Return a paragraph; what it says of each argument is an item of a list."""
    head: list[str] = []
    items: list[tuple[str, list[str]]] = []
    for line in lines:
        match = _ARGUMENTS.match(line)
        names = re.split(", | and ", match[1]) if match else []
        if match and arguments.issuperset(name.lstrip("*") for name in names):
            shown = ", ".join(f"**{_escape(name)}**" for name in names)
            items.append((shown, [line[match.end() :]]))
        elif items:
            items[-1][1].append(line.strip())
        else:
            head.append(line.strip())
    result = [*_inline("\n".join(head)).splitlines(), ""] if head else []
    for shown, rest in items:
        first, *more = _inline("\n".join(rest)).splitlines()
        result += [f"- {shown}: {first}", *(f"  {line}" for line in more)]
    return [*result, ""]


def convert(lines: list[str], arguments: set[str]) -> list[str]:
    """Return a docstring as reStructuredText."""
    result: list[str] = []
    program: list[str] = []
    for is_blank, group in groupby(lines, key=lambda line: not line.strip()):
        block = list(group)
        if is_blank:
            program += block if program else []
        elif block[0].startswith(" "):
            program += block
        else:
            result += _program(program) if program else []
            program = []
            block[-1] = re.sub("::$", ":", block[-1])
            result += _paragraph(block, arguments)
    return result + (_program(program) if program else [])


def process(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Convert a docstring in place: Sphinx' event autodoc-process-docstring."""
    try:
        arguments = set(inspect.signature(obj).parameters)
    except (TypeError, ValueError):
        arguments = set()
    lines[:] = convert(lines, arguments)
