"""Tells how far a run is, and how long it will still take: one line on standard error.

On a terminal the line is written over; elsewhere there is one for each test, and one every
half a minute. What a test will take is a guess from its settings; how far off the guesses
were so far corrects those that are left.
"""

import sys
import time

SECONDS_BETWEEN_LINES = 30
CLEAR_TO_THE_END = "\x1b[K"


def format_duration(seconds):
    """Return "50 s" or "12 min"; it is a guess, and does not pretend to be more."""
    if seconds < 90:
        return f"{max(1, round(seconds / 5) * 5)} s"
    return f"{round(seconds / 60)} min"


class Progress:
    """How far a run is; `expected` is {name of a test: seconds it will take}, in order."""

    def __init__(self, expected=(), stream=None, clock=time.monotonic):
        self._expected = dict(expected)
        self._stream = stream
        self._clock = clock
        self._is_terminal = stream is not None and stream.isatty()
        self._names = list(self._expected)
        self._current = None
        self._begin = self._shown = 0.0
        self._spent_expected = self._spent = 0.0
        self.seconds = {}

    def begin(self, name):
        """Say that test `name` begins."""
        self._current = name
        self._begin = self._clock()
        self._show("")

    def step(self, what):
        """Say what is done now; may be called often."""
        if self._is_terminal or self._clock() - self._shown >= SECONDS_BETWEEN_LINES:
            self._show(what)

    def end(self):
        """Say that the test that runs is over, and clear the line for what it prints."""
        took = self._clock() - self._begin
        self.seconds[self._current] = took
        self._spent += took
        self._spent_expected += self._expected.get(self._current, 0.0)
        self._current = None
        if self._is_terminal:
            self._write("\r" + CLEAR_TO_THE_END)

    def seconds_left(self):
        """Return the seconds that the run will probably still take."""
        factor = self._spent / self._spent_expected if self._spent_expected else 1.0
        left = 0.0
        for name, seconds in self._expected.items():
            if name == self._current:
                left += max(0.0, seconds * factor - (self._clock() - self._begin))
            elif name not in self.seconds:
                left += seconds * factor
        return left

    def _show(self, what):
        if self._current not in self._expected:
            return
        place = f"[{self._names.index(self._current) + 1}/{len(self._names)}] {self._current}"
        left = f"about {format_duration(self.seconds_left())} left"
        text = f"{place}: {what}; {left}" if what else f"{place}; {left}"
        self._shown = self._clock()
        self._write(f"\r{text}{CLEAR_TO_THE_END}" if self._is_terminal else text + "\n")

    def _write(self, text):
        if self._stream is not None:
            self._stream.write(text)
            self._stream.flush()


def report_to_stderr(expected):
    """Return the Progress of a program that people watch."""
    return Progress(expected, sys.stderr)
