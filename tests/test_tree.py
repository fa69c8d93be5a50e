"""What somebody new walks through: each file says what it is for, and the pages name all there is.

Like those of `test_source_rules.py`, each rule is also tried on what breaks it.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from test_source_rules import FOLDERS, ROOT, Sources, list_targets, read_sources

# Their names and forms are what a tool wants; what is in them is told there.
KNOWN_BY_NAME = {".gitignore", "LICENSE", "MANIFEST.in", "pyproject.toml", "py.typed"}


def read(name: str) -> str:
    return (ROOT / name).read_text("utf-8")


# The first lines.


def read_others() -> Sources:
    """Return the files that are neither C nor Python nor pages."""
    found = {}
    named = ("Makefile", ".clang-format", ".pre-commit-config.yaml", ".ci/run")
    patterns = ("**/Makefile", "**/*.yml", "**/*.yaml", "**/*.sh", "**/*.toml", "**/*.txt")
    files = [ROOT / name for name in named]
    for folder in FOLDERS:
        files += [file for pattern in patterns for file in (ROOT / folder).glob(pattern)]
    for file in files:
        path = file.relative_to(ROOT)
        if not {"build", "results", ".venv"}.intersection(path.parts):
            found[path.as_posix()] = file.read_text("utf-8")
    return {name: text for name, text in found.items() if Path(name).name not in KNOWN_BY_NAME}


def find_without_comment(sources: Sources) -> list[str]:
    beginning = re.compile(r"(?:#!.*\n)?# \S")
    return [name for name, text in sources.items() if not beginning.match(text)]


def test_other_files_begin_with_what_they_are() -> None:
    others = read_others()
    assert {"Makefile", ".ci/run", "fuzz/Makefile", ".github/workflows/tests.yml"} <= set(others)
    assert find_without_comment(others) == []


def test_other_files_that_do_not_say_what_they_are_are_found() -> None:
    good = {"a": "# What.\nx", "b": "#!/bin/sh\n# What.\n"}
    bad = {"c": "all:\n", "d": "#!/bin/sh\nset -e\n", "e": "#\n", "f": ""}
    assert find_without_comment(good | bad) == list(bad)


def test_pages_begin_with_their_title() -> None:
    pages = read_sources(*FOLDERS, suffixes=(".md",))
    pages |= {path.name: path.read_text("utf-8") for path in ROOT.glob("*.md")}
    assert [name for name, text in pages.items() if not text.startswith("# ")] == []


# The maps.


def list_named(page: str) -> set[str]:
    """Return what the first column of a page's tables has."""
    return {name.strip("/") for name in re.findall(r"^\| `([^`]+)`", page, re.MULTILINE)}


def list_folders(folder: str) -> set[str]:
    below = (ROOT / folder).iterdir()
    return {path.name for path in below if path.is_dir() and path.name[0] not in "._"} - {"build"}


def test_map_of_the_tests_names_every_folder_and_no_other() -> None:
    assert list_named(read("tests/README.md").partition("\n## ")[0]) == list_folders("tests")


def test_map_of_the_examples_names_every_program() -> None:
    programs = {path.name for path in (ROOT / "examples").glob("*.py")} | list_folders("examples")
    page = read("examples/README.md")
    assert [name for name in sorted(programs) if name not in page] == []


# Commands.


def find_targets_without_row(makefile: str, page: str) -> list[str]:
    named = set(re.findall(r"`make ([a-z-]+)`", page))
    return [target for target in list_targets(makefile) if target not in named]


def test_targets_are_all_told_by_the_page_for_contributors() -> None:
    assert find_targets_without_row(read("Makefile"), read("CONTRIBUTING.md")) == []
    makefile = "test: build  ## Run\nfly: test  ## Fly\n"
    assert find_targets_without_row(makefile, "| `make test` | all |\n") == ["fly"]


def find_hooks_that_are_no_target(hooks: str, makefile: str) -> list[str]:
    entries = re.findall(r"^ +entry: (.+)$", hooks, re.MULTILINE)
    targets = {f"make {target}" for target in list_targets(makefile)}
    return [entry for entry in entries if entry not in targets]


def test_hooks_are_targets_and_need_no_network() -> None:
    hooks = read(".pre-commit-config.yaml")
    assert hooks.count("repo: ") == hooks.count("repo: local") == 1
    assert hooks.count("language: ") == hooks.count("language: system") > 1
    assert find_hooks_that_are_no_target(hooks, read("Makefile")) == []
    assert find_hooks_that_are_no_target("  entry: make fly\n", "test:  ## Run\n") == ["make fly"]


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "README.md"])
def test_files_that_pages_name_exist(page: str) -> None:
    names = re.findall(r"`((?:\.ci|benchmarks|csrc|docs|examples|tests)/[\w./-]+)`", read(page))
    assert names
    assert [name for name in names if not (ROOT / name).exists()] == []
