"""The rules that the tree keeps, each one a function over {file name: text}.

Every rule is checked twice: on the tree, where it finds nothing, and on a few lines that
break it, where it has to find them. Only the last rule looks at something that was built.
"""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import sysconfig
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = (
    "csrc",
    "pycoronet",
    "tests",
    "examples",
    "benchmarks",
    "docs",
    "fuzz",
    ".ci",
    ".github",
)
SKIPPED_FOLDERS = {"build", "corpus", "results", ".venv", "__pycache__"}
MAX_FILE_LINES = 600
MAX_FUNCTION_LINES = 80

# What a file of layer 1 may take from the C library: types, memory and asserts.
LAYER_1_HEADERS = {
    "assert.h",
    "errno.h",
    "limits.h",
    "stdalign.h",
    "stdarg.h",
    "stdbool.h",
    "stddef.h",
    "stdint.h",
    "stdlib.h",
    "string.h",
    "sys/uio.h",  # struct iovec, the shape in which a queue hands its bytes over
}
PYTHON_HEADERS = {"Python.h", "structmember.h", "frameobject.h"}
ENGINE_HEADERS = {"sys/epoll.h", "sys/eventfd.h", "sys/event.h"}
GREENLET_HEADERS = {"greenlet/greenlet.h", "greenlet.h"}

Sources = dict[str, str]


def read_sources(*folders: str, suffixes: tuple[str, ...] = (".c", ".h")) -> Sources:
    """Return the text of the files below [folders], by their path in the checkout."""
    sources = {}
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*")):
            is_skipped = SKIPPED_FOLDERS.intersection(path.relative_to(ROOT).parts)
            if path.suffix in suffixes and path.is_file() and not is_skipped:
                sources[path.relative_to(ROOT).as_posix()] = path.read_text("utf-8")
    return sources


def read_csrc() -> Sources:
    """Return the C core by bare file names."""
    return {Path(name).name: text for name, text in read_sources("csrc").items()}


# Reading C, as far as the rules need it.


def blank_comments(text: str, *, keep_strings: bool = False) -> str:
    """Replace comments, and what strings hold, by spaces; quotes and lines stay."""
    token = re.compile(r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', re.DOTALL)

    def blank(match: re.Match[str]) -> str:
        found = match.group()
        if found[0] in "\"'":
            return found if keep_strings else found[0] + " " * (len(found) - 2) + found[0]
        return re.sub(r"[^\n]", " ", found)

    return token.sub(blank, text)


def list_includes(text: str) -> list[tuple[str, str]]:
    """Return (opening character, header) of each include."""
    code = blank_comments(text, keep_strings=True)
    return re.findall(r'^\s*#\s*include\s*([<"])([^>"]+)', code, re.MULTILINE)


def list_functions(text: str) -> list[tuple[str, int, int]]:
    """Return (name, first line, number of lines) of each function definition.

    In our form the body's braces are in column 0, and so is nothing else's.
    """
    lines = blank_comments(text).splitlines()
    functions = []
    start = None
    for number, line in enumerate(lines):
        if line.startswith("{"):
            start = number
            while start > 0 and not re.search(r"^\s*$|^#|[;}]\s*$", lines[start - 1]):
                start -= 1
        elif line.startswith("}") and start is not None:
            name = re.search(r"(\w+)\s*\(", " ".join(lines[start:number]))
            functions.append((name[1] if name else "?", start + 1, number - start + 1))
            start = None
    return functions


def split_top_level(text: str) -> list[str]:
    """Split at the commas that stand outside all brackets and strings."""
    parts, depth = [""], 0
    for character, shown in zip(text, blank_comments(text), strict=True):
        depth += (shown in "([{") - (shown in ")]}")
        if shown == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts if part.strip()]


# Layers.


def read_layers(page: str) -> dict[str, int]:
    """Read {file: layer} from the tables of csrc/README.md."""
    layers: dict[str, int] = {}
    layer = 0
    for line in page.splitlines():
        if heading := re.match(r"## Layer (\d)", line):
            layer = int(heading[1])
        elif row := re.match(r"\| `([\w.]+)((?:/\.\w+)*)` \| \S", line):
            layers[row[1]] = layer
            for suffix in row[2].split("/")[1:]:
                layers[row[1].rpartition(".")[0] + suffix] = layer
    return layers


