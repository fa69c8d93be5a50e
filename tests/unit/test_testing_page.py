"""docs/testing.md: its examples are test files, and pytest runs them with the page's settings."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

PAGE = Path(__file__).parent.parent.parent / "docs" / "testing.md"
TEXT = PAGE.read_text("utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```(?:\n```text\n(.*?)```)?", TEXT, re.DOTALL)


def test_the_examples_pass(pytester: pytest.Pytester) -> None:
    assert len(EXAMPLES) == TEXT.count("```python") == 5
    (settings,) = re.findall(r"```ini\n(.*?)```", TEXT, re.DOTALL)
    pytester.makeini(settings + "filterwarnings = error\n")
    expected = []
    for number, (program, output) in enumerate(EXAMPLES):
        pytester.makepyfile(**{f"test_example_{number}": program})
        expected += output.splitlines()
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", "--strict-markers", timeout=60)
    result.assert_outcomes(passed=1 + 3 + 21 + 2 + 1, errors=len(expected))
    for line in expected:
        result.stdout.fnmatch_lines([line])
