"""What setup.py tells the compiler, what it compiles anew, and what the metadata says."""

from __future__ import annotations

import importlib
import importlib.util
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

pytest.importorskip("setuptools", reason="setup.py needs setuptools")


@pytest.fixture(scope="module")
def setup_module(root: Path) -> ModuleType:
    """Return setup.py as a module; it builds nothing when it is imported."""
    spec = importlib.util.spec_from_file_location("pycoronet_setup", root / "setup.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def project(root: Path) -> dict[str, Any]:
    """Return what pyproject.toml says."""
    return tomllib.loads((root / "pyproject.toml").read_text("utf-8"))


def choose(setup_module: ModuleType, *, system: str = "Linux", **switches: str) -> Any:
    """Return the flags for [switches] on a plain x86_64 machine with gcc."""
    compiler = switches.pop("compiler", "gcc 12")
    return setup_module.choose_flags(switches, system=system, machine="x86_64", compiler=compiler)


def test_flags_by_default_are_optimised_hardened_and_hidden(
    setup_module: ModuleType,
) -> None:
    flags = choose(setup_module)
    for flag in (
        "-std=c11",
        "-O2",
        "-fvisibility=hidden",
        "-D_FORTIFY_SOURCE=3",
        "-Wshadow",
    ):
        assert flag in flags.compile
    assert flags.link == ["-Wl,-z,relro,-z,now"]
    assert flags.macros == [("_GNU_SOURCE", None)]


@pytest.mark.parametrize("value", ["", "0", "no", "False"])
def test_flags_switch_set_to_no_is_off(setup_module: ModuleType, value: str) -> None:
    assert choose(setup_module, CORONET_DEBUG=value) == choose(setup_module)


def test_flags_warnings_are_errors_only_when_asked_for(setup_module: ModuleType) -> None:
    assert "-Werror" in choose(setup_module, CORONET_WERROR="1").compile
    # Many people install in a CI job of their own, with a compiler we have not met.
    assert "-Werror" not in choose(setup_module, CI="true").compile


def test_flags_debug_has_asserts_and_no_fortify(setup_module: ModuleType) -> None:
    flags = choose(setup_module, CORONET_DEBUG="1", CORONET_HARD_MODE="1")
    assert {"-O0", "-g3", "-UNDEBUG"} <= set(flags.compile)
    assert "-O2" not in flags.compile
    assert not any(flag.startswith("-D_FORTIFY_SOURCE") for flag in flags.compile)
    assert ("CORONET_DEBUG", "1") in flags.macros
    assert ("CORONET_HARD_MODE", "1") in flags.macros


def test_flags_sanitizers_leave_the_stack_alone(setup_module: ModuleType) -> None:
    flags = choose(setup_module, CORONET_SANITIZE="address,undefined")
    assert "-fsanitize=address,undefined" in flags.compile
    assert "-fsanitize=address,undefined" in flags.link
    assert flags.compile[flags.compile.index("asan-stack=0") - 1] == "--param"
    clang = choose(setup_module, CORONET_SANITIZE="address", compiler="cc clang version 14")
    assert clang.compile[clang.compile.index("-asan-stack=0") - 1] == "-mllvm"
    assert "asan-stack=0" not in clang.compile


def test_flags_sanitizers_go_with_the_counters_of_a_debug_build(setup_module: ModuleType) -> None:
    flags = choose(setup_module, CORONET_DEBUG="1", CORONET_SANITIZE="address")
    assert ("CORONET_DEBUG", "1") in flags.macros
    assert "-O1" in flags.compile
    assert "-O0" not in flags.compile


@pytest.mark.parametrize(
    ("compiler", "option"), [("gcc 12", "--param"), ("Debian clang version 14", "-mllvm")]
)
def test_flags_thread_sanitizer_keeps_no_record_of_calls(
    setup_module: ModuleType, compiler: str, option: str
) -> None:
    flags = choose(setup_module, CORONET_SANITIZE="thread", compiler=compiler)
    assert option in flags.compile
    assert any(flag.endswith("tsan-instrument-func-entry-exit=0") for flag in flags.compile)
    assert not any("asan-stack" in flag for flag in flags.compile)


@pytest.mark.parametrize(
    ("compiler", "counts_references", "is_expected"),
    [("gcc 12", True, True), ("gcc 12", False, False), ("clang 14", True, False)],
)
def test_headers_of_a_debug_python_are_its_own(
    setup_module: ModuleType, compiler: str, counts_references: bool, is_expected: bool
) -> None:
    flags = setup_module.choose_header_flags(
        ["/a", "/b"], compiler=compiler, counts_references=counts_references
    )
    assert flags[:4] == ["-isystem", "/a", "-isystem", "/b"]
    assert ("-fno-canonical-system-headers" in flags) == is_expected


def test_flags_coverage_counts(setup_module: ModuleType) -> None:
    flags = choose(setup_module, CORONET_COVERAGE="1")
    assert {"--coverage", "-O0", "-UNDEBUG"} <= set(flags.compile)
    assert "--coverage" in flags.link
    sources, failing = setup_module.choose_failing_calls({"CORONET_COVERAGE": "1"})
    assert len(sources) == 1
    assert {"-Wl,--wrap=malloc", "-Wl,--wrap=PyTuple_New"} <= set(failing.link)


def test_flags_without_coverage_no_call_can_fail_on_demand(setup_module: ModuleType) -> None:
    assert setup_module.choose_failing_calls({}) == ([], setup_module.Flags([], [], []))


def test_flags_elsewhere_have_nothing_of_linux(setup_module: ModuleType) -> None:
    flags = choose(setup_module, system="Darwin", compiler="clang")
    assert flags.link == []
    assert "-fcf-protection" not in flags.compile


def test_flags_other_processors_have_no_intel_hardening(setup_module: ModuleType) -> None:
    flags = setup_module.choose_flags({}, system="Linux", machine="aarch64", compiler="gcc")
    assert "-fcf-protection" not in flags.compile
    assert "-fstack-protector-strong" in flags.compile


def test_sources_leave_out_the_other_systems_engine(
    setup_module: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "csrc").mkdir()
    for name in ("epoll_engine.c", "kqueue_engine.c", "coronet.c"):
        (tmp_path / "csrc" / name).touch()
    monkeypatch.chdir(tmp_path)
    assert setup_module.find_sources("Linux") == ["csrc/coronet.c", "csrc/epoll_engine.c"]
    assert setup_module.find_sources("Darwin") == ["csrc/coronet.c", "csrc/kqueue_engine.c"]
    both = setup_module.find_sources("Linux", has_kqueue=True)
    assert both == ["csrc/coronet.c", "csrc/epoll_engine.c", "csrc/kqueue_engine.c"]


def test_kqueue_is_for_who_asks_for_it(
    setup_module: ModuleType, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(root)
    sources, flags = setup_module.choose_kqueue({}, system="Linux")
    assert (sources, *flags) == ([], [], [], [])
    sources, flags = setup_module.choose_kqueue({"CORONET_KQUEUE": "shim"}, system="Linux")
    assert flags.macros == [("CORONET_HAVE_KQUEUE", "1")]
    assert flags.link == []
    assert flags.compile[0] == "-isystem"
    assert (root / flags.compile[1] / "sys/event.h").is_file()
    assert "tests/kqshim/kqueue_shim.c" in sources


def test_kqueue_of_the_library_is_where_pkg_config_says(
    setup_module: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = {"--cflags": "-pthread -I/a/kqueue", "--libs": "-L/b -lkqueue"}
    answers["--variable=libdir"] = "/b"
    cases = "".join(f"{option}) echo {text};;\n" for option, text in answers.items())
    program = tmp_path / "pkg-config"
    program.write_text(f'#!/bin/sh\n[ "$2" = libkqueue ] || exit 1\ncase $1 in\n{cases}esac\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    environment = {"CORONET_KQUEUE": "libkqueue"}
    sources, flags = setup_module.choose_kqueue(environment, system="Linux")
    assert sources == []
    assert flags.compile == ["-pthread", "-isystem", "/a/kqueue"]
    assert flags.link == ["-L/b", "-lkqueue", "-Wl,-rpath,/b"]
    program.unlink()
    with pytest.raises(SystemExit, match="does not find libkqueue"):
        setup_module.choose_kqueue(environment, system="Linux")


@pytest.mark.parametrize(("system", "name"), [("Linux", "real"), ("Darwin", "shim")])
def test_kqueue_that_cannot_be_is_refused(setup_module: ModuleType, system: str, name: str) -> None:
    with pytest.raises(SystemExit, match=name):
        setup_module.choose_kqueue({"CORONET_KQUEUE": name}, system=system)


def test_flags_clang_lets_method_tables_be(setup_module: ModuleType) -> None:
    flags = choose(setup_module, compiler="cc Apple clang version 16").compile
    # Behind the option that it takes a part away from.
    strict = flags.index("-Wno-cast-function-type-strict")
    assert strict > flags.index("-Wcast-function-type")
    assert "-Wno-cast-function-type-strict" not in choose(setup_module).compile


@pytest.fixture(scope="module")
def platforms(root: Path) -> Iterator[tuple[ModuleType, ModuleType]]:
    """Return the two modules of the check for other systems; they need no zig."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(root / "tests" / "platforms")
        yield importlib.import_module("check"), importlib.import_module("symbols")
        for name in ("check", "symbols"):
            del sys.modules[name]


def test_platforms_headers_are_left_where_they_are_complete(
    platforms: tuple[ModuleType, ModuleType], tmp_path: Path
) -> None:
    headers = tmp_path / "include/python3.13"
    headers.mkdir(parents=True)
    place = tmp_path / "place"
    for multiarch in (None, "", "x86_64-linux-gnu"):
        assert platforms[0].arrange_headers(headers, multiarch, place) == headers
    assert not place.exists()


def test_platforms_headers_of_debian_get_the_real_pyconfig(
    platforms: tuple[ModuleType, ModuleType], tmp_path: Path
) -> None:
    headers = tmp_path / "include/python3.11"
    real = tmp_path / "include/x86_64-linux-gnu/python3.11/pyconfig.h"
    for path in (headers / "Python.h", headers / "cpython/object.h", real):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(path.name)
    (headers / "pyconfig.h").write_text("#error")
    for _ in range(2):  # the second time over the first one's links
        place = platforms[0].arrange_headers(headers, "x86_64-linux-gnu", tmp_path / "place")
    assert (place / "Python.h").read_text() == "Python.h"
    assert (place / "cpython/object.h").read_text() == "object.h"
    assert (place / "pyconfig.h").read_text() == "pyconfig.h"
    assert (headers / "pyconfig.h").read_text() == "#error"


def test_platforms_stand_ins_are_for_pythons_names_alone(
    platforms: tuple[ModuleType, ModuleType],
) -> None:
    check = platforms[0]
    assert check.write_stand_ins({"_Py_NoneStruct", "PyErr_Clear"}) == (
        "char PyErr_Clear[1];\nchar _Py_NoneStruct[1];\n"
    )
    names = ["PyErr_Clear", "_Py_NoneStruct", "_PyObject_New", "Pythagoras", "pthread_self"]
    assert [bool(check.IS_PYTHONS.fullmatch(name)) for name in names] == [True] * 3 + [False] * 2


def test_platforms_symbols_of_the_extension_are_read(
    platforms: tuple[ModuleType, ModuleType],
) -> None:
    spec = importlib.util.find_spec("pycoronet._coronet")
    assert spec is not None
    assert spec.origin is not None
    found = platforms[1].read_symbols(Path(spec.origin).read_bytes())
    assert "PyInit__coronet" in found.exported
    assert {"PyErr_SetString", "recvmsg"} <= found.wanted
    assert found.wanted.isdisjoint(found.exported)


def test_platforms_symbols_of_mach_o_are_read(
    platforms: tuple[ModuleType, ModuleType],
) -> None:
    # Another command stands before the table, and of the five symbols two cross the border:
    # one is defined, one wanted, then a private, a local and a debugger's one.
    kinds = {"_PyInit_x": 0x0F, "_recv": 0x01, "_io_send": 0x1F, "_helper": 0x0E, "_a.c": 0x64}
    names = b"\0" + b"".join(name.encode() + b"\0" for name in kinds)
    entries, start = b"", 1
    for name, kind in kinds.items():
        entries += struct.pack("<IBBHQ", start, kind, 0, 0, 0)
        start += len(name) + 1
    table = 32 + 16 + 24
    content = platforms[1].MACH_O_MAGIC + bytes(12) + struct.pack("<I", 2) + bytes(12)
    content += struct.pack("<II8x", 0x1B, 16)
    content += struct.pack("<6I", 2, 24, table, len(kinds), table + len(entries), len(names))
    found = platforms[1].read_symbols(content + entries + names)
    assert found == ({"PyInit_x"}, {"recv"})


def test_platforms_symbols_of_another_file_are_refused(
    platforms: tuple[ModuleType, ModuleType],
) -> None:
    with pytest.raises(ValueError, match="neither"):
        platforms[1].read_symbols(b"MZ and so on")


def build_small_project(folder: Path) -> dict[str, int]:
    """Build the project in [folder]; return when each object was written."""
    environment = {key: os.environ[key] for key in ("PATH", "HOME") if key in os.environ}
    subprocess.run(
        [sys.executable, "setup.py", "--quiet", "build_ext", "--inplace", "--force"],
        cwd=folder,
        env=environment,
        check=True,
        timeout=50,
    )
    return {path.stem: path.stat().st_mtime_ns for path in (folder / "build").rglob("*.o")}


def test_build_compiles_anew_only_what_has_changed(root: Path, tmp_path: Path) -> None:
    if shutil.which("cc") is None:
        pytest.skip("no C compiler")
    pytest.importorskip("greenlet")
    shutil.copy(root / "setup.py", tmp_path)
    for folder in ("csrc", "pycoronet"):
        (tmp_path / folder).mkdir()
    (tmp_path / "pycoronet/__init__.py").touch()
    sources = {name: tmp_path / "csrc" / name for name in ("first.c", "second.c", "all.h")}
    for name, path in sources.items():
        path.write_text(
            f'extern int {path.stem}_{name[-1]};\n#include "all.h"\n' * (name != "all.h")
        )
    for path in [*sources.values(), tmp_path / "setup.py"]:
        os.utime(path, (1_000_000_000, 1_000_000_000))

    built = build_small_project(tmp_path)
    assert built.keys() == {"first", "second"}
    assert build_small_project(tmp_path) == built

    sources["first.c"].touch()
    after_edit = build_small_project(tmp_path)
    assert after_edit["first"] > built["first"]
    assert after_edit["second"] == built["second"]

    sources["all.h"].touch()
    after_header = build_small_project(tmp_path)
    assert after_header["first"] > after_edit["first"]
    assert after_header["second"] > after_edit["second"]


def test_metadata_version_is_the_projects(project: dict[str, Any]) -> None:
    assert metadata.version("pycoronet") == project["project"]["version"]


def test_metadata_greenlet_is_built_against_what_is_required(
    project: dict[str, Any],
) -> None:
    def greenlet_of(requirements: list[str]) -> list[str]:
        return [line for line in requirements if line.startswith("greenlet")]

    assert greenlet_of(project["project"]["dependencies"]) != []
    assert greenlet_of(project["project"]["dependencies"]) == greenlet_of(
        project["build-system"]["requires"]
    )


def test_metadata_package_data_lies_in_the_package() -> None:
    spec = importlib.util.find_spec("pycoronet")
    assert spec is not None
    assert spec.origin is not None
    for name in ("py.typed", "_coronet.pyi"):
        assert Path(spec.origin).with_name(name).is_file(), name
