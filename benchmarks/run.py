"""Measures pycoronet beside its peers, prints the tables and draws them; see README.md.

    python3 benchmarks/run.py [--only echo,lines] [--peers gevent,trio] [--seconds 0.2] ...

It makes its own virtual environment (benchmarks/.venv), installs the peers and the
project there, builds the C programs, stores the numbers of every round in
benchmarks/results and the pictures in benchmarks/pictures.
"""

import argparse
import dataclasses
import pathlib
import signal
import sys
from collections.abc import Callable

import buffered_lines
import callgrind
import chained_pipes
import coroutines
import environment
import many_connections
import report
import scenarios
from options import add_settings, read_settings, split_names
from processes import COMPLAINTS, raise_file_limit
from progress import report_to_stderr

# What a round takes besides its length: commands, and servers that have to come to rest.
SECONDS_BETWEEN_ROUNDS = 0.02


@dataclasses.dataclass(frozen=True)
class Test:
    """A test, and what is needed to guess how long it will take."""

    run: Callable
    contestants: int = 0  # so many take a round in turn
    seconds_once: float = 0  # to start them, or all that it takes without rounds
    seconds_a_round: float = 0  # of each contestant, where the length of a round is its own

    def guess_seconds(self, settings):
        length = self.seconds_a_round or settings.seconds + SECONDS_BETWEEN_ROUNDS
        return self.seconds_once + self.contestants * (settings.rounds + 1) * length


TESTS = {
    "echo": Test(scenarios.echo, 8, 4),
    "lines": Test(scenarios.lines, 8, 4),
    "pipelining": Test(scenarios.pipelining, 8, 4),
    "http": Test(scenarios.http, 9, 4, 1.1),
    "tls-echo": Test(scenarios.tls_echo, 6, 6),
    "tls-bulk": Test(scenarios.tls_bulk, 6, 6),
    "sendfile": Test(scenarios.sendfile, 4, 2, 0.5),
    "accept": Test(scenarios.accept, 8, 4),
    "spawn": Test(coroutines.spawn, 6, 3),
    "queue": Test(coroutines.queue, 6, 3),
    "timers": Test(coroutines.timers, 6, 3),
    "timeouts": Test(coroutines.timeouts, 6, 3),
    "sleep-zero": Test(coroutines.sleep_zero, 12, 6),
    "idle-memory": Test(many_connections.idle_memory, 0, 20),
    "sleepers": Test(coroutines.sleepers, 0, 5),
    "growth": Test(many_connections.growth, 36, 60),
    "idle-neighbours": Test(many_connections.idle_neighbours, 8, 8),
    "ping-pong": Test(scenarios.ping_pong, 8, 4),
    "echo-callbacks": Test(scenarios.echo_callbacks, 9, 4),
    "pipelining-callbacks": Test(scenarios.pipelining_callbacks, 10, 4),
    "accept-callbacks": Test(scenarios.accept_callbacks, 5, 2),
    "threads": Test(scenarios.threads, 2, 1),
    "processes": Test(scenarios.processes, 6, 4),
    "switches": Test(scenarios.switches, 0, 3),
    "buffered-lines": Test(buffered_lines.buffered_lines, 8, 3, 0.12),
    "million-timers": Test(coroutines.million_timers, 0, 5),
    "chained-pipes": Test(chained_pipes.chained_pipes, 36, 5, 0.2),
    "instructions": Test(callgrind.request_instructions, 0, 150),
    "line-instructions": Test(buffered_lines.line_instructions, 0, 40),
}


def make_parser():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--only",
        type=split_names("test", list(TESTS), list(TESTS)),
        default=list(TESTS),
        metavar="NAMES",
        help="tests to run, with commas: " + ", ".join(TESTS),
    )
    add_settings(parser, rounds=9, seconds=0.5)
    parser.add_argument(
        "--markdown", action="store_true", help="put the tables into benchmarks/README.md"
    )
    parser.add_argument(
        "--pictures",
        type=pathlib.Path,
        default=report.PICTURES,
        metavar="FOLDER",
        help="where to put the pictures (benchmarks/pictures)",
    )
    parser.add_argument(
        "--from",
        dest="results",
        metavar="FILE",
        help="measure nothing: show what a run has stored in benchmarks/results",
    )
    return parser


def measure(arguments, settings):
    """Run the tests and store them; return (tables, about)."""
    raise_file_limit()
    environment.build_c_programs()
    COMPLAINTS.write_text("")
    environment.make_venv(arguments.python, with_project=not settings.peers_only)
    about = environment.describe()
    about["rounds"] = f"{settings.rounds} of {settings.seconds:g} s"
    for name, text in about.items():
        print(f"{name}: {text}")
    guesses = {name: TESTS[name].guess_seconds(settings) for name in arguments.only}
    settings.progress = report_to_stderr(guesses)
    tables = []
    try:
        for name in arguments.only:
            settings.progress.begin(name)
            table = TESTS[name].run(settings)
            settings.progress.end()
            table.name, table.seconds = name, round(settings.progress.seconds[name], 1)
            tables.append(table)
            print("\n" + report.format_text(table), end="", flush=True)
    finally:
        if tables:  # of a run that was broken off, what there is
            print("\nstored as", report.write_json(tables, about))
    return tables, about


def end_cleanly(signal_number, frame):
    """End as an error would, so that no server is left behind."""
    sys.exit(128 + signal_number)


def main():
    signal.signal(signal.SIGTERM, end_cleanly)
    parser = make_parser()
    arguments = parser.parse_args()
    settings = read_settings(parser, arguments)
    if arguments.results is not None:
        tables, about = report.read_json(arguments.results)
        tables = [table for table in tables if table.name in arguments.only]
        for table in tables:
            print(report.format_text(table))
    else:
        tables, about = measure(arguments, settings)
    for path in report.write_pictures(tables, about, arguments.pictures):
        print("drawn as", path)
    if arguments.markdown:
        report.write_markdown(tables, about)


if __name__ == "__main__":
    main()
