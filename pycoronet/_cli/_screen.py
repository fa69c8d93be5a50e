"""What commands share that show tables again and again."""

from __future__ import annotations

import argparse
import shutil
import sys

__all__ = ["Screen", "add_repetition"]


def _parse_interval(text: str) -> float:
    """Convert an --interval of the command line."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0.05 <= seconds <= 86400:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds from 0.05 to 86400")
    return seconds


def add_repetition(parser: argparse.ArgumentParser) -> None:
    """Add the options that say how often a table is shown."""
    parser.add_argument(
        "--interval",
        metavar="SECONDS",
        type=_parse_interval,
        default=1.0,
        help="time between two looks (default: 1)",
    )
    parser.add_argument("--once", action="store_true", help="print one table and exit")


class Screen:
    """Where the tables go: one over the other in a terminal, else one below the other."""

    def __init__(self) -> None:
        self._is_terminal = sys.stdout.isatty()
        self._height: int | None = None  # of the table that is shown

    @property
    def width(self) -> int:
        """How wide a table may be."""
        # Behind the last column some terminals begin a new line.
        return shutil.get_terminal_size().columns - 1 if self._is_terminal else 80

    def show(self, lines: list[str]) -> None:
        """Show a table, in a terminal as much of it as has room."""
        if self._is_terminal:
            room = shutil.get_terminal_size().lines - 1
            lines = [line[: self.width] for line in lines[:room]]
            up = f"\x1b[{self._height}F" if self._height else ""
            text = up + "".join(f"{line}\x1b[K\n" for line in lines) + "\x1b[J"
        else:
            text = "\n" * (self._height is not None) + "\n".join(lines) + "\n"
        self._height = len(lines)
        sys.stdout.write(text)
        sys.stdout.flush()
