"""What the tests of servers share."""

from __future__ import annotations

from typing import Any

LOCAL = ("127.0.0.1", 0)


def echo(conn: Any, _: object) -> None:
    """Send each line back."""
    for line in conn:
        conn.write(line)


def echo_what_is_there(conn: Any, _: object) -> None:
    """Do the same as a callback."""
    conn.write(conn.take(65536))


# An echo for each strategy that serves in the hub.
HANDLERS = {"coroutine": echo, "callback": echo_what_is_there}


def counts(server: Any) -> tuple[int, int, dict[str, int]]:
    """Return how many are open and were served, and the errors there were."""
    errors = {kind: count for kind, count in server.stats.errors.items() if count}
    return server.stats.open, server.stats.connections_served, errors
