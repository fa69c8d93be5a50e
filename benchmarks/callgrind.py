"""Counts the user-space instructions of a request with valgrind's callgrind.

    python3 benchmarks/callgrind.py [--only gevent,pycoronet] [--connections 64]

run.py runs it too, as its test "instructions".

Times vary with the machine and its other guests; instructions do not. Each server runs
twice, under two numbers of requests, and the difference is divided by the difference of
the numbers, so that starting, connecting and ending cancel out. What the kernel does for
a request is not in the figure. The load runs in lock-step: a simulated server is so slow
that the next request would else always be there before the handler asks for it, and what
it costs to wait would not be counted.
"""

import argparse
import sys

import environment
import instructions
from contest import BOTH, make_command
from figures import Chart
from options import OURS, Settings
from processes import Load, Server
from report import Table, format_text, nobody_asked_for, skipped

FEW_REQUESTS = 2000
MANY_REQUESTS = 12000


def count_instructions(name, mode, load_options, requests):
    """Return (requests answered, instructions) of one run from start to end."""
    server_command = make_command(name, mode)
    server = Server(lambda port: instructions.make_command(*server_command(port)))
    try:
        load = Load(server.port, *load_options)
        try:
            answered = load.run(f"requests {requests}")["requests"]
        finally:
            load.stop()
    finally:
        server.stop()
    return answered, instructions.read_count()


def measure(name, mode, load_options):
    """Return the instructions of one request."""
    few, few_instructions = count_instructions(name, mode, load_options, FEW_REQUESTS)
    many, many_instructions = count_instructions(name, mode, load_options, MANY_REQUESTS)
    return (many_instructions - few_instructions) / (many - few)


def request_instructions(settings, names=BOTH, mode="echo", connections=64):
    """Measure `names` one after the other and return the table."""
    in_flight = 16 if mode == "lines" else 1
    title = f"User-space instructions: {mode}, {connections} × {in_flight} in flight"
    if not instructions.is_possible():
        return skipped(title, instructions.MISSING)
    load_options = ["--connections", connections, "--in-flight", in_flight, "--lock-step"]
    counts = {}
    for name in settings.choose(names):
        settings.progress.step(name)
        counts[name] = measure(name, mode, load_options)
    if not counts:
        return nobody_asked_for(title)
    ours = counts.get("pycoronet")
    rows = []
    for name, count in counts.items():
        proportion = f"{ours / count:.2f}" if ours and name != "pycoronet" else ""
        rows.append([name, f"{count:.0f}", proportion])
    chart = Chart.of_rounds("instructions/request", {"": {name: [n] for name, n in counts.items()}})
    return Table(title, ["server", "instructions/request", "pycoronet ÷ it"], rows, counts, chart)


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", default=",".join(BOTH), help=f"servers, with commas: {BOTH}")
    parser.add_argument("--mode", choices=["echo", "lines"], default="echo")
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--python", default=sys.executable, help="the interpreter to use")
    parser.add_argument("--peers-only", action="store_true", help="leave pycoronet out")
    return parser.parse_args()


def main():
    arguments = parse_arguments()
    environment.build_c_programs()
    environment.make_venv(arguments.python, with_project=not arguments.peers_only)
    names = arguments.only.split(",")
    settings = Settings()
    if arguments.peers_only:
        settings.families -= {OURS}
    table = request_instructions(settings, names, arguments.mode, arguments.connections)
    print(format_text(table), end="")


if __name__ == "__main__":
    main()