def find_unmapped_files(sources: Sources, layers: dict[str, int]) -> list[str]:
    missing = [f"{name}: not in csrc/README.md" for name in sorted(sources.keys() - layers)]
    return missing + [f"{name}: no such file" for name in sorted(layers.keys() - sources)]


def find_misplaced_files(layers: dict[str, int]) -> list[str]:
    """Names say the layer too: these alone belong to Python."""
    is_python = re.compile(r"coronet\.c|py_\w+\.[ch]|greenlet_bridge\.[ch]")
    return [
        f"{name}: in layer {layer}"
        for name, layer in layers.items()
        if bool(is_python.fullmatch(name)) != (layer == 3)
    ]


def find_upward_includes(sources: Sources, layers: dict[str, int]) -> list[str]:
    found = []
    for name, text in sources.items():
        for mark, header in list_includes(text):
            if mark == '"' and layers.get(header, 9) > layers.get(name, 3):
                found.append(f"{name}: includes {header}")
    return found


def find_foreign_headers(sources: Sources, layers: dict[str, int]) -> list[str]:
    found = []
    for name, text in sources.items():
        layer = layers.get(name, 3)  # a file without a line is found elsewhere
        for mark, header in list_includes(text):
            is_allowed = (
                (layer == 3 or header not in PYTHON_HEADERS)
                and (layer > 1 or mark == '"' or header in LAYER_1_HEADERS)
                and (name.endswith("_engine.c") or header not in ENGINE_HEADERS)
                and (name == "greenlet_bridge.c" or header not in GREENLET_HEADERS)
            )
            if not is_allowed:
                found.append(f"{name}: includes {header}")
    return found


def test_layers_map_names_every_file_and_no_other() -> None:
    layers = read_layers((ROOT / "csrc/README.md").read_text("utf-8"))
    assert find_unmapped_files(read_csrc(), layers) == []
    assert find_misplaced_files(layers) == []


def test_layers_map_missing_extra_and_misplaced_files_are_found() -> None:
    page = "## Layer 1: a\n| `list.h` | x |\n| `gone.h/.c` | x |\n## Layer 2: b\n"
    layers = read_layers(page + "| `py_a.c` | x |\n")
    assert layers == {"list.h": 1, "gone.h": 1, "gone.c": 1, "py_a.c": 2}
    assert find_unmapped_files({"list.h": "", "new.c": ""}, layers) == [
        "new.c: not in csrc/README.md",
        "gone.c: no such file",
        "gone.h: no such file",
        "py_a.c: no such file",
    ]
    assert find_misplaced_files(layers) == ["py_a.c: in layer 2"]


def test_includes_go_only_downwards() -> None:
    layers = read_layers((ROOT / "csrc/README.md").read_text("utf-8"))
    assert find_upward_includes(read_csrc(), layers) == []


def test_includes_upwards_or_unknown_are_found() -> None:
    layers = {"list.h": 1, "reactor.h": 2, "py_hub.c": 3}
    good = {
        "py_hub.c": '#include "reactor.h"\n#include "list.h"\n',
        "reactor.h": '#include "list.h"',
    }
    bad = {"list.h": '//\n#  include "reactor.h"\n', "py_hub.c": '#include "elsewhere.h"\n'}
    assert find_upward_includes(good, layers) == []
    assert find_upward_includes(bad, layers) == [
        "list.h: includes reactor.h",
        "py_hub.c: includes elsewhere.h",
    ]


def test_headers_each_layer_uses_only_its_own() -> None:
    layers = read_layers((ROOT / "csrc/README.md").read_text("utf-8"))
    assert find_foreign_headers(read_csrc(), layers) == []


@pytest.mark.parametrize(
    ("name", "layer", "header"),
    [
        ("list.h", 1, "Python.h"),
        ("reactor.c", 2, "Python.h"),
        ("list.h", 1, "unistd.h"),
        ("reactor.c", 2, "sys/epoll.h"),
        ("py_hub.c", 3, "sys/event.h"),
        ("nonblocking_io.c", 2, "sys/eventfd.h"),
        ("py_task.c", 3, "greenlet/greenlet.h"),
    ],
)
def test_headers_of_another_layer_are_found(name: str, layer: int, header: str) -> None:
    found = find_foreign_headers({name: f"#include <{header}>\n"}, {name: layer})
    assert found == [f"{name}: includes {header}"]
    assert find_foreign_headers({name: f"// #include <{header}>\n"}, {name: layer}) == []


# Which system it is.


