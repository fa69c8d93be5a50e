"""Makes reStructuredText of this project's docstrings, which are plain text with a few habits.

A line or a sentence that begins with an argument's name and a colon begins an item; what is
indented is a program; `name`, name() and NameError are links if there is such a name; all else
means nothing but itself.
"""

from __future__ import annotations

import inspect
import pkgutil
import re
import textwrap
from itertools import groupby
from typing import Any

import public_names

# What is code: what is in backticks, a call without arguments, the name of an error.
_CODE = re.compile(r"`+([^`]+)`+|(?<![\w.])([A-Za-z_][\w.]*\(\)|[A-Z]\w+Error\b)")
_NAME = re.compile(r"[A-Za-z_][\w.]*(\(\))?")
_ARGUMENTS = re.compile(
    r"(?:^|(?<=[.;)] ))(\*{0,2}\w+(?:(?:, | and )\*{0,2}\w+)*):\s(?=\S)", re.MULTILINE
)

# What comes behind the arguments, often in the same paragraph.
_OF_THE_WHOLE = re.compile(r"(?<=[.)])\s(?=(?:Raises|Returns|Never|May|Switches)\b)")

# What the docstrings call an object of a class.
_OBJECTS = {
    "conn": "pycoronet.sk_conn",
    "task": "pycoronet.Task",
    "hub": "pycoronet.Hub",
    "server": "pycoronet.server.Server",
}

# Of what has two names, the reference has the one in the module of its own.
_HOMES = {
    name.rpartition(".")[2]: name
    for name in sorted(public_names.places(), key=lambda name: name.count("."))
    if re.fullmatch(r"pycoronet(\.errors|\.server)?\.\w+", name)
}


def _find(name: str, place: str) -> str:
    """Return the full name of what is called so in the docstring of something else."""
    head, dot, rest = name.partition(".")
    if dot and head in _OBJECTS:
        return f"{_OBJECTS[head]}.{rest}"
    while place != "pycoronet":
        owner = pkgutil.resolve_name(place)
        if head in getattr(owner, "__all__", () if inspect.ismodule(owner) else dir(owner)):
            return f"{place}.{name}"
        place = place.rpartition(".")[0]
    return _HOMES.get(head, head) + dot + rest


def _escape(text: str) -> str:
    return re.sub(r"([\\*|]|_(?!\w))", r"\\\1", text)


class _Docstring:
    """What a docstring is of, and how to read it."""

    def __init__(self, place: str, arguments: set[str]) -> None:
        self.place = place
        self.arguments = arguments

    def convert(self, lines: list[str]) -> list[str]:
        """Return the whole docstring."""
        result: list[str] = []
        program: list[str] = []
        for is_blank, group in groupby(lines, key=lambda line: not line.strip()):
            block = list(group)
            if is_blank:
                program += block if program else []
            elif block[0].startswith(" "):
                program += block
            else:
                result += self.program(program)
                program = []
                block[-1] = re.sub("::$", ":", block[-1])
                result += self.paragraph("\n".join(line.strip() for line in block))
        return result + self.program(program)

    def program(self, lines: list[str]) -> list[str]:
        """Return what is indented, with colours if it is Python."""
        text = textwrap.dedent("\n".join(lines)).strip("\n")
        if not text:
            return []
        try:
            compile(text, "docstring", "exec")
            language = "python"
        except SyntaxError:
            language = "text"
        return [f".. code-block:: {language}", "", *textwrap.indent(text, "    ").splitlines(), ""]

    def paragraph(self, text: str) -> list[str]:
        """Return a paragraph; what it says of each argument is an item of a list."""
        found = []
        for match in _ARGUMENTS.finditer(text):
            names = re.split(", | and ", match[1])
            if self.arguments.issuperset(name.lstrip("*") for name in names):
                found.append((names, match.start(), match.end()))
        if not found:
            return [*self.inline(text), ""]
        rest = _OF_THE_WHOLE.search(text, found[-1][2])
        end = rest.start() if rest else len(text)
        result = [*self.inline(text[: found[0][1]]), ""]
        ends = [start for _, start, _ in found[1:]] + [end]
        for (names, _, begin), end_of_item in zip(found, ends, strict=True):
            shown = ", ".join(f"**{_escape(name)}**" for name in names)
            first, *more = self.inline(text[begin:end_of_item])
            result += [f"- {shown}: {first}", *(f"  {line}" for line in more)]
        return [*result, "", *self.inline(text[end:]), ""]

    def inline(self, text: str) -> list[str]:
        """Return lines in which all but code means itself."""
        parts, end = [], 0
        for match in _CODE.finditer(text):
            parts += [
                _escape(text[end : match.start()]),
                self.link(" ".join((match[1] or match[2]).split())),
            ]
            if text[match.end() : match.end() + 1].isalnum():
                parts.append("\\ ")
            end = match.end()
        return "".join([*parts, _escape(text[end:])]).strip().splitlines()

    def link(self, name: str) -> str:
        """Return a link to what is called so; a name that Sphinx does not know becomes code."""
        if not _NAME.fullmatch(name):
            return f"``{name}``"
        return f":py:obj:`{name} <{_find(name.removesuffix('()'), self.place)}>`"


def process(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Convert a docstring in place: Sphinx' event autodoc-process-docstring."""
    try:
        arguments = set(inspect.signature(obj).parameters)
    except (TypeError, ValueError):
        arguments = set()
    lines[:] = _Docstring(name, arguments).convert(lines)
