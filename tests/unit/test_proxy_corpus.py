"""What fuzzing the PROXY parser has come upon, once more; fuzz/ has the model and the fuzzer."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

FUZZ = Path(__file__).resolve().parents[2] / "fuzz"


def test_each_input_of_the_corpus_gives_what_the_model_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(str(FUZZ))
    from proxy_model import check

    paths = sorted((FUZZ / "corpus" / "proxy").iterdir())
    assert len(paths) > 20
    for path in paths:
        check(path.read_bytes())
    del sys.modules["proxy_model"]
