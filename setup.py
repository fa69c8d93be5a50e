"""How the C core is compiled; everything that is plain metadata stands in pyproject.toml.

Five switches of the environment change the build, for the people who work on it:

    CORONET_DEBUG=1            no optimisation, asserts on; counters of what is alive
    CORONET_HARD_MODE=1        what is rare happens all the time (csrc/hard_mode.h)
    CORONET_SANITIZE=a,b       the named gcc or clang sanitizers, such as address,undefined
    CORONET_COVERAGE=1         no optimisation, asserts on; counters for gcov, and calls that
                               fail when asked (tests/coverage)
    CORONET_KQUEUE=shim        on Linux: the kqueue engine too, over tests/kqshim, or with
                               libkqueue over that library, which pkg-config has to find

Warnings are errors if CORONET_WERROR is set (the Makefile sets it where CI is set), and
only then: a newer compiler with a new warning is no reason for an installation to fail.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shlex
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from glob import glob
from os.path import basename, dirname, exists, getmtime, join
from typing import Any, NamedTuple

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

WARNINGS = [
    "-Wall",
    "-Wextra",
    "-Wshadow",
    "-Wstrict-prototypes",
    "-Wmissing-prototypes",
    "-Wconversion",
    "-Wcast-function-type",
    "-Wpointer-arith",
    "-Wvla",
    "-Wundef",
]

# None of these raises the oldest glibc that a wheel runs on.
HARDENING = ["-fstack-protector-strong", "-fstack-clash-protection"]
HARDENING_LINK = ["-Wl,-z,relro,-z,now"]


# What other extensions include; get_include() of the package.
PUBLIC_HEADERS = join("pycoronet", "include")


class Flags(NamedTuple):
    """What the compiler and the linker are told, apart from the include directories."""

    compile: list[str]
    link: list[str]
    macros: list[tuple[str, str | None]]


def is_on(environment: Mapping[str, str], name: str) -> bool:
    """Tell whether a switch is set to anything but an empty string, 0, no or false."""
    return environment.get(name, "").lower() not in ("", "0", "no", "false")


def choose_flags(
    environment: Mapping[str, str], *, system: str, machine: str, compiler: str
) -> Flags:
    """Return the flags for one build; a function of its arguments alone."""
    compile_flags = ["-std=c11", "-fvisibility=hidden", f"-I{PUBLIC_HEADERS}", *WARNINGS]
    link_flags: list[str] = []
    macros: list[tuple[str, str | None]] = [("_GNU_SOURCE", None)]
    is_clang = "clang" in compiler
    is_linux = system == "Linux"
    sanitizers = environment.get("CORONET_SANITIZE", "").strip()
    is_debug = is_on(environment, "CORONET_DEBUG")
    is_counting = is_on(environment, "CORONET_COVERAGE")

    if is_clang:
        # CPython's tables of methods cannot do without casts between function types; the
        # stricter warning about them came late, and older clangs do not know its name.
        compile_flags += ["-Wno-unknown-warning-option", "-Wno-cast-function-type-strict"]
    if is_on(environment, "CORONET_WERROR"):
        compile_flags.append("-Werror")

    if sanitizers:
        compile_flags += ["-O1", "-g", "-UNDEBUG"]
    elif is_debug or is_counting:
        compile_flags += ["-O0", "-g3", "-UNDEBUG"]
    else:
        # What the debugger reads would be three quarters of a wheel. Names of functions stay.
        compile_flags += ["-O2", "-g0"]
    if is_debug:
        macros.append(("CORONET_DEBUG", "1"))
    if is_on(environment, "CORONET_HARD_MODE"):
        macros.append(("CORONET_HARD_MODE", "1"))

    # The C library of Linux refuses _FORTIFY_SOURCE without optimisation, and the
    # sanitizers want to see the plain calls. Some Pythons bring a level of their own.
    compile_flags.append("-U_FORTIFY_SOURCE")
    if is_linux and not sanitizers:
        compile_flags += HARDENING
        link_flags += HARDENING_LINK
        if not is_debug and not is_counting:
            compile_flags.append("-D_FORTIFY_SOURCE=3")
        if machine in ("x86_64", "AMD64", "i686"):
            compile_flags.append("-fcf-protection")

    if sanitizers:
        compile_flags += [
            f"-fsanitize={sanitizers}",
            "-fno-omit-frame-pointer",
            "-fno-wrapv",
        ]
        link_flags.append(f"-fsanitize={sanitizers}")
        if "undefined" in sanitizers.split(","):
            compile_flags.append("-fno-sanitize-recover=undefined")
        if "address" in sanitizers.split(","):
            # greenlet moves pieces of the C stack, which instrumented frames do not
            # survive. The heap is checked all the same.
            if is_clang:
                compile_flags += ["-mllvm", "-asan-stack=0"]
                compile_flags += ["-mllvm", "-asan-instrument-dynamic-allocas=0"]
            else:
                compile_flags += ["--param", "asan-stack=0"]
                compile_flags += ["--param", "asan-instrument-allocas=0"]
        if "thread" in sanitizers.split(","):
            # A switch of greenlets leaves functions by another way than it came in, of which
            # the sanitizer's own record of calls knows nothing.
            option = "tsan-instrument-func-entry-exit=0"
            compile_flags += ["-mllvm", f"-{option}"] if is_clang else ["--param", option]

    if is_counting:
        compile_flags += ["--coverage", "-fprofile-update=atomic"]
        link_flags.append("--coverage")
    return Flags(compile_flags, link_flags, macros)


def find_compiler() -> str:
    """Return the compiler's command with its own words about itself, to tell clang."""
    command = os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc"
    try:
        version = subprocess.run(
            [*shlex.split(command), "--version"],
            capture_output=True,
            text=True,
            check=False,
        ).stdout
    except OSError:
        version = ""
    return f"{command} {version}"


