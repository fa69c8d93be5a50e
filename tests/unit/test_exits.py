"""A program may end anywhere and in any state: with the right status, no crash and no hang.

Each way is a process of its own (exit_server.py); all that are asked for run at once, a few at
a time.
"""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from exit_places import AT_EXIT, ENDING, MAIN, PLACES, REPORTED
from exit_states import STATES
from exit_surroundings import SURROUNDINGS

TESTS = Path(__file__).resolve().parent.parent

# What one program may take. It is over then by SIGALRM, which is not what any test expects.
LIMIT_SECONDS = 60
AT_ONCE = 3

SETTING = """
def leave(*_):
    say("leaves")
    {way}
def stay():
    try: sleep(1000)
    finally: say("finally")
get_hub(backend="fake")
spawn(stay)
sleep(0)
"""

# How a program is left.
WAYS = {
    "return": "return",
    "sys.exit": "sys.exit(3)",
    "os._exit": "os._exit(4)",
    "Exception": "raise LookupError('the way out')",
    "KeyboardInterrupt": "raise KeyboardInterrupt",
    "SIGINT": "signal.raise_signal(signal.SIGINT)",
    "SIGTERM": "os.kill(os.getpid(), signal.SIGTERM)",
}


class Outcome(NamedTuple):
    """How a program ended, and what it printed."""

    status: int
    output: str
    complaints: str


# What a way that raises leads to: the status and what is printed of it. Where nobody raises, the
# place does not matter.
BY_FATE = {
    "sys.exit": {MAIN: (3, ""), ENDING: (3, ""), REPORTED: (0, "SystemExit: 3")},
    "Exception": {
        MAIN: (1, "LookupError: the way out"),
        ENDING: (0, "LookupError: the way out"),
        REPORTED: (0, "LookupError: the way out"),
    },
    "KeyboardInterrupt": {
        MAIN: (-2, "KeyboardInterrupt"),
        ENDING: (-2, "KeyboardInterrupt"),
        REPORTED: (0, "KeyboardInterrupt"),
    },
    "SIGINT": dict.fromkeys((MAIN, ENDING, REPORTED), (-2, "KeyboardInterrupt")),
}
ANYWHERE = {"return": (0, ""), "os._exit": (4, ""), "SIGTERM": (-15, "")}


def choose_ways() -> list[tuple[str, str]]:
    """Return pairs of place and way; of the ways that raise nothing each place has one."""
    others = list(ANYWHERE)
    return [
        (place, way)
        for index, place in enumerate(PLACES)
        for way in (others[index % len(others)], *BY_FATE)
    ]


LEAVING = choose_ways()
LEFT_BEHIND = {**STATES, **SURROUNDINGS}


def program_of(place: str, way: str) -> str:
    return SETTING.format(way=WAYS[way]) + textwrap.dedent(PLACES[place].program)


class Programs:
    """Runs programs by the server, and tells how they ended."""

    def __init__(self, sources: dict[object, str], folder: Path) -> None:
        self._numbers = {name: number for number, name in enumerate(sources)}
        self._folder = folder
        command = [sys.executable, "-X", "dev", "-X", "faulthandler"]
        command += [str(TESTS / "exit_server.py"), str(folder), str(AT_ONCE), str(LIMIT_SECONDS)]
        lines = [json.dumps([str(name), source]) for name, source in sources.items()]
        # Not by a pipe: it would fill, and the server does not read while it waits.
        (folder / "programs").write_text("".join(line + "\n" for line in lines))
        with (folder / "programs").open() as programs:
            self._server = subprocess.Popen(
                command, stdin=programs, stdout=subprocess.PIPE, text=True
            )
        self._ended: dict[int, int] = {}

    def outcome_of(self, name: object) -> Outcome:
        """Wait until a program has ended."""
        number = self._numbers[name]
        assert self._server.stdout is not None
        while number not in self._ended:
            line = self._server.stdout.readline()
            assert line, "the server has ended"
            ended, status = map(int, line.split())
            self._ended[ended] = status
        texts = [(self._folder / f"{number}.{kind}").read_text() for kind in ("out", "err")]
        return Outcome(self._ended[number], *texts)

    def close(self) -> None:
        """End the server; what it has started ends by its alarm at the latest."""
        self._server.kill()
        self._server.communicate()


@pytest.fixture(scope="module")
def programs(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Programs]:
    """Start all programs of the tests that are going to run."""
    sources: dict[object, str] = {}
    for item in request.session.items:
        if item.path == request.path:
            parameters = item.callspec.params  # type: ignore[attr-defined]
            if "state" in parameters:
                sources[parameters["state"]] = LEFT_BEHIND[parameters["state"]].program
            else:
                pair = (parameters["place"], parameters["way"])
                sources[pair] = program_of(*pair)
    running = Programs(sources, tmp_path_factory.mktemp("exits"))
    yield running
    running.close()


@pytest.mark.parametrize(("place", "way"), LEAVING)
def test_leaving_from_anywhere(programs: Programs, place: str, way: str) -> None:
    fate = PLACES[place].fate
    if way in ANYWHERE:
        status, complaint = ANYWHERE[way]
    elif fate == AT_EXIT:
        status, complaint = 0, BY_FATE[way][REPORTED][1]
    else:
        status, complaint = BY_FATE[way][fate]
    outcome = programs.outcome_of((place, way))
    assert (outcome.status, complaint in outcome.complaints) == (status, True), outcome
    assert bool(complaint) == bool(outcome.complaints), outcome.complaints
    assert "Fatal" not in outcome.complaints
    lines = outcome.output.splitlines()
    assert "leaves" in lines
    if way in ("os._exit", "SIGTERM"):
        assert lines[-1] == "leaves"
    else:
        assert lines.count("finally") == 1


@pytest.mark.parametrize("state", LEFT_BEHIND)
def test_leaving_things_behind(programs: Programs, state: str) -> None:
    expected = LEFT_BEHIND[state]
    outcome = programs.outcome_of(state)
    assert outcome[:2] == (expected.status, expected.output), outcome.complaints
    if expected.complaint:
        assert expected.complaint in outcome.complaints
        assert "Fatal" not in outcome.complaints
    else:
        assert outcome.complaints == ""
