"""What the pages in docs/ name exists; and what the reference is made of does what it says."""

import re
import sys
from pathlib import Path

import pytest

import pycoronet
from pycoronet import conet

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "SECURITY.md", *sorted((ROOT / "docs").glob("*.md"))]

sys.path.insert(0, str(ROOT / "docs"))
import docstrings  # noqa: E402
import public_names  # noqa: E402

# What these promise is shown by tests, which they name.
PAGES_WITH_PROMISES = ("SECURITY.md", "production.md", "reliability.md", "libevent-map.md")

# `test_x.py::test_y`, in tests/unit unless it says where.
NAMED_TEST = re.compile(r"`([\w/]+\.(?:py|c))::(\w+)`")


def find_file(name: str) -> Path:
    return ROOT / name if "/" in name else ROOT / "tests" / "unit" / name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_named_tests_exist(page: Path) -> None:
    named = NAMED_TEST.findall(page.read_text())
    assert named or page.name not in PAGES_WITH_PROMISES
    missing = []
    for file, test in named:
        path = find_file(file)
        if not path.exists() or not re.search(rf"\b{test}\(", path.read_text()):
            missing.append(f"{file}::{test}")
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


# Classes whose methods the tables name, on what these are called there.
CLASSES = (
    *(pycoronet.sk_conn, pycoronet.Task, pycoronet.Hub, pycoronet.Pool, pycoronet.Server),
    *(pycoronet.Queue, pycoronet.TaskGroup, pycoronet.subprocess),
)
PORTING_PAGES = [ROOT / "docs" / f"from-{name}.md" for name in ("asyncio", "eventlet", "gevent")]
OTHER_WORDS = {"with", "for", "main", "tasks", "await", "python", "os", "fork"}


@pytest.mark.parametrize("page", PORTING_PAGES, ids=lambda page: page.name)
def test_names_of_ours_on_porting_pages_exist(page: Path) -> None:
    rows = re.findall(r"^\| .+ \| (.+) \|$", page.read_text(), re.MULTILINE)
    code = [code for row in rows for code in re.findall(r"`([^`]+)`", row)]
    paths = [re.match(r"(?:with )?(?:get_hub\(\)\.)?([\w.]*)", text)[1] for text in code]
    names = [name for path in paths for name in path.rpartition(".")[2:] if name]
    assert len(names) > 30
    places = (pycoronet, *CLASSES)
    assert [
        name
        for name in names
        if name not in OTHER_WORDS and not any(hasattr(place, name) for place in places)
    ] == []


def test_page_for_coronet_has_every_function() -> None:
    text = (ROOT / "docs" / "from-coronet.md").read_text()
    tables = text[text.index("## Function by function") :]
    named = re.findall(r"^\| `[^`]*?(co\w+)\(.*?\| `(co\w+)\(", tables, re.MULTILINE)
    assert {ours for _, ours in named} == set(conet.__all__)
    assert all(theirs == ours for theirs, ours in named)


def test_missing_names_are_found() -> None:
    documented = set(public_names.places())
    documented |= {
        f"{place}.{name}"
        for place, thing in public_names.places().items()
        for name in public_names.members(thing)
    }
    assert public_names.missing(documented) == []
    gone = {
        *("pycoronet.READ", "pycoronet.spawn", "pycoronet.conet.conet_init"),
        *("pycoronet.sk_conn.write", "pycoronet.sk_conn.pending", "pycoronet.TaskGroup"),
    }
    assert set(public_names.missing(documented - gone)) == gone
    # It has another name, and that is enough.
    other = {name for name in documented if name.startswith("pycoronet.Server")}
    assert len(other) > 10
    assert public_names.missing(documented - other) == []


def convert(text: str, *arguments: str, place: str = "pycoronet.sk_conn.write") -> str:
    return "\n".join(docstrings._Docstring(place, set(arguments)).convert(text.splitlines()))


def test_docstring_arguments_become_items() -> None:
    text = "Do it.\n\nfd: a number. a, *b: two,\nmore. Raises none: not this. May switch."
    assert convert(text, "fd", "a", "b").split("\n\n") == [
        "Do it.",
        "\n- **fd**: a number.\n- **a**, **\\*b**: two,\n  more.",
        "Raises none: not this. May switch.\n",
    ]


def test_docstring_code_becomes_links() -> None:
    assert convert("`close`, shutdown()").split(", ") == [
        ":py:obj:`close <pycoronet.sk_conn.close>`",
        ":py:obj:`shutdown() <pycoronet.sk_conn.shutdown>`\n",
    ]
    assert convert("stop_all()", place="pycoronet.spawn") == (
        ":py:obj:`stop_all() <pycoronet.server.stop_all>`\n"
    )
    assert convert("conn.flush() BusyError") == (
        ":py:obj:`conn.flush() <pycoronet.sk_conn.flush>` "
        ":py:obj:`BusyError <pycoronet.errors.BusyError>`\n"
    )


def test_docstring_marks_mean_themselves() -> None:
    assert convert("*args, x_ and `a * b`") == "\\*args, x\\_ and ``a * b``\n"


def test_docstring_programs_are_shown() -> None:
    assert convert("So::\n\n    if x:\n\n        y()\n\nEnd.") == (
        "So:\n\n.. code-block:: python\n\n    if x:\n\n        y()\n\nEnd.\n"
    )
    assert ".. code-block:: text" in convert("So\n\n    $ ls\n")
