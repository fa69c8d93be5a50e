"""What is published: what the sdist takes along, what the wheels are, what the workflows may.

The whole of it, with a wheel that is built, is `make check-package`.
"""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    """Return what pyproject.toml says."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


@pytest.fixture(scope="module")
def check() -> ModuleType:
    """Return the program behind `make check-package`."""
    spec = importlib.util.spec_from_file_location("check", ROOT / "tests/package/check.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def names(check: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Return what an sdist of the checkout takes along."""
    if not check.is_clone():
        pytest.skip("this is no clone: there is no list of its files")
    folder = tmp_path_factory.mktemp("sdist")
    # Not a whole sdist: that is laid out in the checkout, where others may do the same.
    command = [sys.executable, "-W", "ignore", "setup.py", "--quiet", "egg_info", "--egg-base"]
    subprocess.run([*command, folder], cwd=ROOT, check=True, timeout=50)
    listed = (folder / "pycoronet.egg-info/SOURCES.txt").read_text("utf-8").splitlines()
    return {name for name in listed if ".egg-info/" not in name}


def test_sdist_has_what_git_has_and_nothing_else(check: ModuleType, names: set[str]) -> None:
    check.check_names(names)
    for name in ("pycoronet/include/pycoronet.h", "tests/conftest.py", "examples/c_api/crunch.c"):
        assert name in names


@pytest.mark.parametrize("wrong", ["a file too few", "a file too many"])
def test_sdist_that_is_not_complete_is_found(
    check: ModuleType, names: set[str], wrong: str
) -> None:
    other = names - {"csrc/list.h"} if wrong == "a file too few" else names | {"notes.txt"}
    with pytest.raises(check.CheckError, match=r"csrc/list\.h|notes\.txt"):
        check.check_names(other)


def make_wheel(check: ModuleType, path: Path, *, without: str = "", extra: str = "") -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in check.read_package().items():
            if name != without:
                archive.writestr(name, data)
        archive.writestr("pycoronet/_coronet.so", b"")
        archive.writestr("pycoronet-1.dist-info/WHEEL", b"")
        if extra:
            archive.writestr(extra, b"")
    return path


def test_wheel_has_the_package_and_nothing_else(check: ModuleType, tmp_path: Path) -> None:
    assert "files" in check.check_wheel(make_wheel(check, tmp_path / "good.whl"))
    header = "pycoronet/include/pycoronet.h"
    with pytest.raises(check.CheckError, match=r"pycoronet\.h"):
        check.check_wheel(make_wheel(check, tmp_path / "without.whl", without=header))
    for extra, text in (("tests/case.py", "case"), ("pycoronet/old.so", "extensions")):
        with pytest.raises(check.CheckError, match=text):
            check.check_wheel(make_wheel(check, tmp_path / "more.whl", extra=extra))


def test_wheel_that_is_too_large_is_found(check: ModuleType, tmp_path: Path) -> None:
    wheel = tmp_path / "large.whl"
    wheel.write_bytes(bytes(check.MAX_WHEEL_BYTES - 1))
    assert check.check_size(wheel) == "499 KB"
    wheel.write_bytes(bytes(check.MAX_WHEEL_BYTES))
    with pytest.raises(check.CheckError, match="500000 bytes"):
        check.check_size(wheel)


def test_check_that_fails_says_what(check: ModuleType) -> None:
    with pytest.raises(check.CheckError, match="status 3\nwhy"):
        check.run("sh", "-c", "echo why; exit 3")


def test_wheels_are_for_the_pythons_of_the_metadata(
    check: ModuleType, project: dict[str, Any]
) -> None:
    prefix = "Programming Language :: Python :: 3."
    classifiers = project["project"]["classifiers"]
    minors = [line.removeprefix(prefix) for line in classifiers if line.startswith(prefix)]
    assert tuple(f"cp3{minor}" for minor in minors) == check.PYTHONS
    assert project["tool"]["cibuildwheel"]["build"] == [f"{tag}-*" for tag in check.PYTHONS]


def test_metadata_names_the_licence_once(project: dict[str, Any]) -> None:
    assert project["project"]["license"] == "MIT"
    assert project["project"]["license-files"] == ["LICENSE"]
    assert not any(line.startswith("License") for line in project["project"]["classifiers"])


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_pin_actions_and_ask_for_little(workflow: Path) -> None:
    text = workflow.read_text("utf-8")
    uses = re.findall(r"uses: *(.*)", text)
    assert uses != []
    for line in uses:
        assert re.fullmatch(r"[\w/-]+@[0-9a-f]{40} # v[\d.]+", line), line
    assert re.search(r"^permissions: \{\}$", text, re.MULTILINE)
    assert text.count("persist-credentials: false") == text.count("actions/checkout@")
    assert set(re.findall(r"^ {6}([\w-]+: (?:read|write))", text, re.MULTILINE)) <= {
        "contents: read",
        "id-token: write",
    }
    assert text.count("timeout-minutes:") == text.count("runs-on:")