def find_configure_macros(sources: Sources) -> list[str]:
    """pyconfig.h tells of the system that Python was built on, which need not be this one."""
    is_macro = re.compile(r"\b(?:HAVE|SIZEOF|WITH)_\w+")
    return [
        f"{name}:{number}: {macro}"
        for name, text in sources.items()
        for number, line in enumerate(blank_comments(text).splitlines(), 1)
        for macro in is_macro.findall(line)
    ]


def test_systems_are_told_apart_without_pyconfig() -> None:
    assert find_configure_macros(read_csrc()) == []


def test_systems_told_apart_by_pyconfig_are_found() -> None:
    good = "#if defined(CORONET_HAVE_ACCEPT4)\n// HAVE_ACCEPT4\n#endif\nint Py_TPFLAGS_HAVE_GC;\n"
    bad = "\n#if defined(HAVE_ACCEPT4) && SIZEOF_LONG == 8\n#endif\n"
    assert find_configure_macros({"a.c": good}) == []
    assert find_configure_macros({"a.c": bad}) == ["a.c:2: HAVE_ACCEPT4", "a.c:2: SIZEOF_LONG"]


# Size.


def find_long_files(sources: Sources, limit: int = MAX_FILE_LINES) -> list[str]:
    lengths = {name: text.count("\n") for name, text in sources.items()}
    return [f"{name}: {length} lines" for name, length in lengths.items() if length > limit]


def find_long_c_functions(sources: Sources, limit: int = MAX_FUNCTION_LINES) -> list[str]:
    return [
        f"{name}:{line}: {function}, {length} lines"
        for name, text in sources.items()
        for function, line, length in list_functions(text)
        if length > limit
    ]


def find_long_python_functions(sources: Sources, limit: int = MAX_FUNCTION_LINES) -> list[str]:
    found = []
    for name, text in sources.items():
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                if length > limit:
                    found.append(f"{name}:{node.lineno}: {node.name}, {length} lines")
    return found


def test_files_are_not_longer_than_the_limit() -> None:
    assert find_long_files(read_sources(*FOLDERS, suffixes=(".c", ".h", ".py", ".pyi"))) == []


def test_files_longer_than_the_limit_are_found() -> None:
    assert find_long_files({"a.c": "\n" * 600, "b.c": "\n" * 601}) == ["b.c: 601 lines"]


def test_functions_are_not_longer_than_the_limit() -> None:
    assert find_long_c_functions(read_sources(*FOLDERS)) == []
    assert find_long_python_functions(read_sources(*FOLDERS, suffixes=(".py",))) == []


def test_functions_are_all_seen_in_our_form() -> None:
    # Each definition has its name in column 0 behind the line of its return type.
    for name, text in read_csrc().items():
        code = blank_comments(text)
        named = re.findall(r"^(\w+)\([^;{]*?\)\s*\n\{", code, re.MULTILINE | re.DOTALL)
        assert named == [function for function, _, _ in list_functions(text)], name


def test_functions_longer_than_the_limit_are_found() -> None:
    line = '    call("}");  // {\n'
    fits = f"int x;\n\nstatic int\nname(int a,\n     int b)\n{{\n{line * 74}}}\n"
    assert find_long_c_functions({"a.c": fits}) == []
    assert list_functions(fits) == [("name", 3, 79)]
    too_long = f"// Why.\nvoid\nname(void)\n{{\n{line * 77}}}\n"
    assert find_long_c_functions({"a.c": too_long}) == ["a.c:2: name, 81 lines"]
    python = "def name():\n" + "    pass\n" * 80
    assert find_long_python_functions({"a.py": python}) == ["a.py:1: name, 81 lines"]


# Words.


def find_files_without_header(sources: Sources) -> list[str]:
    return [
        f"{name}: does not begin with its own name and what it is"
        for name, text in sources.items()
        if not re.match(rf"// {re.escape(Path(name).name)}: \S", text)
    ]


def find_python_without_docstring(sources: Sources) -> list[str]:
    return [
        f"{name}: has no docstring"
        for name, text in sources.items()
        if text.strip() and not ast.get_docstring(ast.parse(text))
    ]


