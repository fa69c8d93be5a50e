"""Compiles and links the extension for systems that are not this one, with zig's headers.

Run by `make check-platforms`. For each target the C files that setup.py would choose there
are compiled with setup.py's flags and with warnings as errors, against the headers of that
system and of the Python that runs this. Then they are linked: once as the extension is,
to see that the init function is all that it exports, and once more with stand-ins for what
comes from Python, so that the linker finds whatever that system's C library does not have.

pyconfig.h is Linux's all the same. It cannot mislead the extension, which takes no decision
by its HAVE_ macros (tests/test_source_rules.py sees to that). Nothing is executed.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import subprocess
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from symbols import read_symbols

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build" / "platforms" / f"python{platform.python_version()}"
CACHE = ROOT / "build" / "platforms" / "cache"
INIT_FUNCTION = "PyInit__coronet"
OF_THE_LINKER = {"__dso_handle", "_mh_dylib_header"}  # in every library for macOS
IS_PYTHONS = re.compile(r"_?Py[A-Z_]\w*")


class Target(NamedTuple):
    """A system to compile for: zig's name for it, and Python's names."""

    name: str
    system: str
    machine: str


TARGETS = (
    Target("aarch64-macos", "Darwin", "arm64"),
    Target("x86_64-macos", "Darwin", "x86_64"),
    Target("x86_64-freebsd", "FreeBSD", "amd64"),
    Target("aarch64-freebsd", "FreeBSD", "arm64"),
)


class CheckError(Exception):
    """A check did not pass; the text says it in the compiler's words."""


def load_setup() -> ModuleType:
    """Return setup.py as a module; it builds nothing when it is imported."""
    spec = importlib.util.spec_from_file_location("pycoronet_setup", ROOT / "setup.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def arrange_headers(headers: Path, multiarch: str | None, place: Path) -> Path:
    """Return a directory with Python.h and a pyconfig.h that other systems can read.

    Debian keeps the real pyconfig.h in a directory named after the processor, and in its
    stead one that refuses every system but Debian's own. Python.h asks for the one beside
    itself, so links to all headers are put into [place], with the real one among them.
    """
    real = headers.parent / (multiarch or "") / headers.name / "pyconfig.h"
    if not multiarch or not real.exists():
        return headers
    place.mkdir(parents=True, exist_ok=True)
    for header in [*headers.iterdir(), real]:
        link = place / header.name
        link.unlink(missing_ok=True)
        link.symlink_to(header)
    return place


def write_stand_ins(names: set[str]) -> str:
    """Return C that defines [names]; only a linker will ever look at it."""
    return "".join(f"char {name}[1];\n" for name in sorted(names))


def zig_cc(target: Target, *arguments: str | Path) -> None:
    """Run zig's clang for [target]; CheckError with its words if it does not succeed."""
    import ziglang

    zig = Path(ziglang.__file__).with_name("zig")
    caches = {"ZIG_GLOBAL_CACHE_DIR": str(CACHE), "ZIG_LOCAL_CACHE_DIR": str(CACHE)}
    done = subprocess.run(
        [zig, "cc", "-target", target.name, *arguments],
        cwd=ROOT,
        env={**os.environ, **caches},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise CheckError(done.stdout.strip() or f"zig ended with {done.returncode}")


def compile_source(target: Target, flags: list[str], source: str) -> Path:
    """Compile one C file; return its object."""
    target_object = BUILD / target.name / f"{Path(source).stem}.o"
    zig_cc(target, *flags, "-c", source, "-o", target_object)
    return target_object


def check_linked(target: Target, link_flags: list[str], objects: list[Path]) -> str:
    """Link [objects] in both ways; return what is to be said about it."""
    folder = BUILD / target.name
    # What `-bundle -undefined dynamic_lookup` is to Apple's linker; zig's has no bundles.
    lookup = ["-undefined", "dynamic_lookup"] if target.system == "Darwin" else []
    extension = folder / "_coronet.so"
    zig_cc(target, "-shared", *lookup, *link_flags, *objects, "-o", extension)
    symbols = read_symbols(extension.read_bytes())
    exported = symbols.exported - OF_THE_LINKER
    if exported != {INIT_FUNCTION}:
        raise CheckError(f"it exports {', '.join(sorted(exported)) or 'nothing'}")

    of_python = {name for name in symbols.wanted if IS_PYTHONS.fullmatch(name)}
    stand_ins = folder / "stand_ins.c"
    stand_ins.write_text(write_stand_ins(of_python))
    strict = [] if target.system == "Darwin" else ["-Wl,-z,defs"]
    complete = folder / "complete.so"
    zig_cc(target, "-shared", *strict, *link_flags, *objects, stand_ins, "-o", complete)
    of_system = len(symbols.wanted - of_python)
    return (
        f"{len(objects)} files compiled and linked; {INIT_FUNCTION} exported, "
        f"{len(of_python)} symbols of Python's and {of_system} of the system's used"
    )


def check_target(target: Target, headers: list[str], pool: ThreadPoolExecutor) -> str:
    """Compile and link for [target]; return what is to be said, or raise CheckError."""
    setup = load_setup()
    flags = setup.choose_flags(
        {"CORONET_WERROR": "1"},
        system=target.system,
        machine=target.machine,
        compiler="clang",
    )
    macros = [f"-D{name}" + (f"={value}" if value else "") for name, value in flags.macros]
    compile_flags = [*flags.compile, *macros, *headers, "-fPIC"]
    (BUILD / target.name).mkdir(parents=True, exist_ok=True)
    jobs = [
        pool.submit(compile_source, target, compile_flags, source)
        for source in setup.find_sources(target.system)
    ]
    # All of them are waited for: one run tells everything that is wrong.
    errors = [str(error) for job in jobs if (error := job.exception()) is not None]
    if errors:
        raise CheckError("\n".join(errors))
    return check_linked(target, flags.link, [job.result() for job in jobs])


def main() -> int:
    """Check all targets; return 1 if something does not pass anywhere, otherwise 0."""
    import greenlet

    os.chdir(ROOT)  # setup.py looks for the sources from there
    include = Path(sysconfig.get_path("include"))
    multiarch = sysconfig.get_config_var("MULTIARCH")
    python_headers = arrange_headers(include, multiarch, BUILD / "headers")
    greenlet_headers = Path(greenlet.__file__).resolve().parents[1]
    headers = ["-isystem", str(python_headers), "-isystem", str(greenlet_headers)]
    failure_count = 0
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for target in TARGETS:
            try:
                print(f"{target.name}: {check_target(target, headers, pool)}", flush=True)
            except CheckError as error:
                failure_count += 1
                print(f"{target.name}: FAILED\n{error}", flush=True)
    return 1 if failure_count else 0


if __name__ == "__main__":
    sys.exit(main())
