"""Builds extensions on the C API, for its tests: c_api/probe.c, and the one in examples/c_api."""

from __future__ import annotations

import functools
import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import pycoronet

ROOT = Path(__file__).resolve().parent.parent
SUFFIX = sysconfig.get_config_var("EXT_SUFFIX")
STRICT = ("-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Wundef", "-Wpointer-arith", "-Werror")


def find_compiler(variable: str = "CC") -> list[str]:
    """Return the command of the C compiler, or with CXX of the C++ one; skip without it."""
    command = os.environ.get(variable) or sysconfig.get_config_var(variable) or ""
    words = shlex.split(command)
    if not words or shutil.which(words[0]) is None:
        pytest.skip(f"needs a compiler: {variable}")
    if not (Path(sysconfig.get_path("include")) / "Python.h").exists():
        pytest.skip("needs Python's headers")
    return words


def run(command: list[Any], **options: Any) -> str:
    """Run a command that has to succeed; return what it says."""
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=200, **options
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def include_flags() -> list[str]:
    """Return the folder of our header and, as a system's, of Python's."""
    folders = {sysconfig.get_path("include"), sysconfig.get_path("platinclude")}
    flags = [f"-I{pycoronet.get_include()}"]
    for folder in sorted(folders):
        flags += ["-isystem", folder]
    if hasattr(sys, "gettotalrefcount") and "clang" not in find_compiler()[0]:
        # Debian's headers of a debug build are links, which gcc would follow: to headers that
        # say that this is none, and references would go uncounted.
        flags.append("-fno-canonical-system-headers")
    return flags


def compile_extension(source: Path, target: Path, *flags: str) -> Path:
    """Compile one C file to an extension module, without any warning."""
    lookup = ["-undefined", "dynamic_lookup"] if sys.platform == "darwin" else []
    shared = "-bundle" if sys.platform == "darwin" else "-shared"
    command = [*find_compiler(), "-std=c99", "-O1", "-g", "-D_GNU_SOURCE", *STRICT, *flags]
    run([*command, *include_flags(), "-fPIC", "-pthread", shared, *lookup, source, "-o", target])
    return target


def load(name: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@functools.cache
def load_probe(folder: Path) -> Any:
    """Build and load c_api/probe.c; once, for an extension cannot be let go of."""
    source = ROOT / "tests/c_api/probe.c"
    return load("coronet_probe", compile_extension(source, folder / f"coronet_probe{SUFFIX}"))


def build_example(folder: Path) -> Path:
    """Build the example as its users do; return the folder it can be imported from."""
    find_compiler()
    place = folder / "c_api"
    shutil.copytree(ROOT / "examples/c_api", place)
    run([sys.executable, "setup.py", "--quiet", "build_ext", "--inplace"], cwd=place)
    return place
