"""Measures pycoronet beside its peers and prints the tables; see README.md.

    python3 benchmarks/run.py [--rounds 15] [--seconds 0.6] [--only echo,lines] ...

It makes its own virtual environment (benchmarks/.venv), installs the peers and the
project there, builds the C programs, and stores the raw numbers in benchmarks/results.
"""

import argparse
import sys

import buffered_lines
import callgrind
import chained_pipes
import coroutines
import environment
import report
from processes import raise_file_limit
from scenarios import SCENARIOS

TESTS = SCENARIOS | {
    "spawn": coroutines.spawn,
    "sleep-zero": coroutines.sleep_zero,
    "hand-over": coroutines.hand_over,
    "timeouts": coroutines.timeouts,
    "timers": coroutines.timers,
    "sleepers": coroutines.sleepers,
    "buffered-lines": buffered_lines.buffered_lines,
    "line-instructions": buffered_lines.line_instructions,
    "chained-pipes": chained_pipes.chained_pipes,
    "instructions": callgrind.instructions,
}


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=15, help="rounds that count (15)")
    parser.add_argument("--seconds", type=float, default=0.6, help="length of a round (0.6)")
    parser.add_argument("--only", help="tests to run, with commas: " + ", ".join(TESTS))
    parser.add_argument("--python", default=sys.executable, help="the interpreter to measure")
    parser.add_argument("--peers-only", action="store_true", help="leave pycoronet out")
    parser.add_argument(
        "--markdown", action="store_true", help="put the tables into benchmarks/README.md"
    )
    arguments = parser.parse_args()
    arguments.only = arguments.only.split(",") if arguments.only else list(TESTS)
    unknown = set(arguments.only) - set(TESTS)
    if unknown:
        parser.error(f"no such test: {', '.join(sorted(unknown))}")
    return arguments


def main():
    arguments = parse_arguments()
    raise_file_limit()
    environment.build_c_programs()
    environment.make_venv(arguments.python, with_project=not arguments.peers_only)
    about = environment.describe()
    about["rounds"] = f"{arguments.rounds} of {arguments.seconds} s, medians"
    for name, text in about.items():
        print(f"{name}: {text}")
    tables = []
    for name in arguments.only:
        print(flush=True)
        tables.append(TESTS[name](arguments))
        print(report.format_text(tables[-1]), end="", flush=True)
    print("\nstored as", report.write_json(tables, about))
    if arguments.markdown:
        report.write_markdown(tables, about)


if __name__ == "__main__":
    main()