def find_forbidden_words(sources: Sources) -> list[str]:
    forbidden = re.compile(
        r"(?<![\w.])/(?:home|root|work|Users)/\w[^\s]*"  # a path of somebody's machine
        r"|\b[Ii]ssue #?\d+"  # the code has to explain itself
        r"|\b(?:TODO|FIXME|XXX)\b"
    )
    return [
        f"{name}:{number}: {match.group()}"
        for name, text in sources.items()
        for number, line in enumerate(text.splitlines(), 1)
        for match in forbidden.finditer(line)
        if Path(name).name != Path(__file__).name
    ]


def test_files_begin_with_what_they_are() -> None:
    assert find_files_without_header(read_sources(*FOLDERS)) == []
    assert find_python_without_docstring(read_sources(*FOLDERS, suffixes=(".py", ".pyi"))) == []


def test_files_that_do_not_say_what_they_are_are_found() -> None:
    good = "// a.c: what it is.\n"
    bad = {"csrc/a.c": good, "b.c": good, "c.c": "#include <errno.h>\n", "d.h": "// d.h:\n"}
    names = [line.partition(":")[0] for line in find_files_without_header(bad)]
    assert names == ["b.c", "c.c", "d.h"]
    python = {"a.py": "'''What.'''\n", "b.py": "import os\n", "empty.py": ""}
    assert find_python_without_docstring(python) == ["b.py: has no docstring"]


def test_words_forbidden_are_nowhere() -> None:
    suffixes = (
        ".c",
        ".h",
        ".py",
        ".pyi",
        ".md",
        ".toml",
        ".yml",
        ".txt",
        ".svg",
        "",
        ".in",
    )
    sources = read_sources(*FOLDERS, suffixes=suffixes)
    for path in sorted(ROOT.iterdir()):
        if path.is_file() and path.suffix in suffixes:
            sources[path.name] = path.read_text("utf-8")
    assert {"Makefile", "README.md", ".ci/run"} <= sources.keys()
    assert find_forbidden_words(sources) == []


@pytest.mark.parametrize("text", ["see /home/me/x", "'/root/x'", "(issue 7)", "// TODO: later"])
def test_words_forbidden_are_found(text: str) -> None:
    assert len(find_forbidden_words({"a.c": f"int x;\n{text}\n"})) == 1
    assert find_forbidden_words({"a.c": "x/home/y, /usr/bin, an issue, todo"}) == []


# Python's C API.


def find_decref_before_assignment(sources: Sources) -> list[str]:
    """Find fields that a destructor's Python code could see after they were given up."""
    field = r"[A-Za-z_]\w*(?:\[[^\]]*\])?(?:(?:->|\.)\w+(?:\[[^\]]*\])?)+"
    pattern = re.compile(
        rf"Py_X?DECREF\(\s*({field})\s*\)\s*;[^{{}}]*?(?<![\w>.])\1\s*=(?!=)", re.DOTALL
    )
    return [
        f"{name}: Py_DECREF({match[1]}) and then an assignment: use Py_XSETREF or Py_CLEAR"
        for name, text in sources.items()
        for match in pattern.finditer(blank_comments(text))
    ]


def find_undocumented_entries(sources: Sources) -> list[str]:
    """Find methods and properties whose help() would be empty."""
    table = re.compile(r"Py(?:MethodDef|GetSetDef)\s+(\w+)\[\w*\]\s*=\s*\{(.*?)\};", re.DOTALL)
    found = []
    for name, text in sources.items():
        for match in table.finditer(blank_comments(text, keep_strings=True)):
            for entry in split_top_level(match[2]):
                fields = split_top_level(entry[1:-1])
                if not fields or fields[0] in ("NULL", "0"):
                    continue  # the end of the table
                docs = [field for field in fields if re.match(r"\.(ml_)?doc\b", field)]
                doc = (docs or fields[3:4] or ["NULL"])[0].rpartition("=")[2].strip()
                if not entry.startswith("{") or doc in ("NULL", "0", '""'):
                    found.append(f"{name}: {match[1]}: {fields[0]} has no doc")
    return found


def test_fields_are_never_given_up_before_they_are_replaced() -> None:
    assert find_decref_before_assignment(read_csrc()) == []


@pytest.mark.parametrize(
    "code",
    [
        "Py_DECREF(self->name);\n    self->name = value;",
        "Py_XDECREF( a.b );  // why\n a.b = NULL;",
        "Py_DECREF(self->items[0]);\n    count--;\n    self->items[0] = Py_NewRef(x);",
    ],
)
def test_fields_given_up_before_they_are_replaced_are_found(code: str) -> None:
    assert len(find_decref_before_assignment({"a.c": code})) == 1


