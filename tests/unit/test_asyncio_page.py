"""Each example of docs/asyncio.md does what its comments say."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

PAGE = Path(__file__).resolve().parents[2] / "docs" / "asyncio.md"
EXAMPLES = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.usefixtures("virtual_hub")
def test_examples_print_what_they_say(capsys: pytest.CaptureFixture[str]) -> None:
    assert len(EXAMPLES) == 5
    names: dict[str, Any] = {"__name__": "example"}
    for example in EXAMPLES:
        exec(compile(example, str(PAGE), "exec"), names)
        said = re.findall(r"^ *print\(.*\)  # (.*)$", example, re.MULTILINE)
        assert said
        assert capsys.readouterr().out.splitlines() == said
