"""What the tests of servers share."""

from __future__ import annotations

from typing import Any


def counts(server: Any) -> tuple[int, int, dict[str, int]]:
    """Return how many are open and were served, and the errors there were."""
    errors = {kind: count for kind, count in server.stats.errors.items() if count}
    return server.stats.open, server.stats.connections_served, errors
