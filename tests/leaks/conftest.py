"""What is there before a leak test is none of its business."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def frozen_heap() -> Iterator[None]:
    """Keep the collector to what the test makes: its rounds collect some thousand times."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()