def ask_pkg_config(option: str) -> list[str]:
    """Return what pkg-config says about libkqueue."""
    try:
        answer = subprocess.run(
            ["pkg-config", option, "libkqueue"], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        raise SystemExit("CORONET_KQUEUE: pkg-config does not find libkqueue") from None
    return shlex.split(answer.stdout)


def choose_kqueue(environment: Mapping[str, str], *, system: str) -> tuple[list[str], Flags]:
    """Return the C files and the flags that bring kqueue to Linux, for tests; or nothing."""
    name = environment.get("CORONET_KQUEUE", "")
    if name == "":
        return [], Flags([], [], [])
    if system != "Linux" or name not in ("shim", "libkqueue"):
        raise SystemExit(f"CORONET_KQUEUE is shim or libkqueue, on Linux: {name!r}, {system}")
    macros: list[tuple[str, str | None]] = [("CORONET_HAVE_KQUEUE", "1")]
    if name == "shim":
        sources = sorted(glob("tests/kqshim/*.c"))
        return sources, Flags(["-isystem", "tests/kqshim"], [], macros)
    headers: list[str] = []
    for flag in ask_pkg_config("--cflags"):
        headers += ["-isystem", flag[2:]] if flag.startswith("-I") else [flag]
    # Found again where it was found now.
    paths = [f"-Wl,-rpath,{path}" for path in ask_pkg_config("--variable=libdir")]
    return [], Flags(headers, [*ask_pkg_config("--libs"), *paths], macros)


def choose_failing_calls(environment: Mapping[str, str]) -> tuple[list[str], Flags]:
    """Return the C file and the flags by which calls of builds for coverage can fail."""
    if not is_on(environment, "CORONET_COVERAGE"):
        return [], Flags([], [], [])
    source = join("tests", "coverage", "failing_calls.c")
    with open(source, encoding="utf-8") as file:
        names = re.findall(r"^FAILS_\w+\((\w+)\);", file.read(), re.MULTILINE)
    return [source], Flags([], [f"-Wl,--wrap={name}" for name in names], [])


def find_sources(system: str, *, has_kqueue: bool = False) -> list[str]:
    """Return the C files, without the wait-loop backend that [system] cannot have."""
    foreign = "kqueue_engine.c" if system == "Linux" else "epoll_engine.c"
    return sorted(path for path in glob("csrc/*.c") if has_kqueue or basename(path) != foreign)


def choose_header_flags(
    directories: Iterable[str], *, compiler: str, counts_references: bool
) -> list[str]:
    """Return the flags for the headers of others, so that our warnings are about our own code."""
    flags = [flag for directory in directories for flag in ("-isystem", directory)]
    if counts_references and "clang" not in compiler:
        # Debian's headers of a debug build are links to those of the other one, which gcc
        # would follow: to a pyconfig.h that says that this is no debug build.
        flags.append("-fno-canonical-system-headers")
    return flags


def make_extension() -> Extension:
    """Describe the one extension module, from the C files in csrc."""
    import greenlet  # a requirement of the build: its header lies inside the package

    compiler = find_compiler()
    flags = choose_flags(
        os.environ,
        system=platform.system(),
        machine=platform.machine(),
        compiler=compiler,
    )
    stand_in, kqueue_flags = choose_kqueue(os.environ, system=platform.system())
    failing_calls, failing_flags = choose_failing_calls(os.environ)
    directories = (
        dirname(dirname(greenlet.__file__)),
        sysconfig.get_path("include"),
        sysconfig.get_path("platinclude"),
    )
    header_flags = choose_header_flags(
        directories, compiler=compiler, counts_references=hasattr(sys, "gettotalrefcount")
    )
    return Extension(
        "pycoronet._coronet",
        sources=find_sources(platform.system(), has_kqueue=kqueue_flags.macros != [])
        + stand_in
        + failing_calls,
        depends=[
            *sorted(glob("csrc/*.h")),
            *glob(join(PUBLIC_HEADERS, "*.h")),
            *glob("tests/kqshim/**/*.h", recursive=True),
            "setup.py",
        ],
        define_macros=flags.macros + kqueue_flags.macros,
        extra_compile_args=[*flags.compile, *kqueue_flags.compile, *header_flags],
        extra_link_args=flags.link + kqueue_flags.link + failing_flags.link,
    )


class ParallelBuild(build_ext):
    """Compiles on all cores, and leaves an object alone that is newer than its inputs.

    Objects lie in a directory named after the flags, so builds with different flags
    never mix. An object depends on its source and on all headers: coarse and safe.
    """

    def build_extension(self, ext: Extension) -> None:
        """Build [ext] with a compile step of our own around the compiler's."""
        command = self.compiler.compiler_so  # with what CC and CFLAGS say
        key = repr((command, ext.extra_compile_args, ext.define_macros))
        flags_name = hashlib.sha256(key.encode()).hexdigest()[:12]
        directory = join(self.build_temp, flags_name)
        compile_one = self.compiler.compile
        newest_input = max(getmtime(path) for path in ext.depends)

        def compile_parallel(sources: list[str], **options: Any) -> list[str]:
            options["output_dir"] = directory

            def compile_if_older(source: str) -> str:
                (result,) = self.compiler.object_filenames([source], output_dir=directory)
                newest = max(newest_input, getmtime(source))
                if not exists(result) or getmtime(result) <= newest:
                    compile_one([source], **options)
                return result

            with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
                return list(pool.map(compile_if_older, sources))

        self.compiler.compile = compile_parallel
        try:
            super().build_extension(ext)
        finally:
            self.compiler.compile = compile_one


# Build tools run this file; the tests import it for choose_flags.
if __name__ == "__main__":
    if sys.platform == "win32":
        raise SystemExit("pycoronet needs epoll or kqueue: Linux, macOS or a BSD")
    setup(ext_modules=[make_extension()], cmdclass={"build_ext": ParallelBuild})
