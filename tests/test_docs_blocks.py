"""Every block of Python on the README and in docs/ runs, and prints what the page says.

A page's blocks run in their order and with common names, in virtual time, in a folder of their
own. What a block prints stands below it in a block of text, or behind each print() in a comment;
… is anything. Comments of HTML on a page say where that is different:

    <!-- not run: why -->                       the next block is only compiled, and counted below
    <!-- real time -->                          the page talks to other processes or threads
    <!-- each block is a whole program -->      the page's blocks have no names in common

A block that begins with a comment like "# echo.py" is a file of that name, and one that serves for
ever runs as a process beside the test. A console block has commands, "$ ...", and what they print;
where one names a file, it is what runs it.
"""

from __future__ import annotations

import contextlib
import gc
import io
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from pycoronet import timeout
from pycoronet.testing import virtual_time

ROOT = Path(__file__).resolve().parent.parent
PATIENCE_SECONDS = 30

# Their blocks are test files, or programs that print who hangs where, or a service's.
PAGES_WITH_A_TEST_OF_THEIR_OWN = {
    "testing.md": "unit/test_testing_page.py",
    "what-hangs.md": "integration/test_what_hangs_page.py",
    "production.md": "integration/test_production_page.py",
}
PAGES = [
    page
    for page in [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
    if "```python" in page.read_text("utf-8") and page.name not in PAGES_WITH_A_TEST_OF_THEIR_OWN
]

# They tell what hard mode leaves out.
PAGES_OF_OPTIMISATIONS = {
    "back-pressure.md": "small writes are collected",
    "how-it-works.md": "switches are counted",
}

# How many blocks of a page are not run. Each has its reason beside it.
NOT_RUN = {"from-gevent.md": 1, "from-eventlet.md": 1}

FENCE = re.compile(
    r"^(?P<marks>(?:<!--[^\n]*-->\n)*)```(?P<kind>\w+)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
SERVES_FOR_EVER = re.compile(
    r"^ *(?:serve\(|\w+(?:\(.*\))?\.serve_forever\(|hub\.run\()", re.MULTILINE
)
SAID_BEHIND_PRINT = re.compile(r"^ *print\(.*\)  # (.*)$", re.MULTILINE)


class Block(NamedTuple):
    """What stands between two fences, and the line of the page on which it begins."""

    kind: str
    text: str
    line: int
    is_run: bool
    follows: bool  # directly the block before it


def blocks_of(text: str) -> list[Block]:
    blocks, end = [], 0
    for match in FENCE.finditer(text):
        blocks.append(
            Block(
                match["kind"],
                match["text"],
                text.count("\n", 0, match.start("text")),
                "<!-- not run: " not in match["marks"],
                not text[end : match.start()].strip(),
            )
        )
        end = match.end()
    return blocks


def check_output(printed: str, expected: str) -> None:
    pattern = re.escape(expected.strip()).replace("…", ".*")
    assert re.fullmatch(pattern, printed.strip(), re.DOTALL), f"{printed!r} is not {expected!r}"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


class Run:
    """One page, from its first block to its last."""

    def __init__(self, page: Path, folder: Path) -> None:
        self.page = page
        self.text = page.read_text("utf-8")
        self.ports = {}  # what the page calls so may be taken here
        for port in sorted(set(re.findall(r"\b(?:7\d{3}|40713)\b", self.text))):
            self.ports[port] = free_port()
            self.text = re.sub(rf"\b{port}\b", str(self.ports[port]), self.text)
        self.blocks = blocks_of(self.text)
        self.console = "".join(block.text for block in self.blocks if block.kind == "console")
        self.folder = folder
        self.names = self.fresh_names()
        self.are_whole_programs = "<!-- each block is a whole program -->" in self.text
        self.processes = contextlib.ExitStack()
        self.environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
        self.environment.pop("PYTHONSAFEPATH", None)  # programs import those beside them
        self.not_run = 0

    def fresh_names(self) -> dict[str, Any]:
        names: dict[str, Any] = {"__name__": "__main__"}
        if self.page.name == "README.md":
            names["handle"] = handle  # the reader's own
        return names

    def run(self) -> None:
        with self.processes:
            for block, following in zip(self.blocks, [*self.blocks[1:], None], strict=True):
                if block.kind == "python":
                    said = following if following and following.kind == "text" else None
                    self.run_python(block, said.text if said and said.follows else None)
                elif block.kind == "console" and block.is_run:
                    self.run_console(block)

    def run_python(self, block: Block, expected: str | None) -> None:
        code = compile("\n" * block.line + block.text, str(self.page), "exec")
        file = re.match(r"# ([\w/]+\.py)\b", block.text)
        if not block.is_run:
            self.not_run += 1
            return
        if file:
            (self.folder / file[1]).write_text(block.text, "utf-8")
        if file and file[1].removesuffix(".py") in re.findall(r"\w+", self.console):
            return
        if SERVES_FOR_EVER.search(block.text):
            self.serve(block)
            return
        if expected is None:
            expected = "\n".join(SAID_BEHIND_PRINT.findall(block.text))
        names = self.fresh_names() if self.are_whole_programs else self.names
        before = set(names)
        with contextlib.redirect_stdout(io.StringIO()) as output:
            exec(code, names)
            for name in set(names) - before:
                if name.startswith("test_"):
                    names[name]()
        check_output(output.getvalue(), expected)

    def serve(self, block: Block) -> None:
        """Run a server beside the test, and see that a line gets an answer."""
        file = self.folder / f"line_{block.line}.py"
        file.write_text(block.text, "utf-8")
        port = self.start([sys.executable, str(file)], block.text)
        with socket.create_connection(("127.0.0.1", port), PATIENCE_SECONDS) as sock:
            sock.sendall(b"hello\r\n")
            with sock.makefile("rb") as answer:
                assert b"hello" in answer.readline()

    def start(self, command: list[str], program: str) -> int:
        """Start a process that ends with the page; return when its port is open."""
        process = subprocess.Popen(
            command,
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        self.processes.callback(end, process)
        (port,) = (port for port in self.ports.values() if str(port) in program)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), PATIENCE_SECONDS).close()
                return port
            except ConnectionRefusedError:
                assert process.poll() is None, "it has ended"
                assert time.monotonic() < deadline, "nobody listens"
                time.sleep(0.01)

    def run_console(self, block: Block) -> None:
        for command, expected in re.findall(
            r"^\$ ((?:.*\\\n)*.*)\n((?:(?!\$ ).*\n)*)", block.text, re.MULTILINE
        ):
            if command.endswith("&"):
                words = shlex.split(command.removesuffix("&"))
                assert words[0] == "python"
                file = self.folder / words[1]
                program = file.read_text("utf-8") if file.exists() else command
                self.start([sys.executable, *words[1:]], program)
                continue
            done = subprocess.run(
                ["sh", "-c", f'python() {{ {shlex.quote(sys.executable)} "$@"; }}\n{command}'],
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                text=True,
                timeout=PATIENCE_SECONDS,
            )
            assert done.returncode == 0, command
            check_output(done.stdout, expected)


def end(process: subprocess.Popen[bytes]) -> None:
    """End a server, which has had nothing to complain of."""
    process.terminate()
    try:
        _, complaints = process.communicate(timeout=PATIENCE_SECONDS)
    finally:
        process.kill()
    assert complaints == b""


def handle(conn: Any) -> None:
    """Answer one request; who takes more than 30 seconds gets 408."""
    try:
        with timeout(30):
            conn.readln()
            conn.write(b"200\n")
    except TimeoutError:
        conn.write(b"408\n")


@pytest.fixture
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def page_parameter(page: Path) -> Any:
    what = PAGES_OF_OPTIMISATIONS.get(page.name)
    marks = [] if what is None else [pytest.mark.optimisation(what)]
    return pytest.param(page, id=page.stem, marks=marks)


@pytest.mark.parametrize("page", [page_parameter(page) for page in PAGES])
def test_blocks_do_what_the_page_says(page: Path, in_folder: Path) -> None:
    run = Run(page, in_folder)
    if "$ openssl" in run.text and shutil.which("openssl") is None:
        pytest.skip("the openssl command is not installed")
    with contextlib.nullcontext() if "<!-- real time -->" in run.text else virtual_time():
        run.run()
        run.names.clear()
        gc.collect()  # whatever was not closed says so now
    assert run.not_run == NOT_RUN.get(page.name, 0)


NAME = "```python\nname = 1\n```\n"
HELLO = "```python\nprint('hello')\n```\n"
ECHO = """```python
# echo.py
from pycoronet import serve
serve(("127.0.0.1", 7000), lambda conn, address: [conn.write(line) for line in conn])
```
```console
$ python echo.py &
```
"""


TALK = """```python
from pycoronet import connect
conn = connect(("127.0.0.1", 7000))
conn.write(b"hello\\n")
assert conn.readln() in (b"hello\\n", b"")
conn.close()
```
"""


@pytest.mark.parametrize(
    "text",
    [
        HELLO + "```text\nhello\n```",
        HELLO.replace(")", ")  # hello"),
        "<!-- each block is a whole program -->\n"
        + NAME
        + "```python\nassert 'name' not in dir()\n```",
        NAME + "```python\nassert name == 1\n```",
        "```python\n# one.py\nprint(2 - 1)\n```\n```console\n$ python one.py\n1\n$ echo 2\n2\n```",
        ECHO + TALK,
    ],
)
def test_good_blocks_pass(text: str, in_folder: Path) -> None:
    (in_folder / "page.md").write_text(text)
    Run(in_folder / "page.md", in_folder).run()


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("```python\n1 / 0\n```", ZeroDivisionError),
        ("```python\ndef test_it():\n    assert False\n```", AssertionError),
        ("<!-- not run: no -->\n```python\nno Python\n```", SyntaxError),
        (HELLO, AssertionError),
        (HELLO + "```text\ngood bye\n```", AssertionError),
        (HELLO.replace(")", ")  # good bye"), AssertionError),
        ("```console\n$ echo 1\n2\n```", AssertionError),
        ("```console\n$ false\n```", AssertionError),
        (ECHO.replace("serve(", "1 / 0, serve("), AssertionError),
        (ECHO.replace("[conn", "0 / [conn") + TALK, AssertionError),  # it complains on stderr
    ],
)
def test_broken_blocks_fail(text: str, error: type[Exception], in_folder: Path) -> None:
    (in_folder / "page.md").write_text(text)
    with pytest.raises(error):
        Run(in_folder / "page.md", in_folder).run()