def test_fields_given_up_for_good_are_allowed() -> None:
    code = "Py_DECREF(self->a);\n}\n self->a = x; Py_DECREF(b); b = x;"
    code += " Py_DECREF(c->d); e->c->d = x; Py_DECREF(f->g); is_same = f->g == x;"
    assert find_decref_before_assignment({"a.c": code}) == []


def test_methods_all_have_docs() -> None:
    assert find_undocumented_entries(read_csrc()) == []


def test_methods_without_docs_are_found() -> None:
    code = """
static PyMethodDef methods[] = {
    {"good", (PyCFunction)(void (*)(void))good, METH_O, PyDoc_STR("good(a, {b})\\n--\\n")},
    {"named", named, METH_O, named_doc},  // a comment, with a comma
    {"null", null, METH_O, NULL}, {"empty", empty, METH_O, ""},
    {.ml_name = "absent", .ml_meth = absent, .ml_flags = METH_O},
    {.ml_name = "present", .ml_meth = present, .ml_flags = METH_O, .ml_doc = doc},
    {NULL, NULL, 0, NULL},
};
static PyGetSetDef properties[] = {
    {"shown", get, NULL, doc, NULL}, {"bare", get, NULL, NULL}, {0}};
"""
    found = find_undocumented_entries({"a.c": code})
    assert [line.split()[2] for line in found] == [
        '"null"',
        '"empty"',
        ".ml_name",
        '"bare"',
    ]


# The page that people start from, and what they get.


def list_targets(makefile: str) -> dict[str, str]:
    """Return the targets that have a line of help, with it."""
    return dict(re.findall(r"^([a-z][a-z-]*):[^=\n]*?## (.+)$", makefile, re.MULTILINE))


def find_unknown_targets(pages: Sources, makefile: str) -> list[str]:
    """Find the `make x` of a page that the Makefile does not have."""
    command = re.compile(r"(?:^ {4}|`)make ([a-z][a-z-]*)", re.MULTILINE)
    return [
        f"{name}: make {target}"
        for name, text in pages.items()
        for target in command.findall(text)
        if target not in list_targets(makefile)
    ]


def list_foreign_symbols(listing: str) -> list[str]:
    """Return what nm lists besides the one function that Python looks for."""
    symbols = [line.split()[-1] for line in listing.splitlines() if line]
    return [name for name in symbols if name.removeprefix("_") != "PyInit__coronet"]


def test_commands_of_the_pages_exist() -> None:
    pages = {path.name: path.read_text("utf-8") for path in sorted(ROOT.glob("*.md"))}
    makefile = (ROOT / "Makefile").read_text("utf-8")
    assert find_unknown_targets(pages, makefile) == []
    for command in ("make run", "make test"):
        assert f"\n    {command} " in pages["README.md"]
    assert re.search(r"^ +make test ", (ROOT / ".ci/run").read_text("utf-8"), re.MULTILINE)


def test_commands_that_do_not_exist_are_found() -> None:
    pages = {"a.md": "    make test  # all\n`make fly` and make sense\n    make swim\n"}
    makefile = "test: build  ## Run\nswim:\n"
    assert find_unknown_targets(pages, makefile) == ["a.md: make fly", "a.md: make swim"]


def test_targets_all_have_a_line_of_help() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    names = re.findall(r"^([a-z][a-z-]*):(?!=)", makefile, re.MULTILINE)
    assert names == list(list_targets(makefile))


def test_module_exports_its_init_function_alone() -> None:
    if shutil.which("nm") is None:
        pytest.skip("nm is not installed")
    package = find_spec("pycoronet")
    if package is None or package.origin is None:
        pytest.skip("pycoronet is not installed for this Python")
    module = Path(package.origin).with_name("_coronet" + sysconfig.get_config_var("EXT_SUFFIX"))
    options = ["-gU"] if sys.platform == "darwin" else ["-D", "--defined-only"]
    listing = subprocess.run(
        ["nm", *options, str(module)], capture_output=True, text=True, check=True
    ).stdout
    assert "PyInit__coronet" in listing
    assert list_foreign_symbols(listing) == []


def test_module_that_exports_more_is_found() -> None:
    listing = "0000000000001140 T PyInit__coronet\n0000000000001150 T reactor_turn\n"
    assert list_foreign_symbols(listing) == ["reactor_turn"]
    assert list_foreign_symbols("00001140 T _PyInit__coronet\n") == []
