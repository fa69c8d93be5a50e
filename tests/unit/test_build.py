"""What setup.py tells the compiler, what it compiles anew, and what the metadata says."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
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


def test_flags_coverage_counts(setup_module: ModuleType) -> None:
    flags = choose(setup_module, CORONET_COVERAGE="1")
    assert "--coverage" in flags.compile
    assert "--coverage" in flags.link


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
