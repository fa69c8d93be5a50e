"""What the pages in docs/ say of tests has to be so: each test that they name exists."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "SECURITY.md", *sorted((ROOT / "docs").glob("*.md"))]

# What these promise is shown by tests, which they name.
PAGES_WITH_PROMISES = ("SECURITY.md", "production.md", "reliability.md", "libevent-map.md")

# `test_x.py::test_y`, in tests/unit unless it says where.
NAMED_TEST = re.compile(r"`([\w/]+\.(?:py|c))::(\w+)`")


def find_file(name: str) -> Path:
    return ROOT / name if "/" in name else ROOT / "tests" / "unit" / name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_named_tests_exist(page: Path) -> None:
    named = NAMED_TEST.findall(page.read_text())
    assert named or page.name not in PAGES_WITH_PROMISES
    missing = []
    for file, test in named:
        path = find_file(file)
        if not path.exists() or not re.search(rf"\b{test}\(", path.read_text()):
            missing.append(f"{file}::{test}")
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []
