"""What docs/c-api.md shows is built and run, and it names each function that there is."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from c_api_case import ROOT, SUFFIX, compile_extension, load, run
from thread_case import until

import pycoronet
from pycoronet import READ, sleep, spawn, to_thread

PAGE = (ROOT / "docs/c-api.md").read_text()


def block(language: str) -> str:
    """Return the page's one block in that language."""
    (found,) = re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    return str(found)


def test_page_names_each_function() -> None:
    header = (Path(pycoronet.get_include()) / "pycoronet.h").read_text()
    functions = re.findall(r"^(pycoronet_\w+)\(", header, re.MULTILINE)
    assert functions != []
    assert sorted(functions) == sorted(re.findall(r"^\| `(pycoronet_\w+)\(", PAGE, re.MULTILINE))


def test_page_extension_waits(tmp_path: Path, virtual_hub: object, pipe: tuple[int, int]) -> None:
    source = tmp_path / "waits.c"
    source.write_text(block("c"))
    module = load("waits", compile_extension(source, tmp_path / f"waits{SUFFIX}"))
    task = spawn(module.wait_for_bytes, pipe[0])
    sleep(1)
    assert not task.done
    os.write(pipe[1], b"x")
    assert task.get() is None
    os.read(pipe[0], 1)
    with pytest.raises(TimeoutError):
        module.wait_for_bytes(pipe[0], 1)
    assert pycoronet.wait_fd(pipe[1], pycoronet.WRITE) != READ


def test_page_cython_module_waits(tmp_path: Path) -> None:
    pytest.importorskip("Cython")
    (tmp_path / "jobs.pyx").write_text(block("cython"))
    run([sys.executable, "-m", "cython", "-3", "jobs.pyx"], cwd=tmp_path)
    source = tmp_path / "jobs.c"
    # Its warnings are Cython's.
    module: Any = load("jobs", compile_extension(source, tmp_path / f"jobs{SUFFIX}", "-O0", "-w"))
    answer = module.Answer()
    task = spawn(answer.wait, timeout=60)
    until(lambda: "Answer.wait" in repr(task))
    to_thread(answer.set, 42)
    assert task.get() == 42
    with pytest.raises(TimeoutError):
        answer.wait(0)
    with pytest.raises(ValueError, match="timeout"):
        answer.wait(-1)
