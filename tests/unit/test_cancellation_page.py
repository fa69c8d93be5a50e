"""docs/cancellation-and-timeouts.md: each example runs, and prints what the page says."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path
from typing import Any

import pytest

PAGE = Path(__file__).parent.parent.parent / "docs" / "cancellation-and-timeouts.md"
TEXT = PAGE.read_text("utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```\n```text\n(.*?)```", TEXT, re.DOTALL)


def title_of(number: int) -> str:
    """Return the heading that an example stands under."""
    before = TEXT[: TEXT.index(EXAMPLES[number][0])]
    return re.findall(r"^#+ (.*)", before, re.MULTILINE)[-1]


def test_each_example_says_what_it_prints() -> None:
    assert len(EXAMPLES) == TEXT.count("```python")
    assert EXAMPLES


@pytest.mark.usefixtures("virtual_hub")
@pytest.mark.parametrize("number", range(len(EXAMPLES)), ids=title_of)
def test_example_prints_what_the_page_says(number: int) -> None:
    program, expected = EXAMPLES[number]
    output = io.StringIO()
    names: dict[str, Any] = {"__name__": "__main__"}
    with contextlib.redirect_stdout(output):
        exec(compile(program, f"{PAGE.name}, example {number + 1}", "exec"), names)
    assert output.getvalue() == expected
