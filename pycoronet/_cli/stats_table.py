"""What `python -m pycoronet stats` shows: a metrics page, and the one before it, as a table."""

from __future__ import annotations

import re
from typing import NamedTuple

__all__ = ["Snapshot", "format_table", "parse_page"]

START_TIME = "pycoronet_start_time_seconds"

# As the page writes them; others', which might hold anything, are not looked at.
_SAMPLE = re.compile(r'(pycoronet_\w+)(?:\{\w+="(\w*)"\})? ([0-9.e+]+)', re.ASCII)

COLUMN_WIDTH = 12
MIN_NAME_WIDTH = 8


class Snapshot(NamedTuple):
    """A server's statistics at one time."""

    values: dict[tuple[str, str], float]  # by the name in the page, and the part or ""
    seconds: float  # the server's clock, since the epoch
    taken: float  # this process' monotonic clock

    @property
    def uptime(self) -> float:
        """For how long the server has counted, in seconds."""
        return max(0.0, self.seconds - self.values[START_TIME, ""])


def parse_page(text: str) -> dict[tuple[str, str], float]:
    """Return the values of pycoronet's part of a metrics page, in its order.

    Raises ValueError if there is no such part.
    """
    values = {}
    for line in text.splitlines():
        match = _SAMPLE.fullmatch(line)
        if match:
            values[match[1], match[2] or ""] = float(match[3])
    if (START_TIME, "") not in values:
        raise ValueError("the page there has no statistics of pycoronet")
    return values


def format_duration(seconds: float) -> str:
    """Return a time as days, hours, minutes and seconds."""
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    clock = f"{hour}:{minute:02}:{second:02}"
    return f"{days} d {clock}" if days else clock


def format_number(value: float, unit: str = "") -> str:
    """Return a number, and its unit, in at most eleven characters."""
    if value < (10_000 if unit else 1_000_000):
        digits = 0 if value == int(value) or value >= 1000 else 1
        return f"{value:,.{digits}f} {unit}".rstrip()
    prefixes = iter("kMGTPE")
    prefix = ""
    while value >= 999.5 and (larger := next(prefixes, "")):
        value /= 1000
        prefix = larger
    return f"{value:.3g} {prefix}{unit}"


class _Row(NamedTuple):
    """A line of the table: a value with the parts of it that are not zero below."""

    title: str
    value: float
    rate: float | None = None  # per second, since the snapshot before
    mean: float | None = None  # per second, since the server was made
    unit: str = ""

    def cells(self) -> list[str]:
        rates = ("" if rate is None else format_number(rate, self.unit) for rate in self[2:4])
        return [format_number(self.value, self.unit), *rates]


def _make_row(
    title: str, names: list[tuple[str, str]], now: Snapshot, before: Snapshot | None
) -> _Row:
    """Return the row of the sum of some values of one kind."""
    name = names[0][0]
    value = sum(now.values[name] for name in names)
    unit = "B" if "_bytes" in name else ""
    if not name.endswith("_total"):
        return _Row(title, value, unit=unit)
    rate = None
    if before is not None and before.values[START_TIME, ""] == now.values[START_TIME, ""]:
        last = sum(before.values.get(name, 0.0) for name in names)
        rate = (value - last) / max(now.taken - before.taken, 1e-3)
    return _Row(title, value, rate, value / max(now.uptime, 1.0), unit)


def _make_rows(now: Snapshot, before: Snapshot | None) -> list[_Row]:
    rows = []
    for name in dict.fromkeys(name for name, _part in now.values if name != START_TIME):
        names = [key for key in now.values if key[0] == name]
        title = name.removeprefix("pycoronet_").removesuffix("_total").replace("_", " ")
        rows.append(_make_row(title, names, now, before))
        for key in names:
            if key[1] and now.values[key]:
                rows.append(_make_row("  " + key[1], [key], now, before))
    return rows


def format_table(
    title: str, now: Snapshot, before: Snapshot | None, *, width: int, note: str = ""
) -> list[str]:
    """Return the lines of a table no wider than [width], as far as that is possible.

    Rates need the snapshot before. Where there is no room for all columns the last are left
    out, then names are cut. The note stands below the title.
    """
    rows = _make_rows(now, before)
    name_width = max(len(row.title) for row in rows)
    shown = max(1, min(3, (width - name_width) // COLUMN_WIDTH))
    name_width = max(MIN_NAME_WIDTH, min(name_width, width - COLUMN_WIDTH))
    table = [("", ["value", "per second", "mean"]), *((row.title, row.cells()) for row in rows)]
    lines = [f"{title}  up {format_duration(now.uptime)}"[:width], note[:width]]
    for name, cells in table:
        text = "".join(f"{cell:>{COLUMN_WIDTH}}" for cell in cells[:shown])
        lines.append(f"{name[:name_width]:<{name_width}}{text}".rstrip())
    return lines
