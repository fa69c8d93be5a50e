"""What all tests share: markers for systems, and where the checkout is."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
IS_LINUX = sys.platform.startswith("linux")
IS_BSD = sys.platform == "darwin" or "bsd" in sys.platform


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what this system cannot have, with the reason in the report."""
    if item.get_closest_marker("linux_only") and not IS_LINUX:
        pytest.skip("needs Linux")
    if item.get_closest_marker("bsd_only") and not IS_BSD:
        pytest.skip("needs kqueue: macOS or a BSD")


@pytest.fixture(scope="session")
def root() -> Path:
    """Return the folder of the checkout."""
    return ROOT
