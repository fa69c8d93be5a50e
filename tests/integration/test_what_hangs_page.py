"""docs/what-hangs.md does what it says: its programs run, and print what stands there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
PAGE = (ROOT / "docs" / "what-hangs.md").read_text("utf-8")
PATIENCE_SECONDS = 30

PROGRAMS = re.findall(r"```python\n(.*?)```\n\n```text\n(.*?)```", PAGE, re.DOTALL)
(SERVER,) = re.findall(r"`server.py` is\n\n```python\n(.*?)```", PAGE, re.DOTALL)
(COMMANDS,) = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
(TABLE,) = re.findall(r"prints\n\n```text\n(.*?)```", PAGE, re.DOTALL)


def check(printed: str, expected: str) -> None:
    """See that what was printed is as expected: … is anything, and a time any time."""
    # Frames of the test's own start are no part of the page, nor are the marks of newer Pythons.
    printed = re.sub(r'  File "<string>".*in <module>\n(?:    .*\n)*', "", printed)
    printed = re.sub(r"\n +[~^]+(?=\n)", "", printed)
    pattern = re.escape(expected).replace("…", ".*")
    pattern = re.sub(r"\d+\\\.\d(?=\\ s)", r"\\d+\\.\\d", pattern)
    pattern = re.sub(r"(?:\\ ){2,}", " +", pattern)
    assert re.fullmatch(pattern, printed), printed


def test_page_has_its_programs() -> None:
    assert len(PROGRAMS) == 3
    assert PAGE.count("```python") == 4


@pytest.mark.parametrize("number", range(len(PROGRAMS)))
def test_program_prints_what_stands_below_it(number: int, tmp_path: Path) -> None:
    program, expected = PROGRAMS[number]
    file = tmp_path / "program.py"
    file.write_text(program)
    done = subprocess.run(
        [sys.executable, str(file)], capture_output=True, text=True, timeout=PATIENCE_SECONDS
    )
    assert (done.returncode, done.stderr) == (0, "")
    printed = re.sub(r'  File ".*", line \d+, in <module>\n(?:    .*\n)*', "", done.stdout)
    check(printed, expected)


@pytest.mark.optimisation("a task that has to wait is switched to once")
def test_ps_prints_the_table(tmp_path: Path) -> None:
    directory = tmp_path / "coronet"
    (tmp_path / "server.py").write_text(SERVER)
    make, export, start, ps = COMMANDS.replace("~/.coronet", str(directory)).splitlines()
    subprocess.run(make, shell=True, check=True, timeout=PATIENCE_SECONDS)
    name, _, value = export.removeprefix("export ").partition("=")
    options = {"cwd": tmp_path, "env": {**os.environ, name: value}}
    assert start == "python server.py &"
    with subprocess.Popen(
        [sys.executable, "server.py"], stdout=subprocess.PIPE, text=True, **options
    ) as server:
        try:
            assert server.stdout is not None
            assert server.stdout.readline() == "serving\n"
            words = ps.replace("$!", str(server.pid)).split()
            assert words[0] == "python"
            done = subprocess.run(
                [sys.executable, *words[1:]],
                capture_output=True,
                text=True,
                timeout=PATIENCE_SECONDS,
                **options,
            )
        finally:
            server.kill()
    assert (done.returncode, done.stderr) == (0, "")
    check(done.stdout, TABLE)
