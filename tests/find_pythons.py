"""Print the Pythons of this machine that pycoronet can be built for, a line each.

    3.10 /usr/bin/python3.10

`make test-all` takes them. They are looked for on the PATH, then where pyenv and uv put theirs.
A version that is not found, or has no headers or no venv, is named on standard error.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

VERSIONS = ("3.10", "3.11", "3.12", "3.13", "3.14")

# A command of pyenv's is there for all versions, but answers for the chosen one alone. A
# build without the GIL has a "t" in its flags: greenlet and we are not made for it.
CHECK = """
import ensurepip, os, sys, sysconfig, venv
header = os.path.join(sysconfig.get_path("include"), "Python.h")
assert os.path.exists(header) and "t" not in sys.abiflags
print("{}.{}".format(*sys.version_info))
"""


def candidates(version: str) -> Iterator[str]:
    """Give the commands that may be a Python of a version."""
    if command := shutil.which(f"python{version}"):
        yield command
    for pattern in (
        f".pyenv/versions/{version}.*/bin/python{version}",
        f".local/share/uv/python/cpython-{version}.*/bin/python{version}",
    ):
        yield from sorted(map(str, Path.home().glob(pattern)))


def is_usable(command: str, version: str) -> bool:
    """Tell whether a command is a Python of this version with all that a build needs."""
    try:
        answer = subprocess.run(
            [command, "-c", CHECK], capture_output=True, text=True, timeout=60, check=False
        )
    except OSError:
        return False
    return answer.returncode == 0 and answer.stdout.strip() == version


def main() -> None:
    """Print the first usable Python of each version."""
    for version in VERSIONS:
        found = (command for command in candidates(version) if is_usable(command, version))
        command = next(found, None)
        if command is None:
            sys.stderr.write(f"Python {version} is not here, or has no headers or no venv.\n")
        else:
            sys.stdout.write(f"{version} {command}\n")


if __name__ == "__main__":
    main()
