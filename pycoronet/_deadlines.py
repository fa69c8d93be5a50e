"""Times from now as points of the hub's clock, for waits that are made of several."""

from ._coronet import get_hub
from ._coronet import timeout as bound

__all__ = ["deadline_after", "seconds_until"]


def deadline_after(seconds: float | None) -> float | None:
    """Return when a time from now is over, None for never; ValueError, TypeError: it is none."""
    bound(seconds)
    return None if seconds is None else get_hub().time + seconds


def seconds_until(deadline: float | None) -> float | None:
    """Return what is left until then, 0 if it is over; None if there is no such time."""
    return None if deadline is None else max(deadline - get_hub().time, 0)
