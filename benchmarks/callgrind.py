"""Counts the user-space instructions of a request with valgrind's callgrind.

    python3 benchmarks/callgrind.py [--only gevent,pycoronet] [--connections 64]

Times vary with the machine and its other guests; instructions do not. Each server runs
twice, under two numbers of requests, and the difference is divided by the difference of
the numbers, so that starting, connecting and ending cancel out. What the kernel does for
a request is not in the figure. The load runs in lock-step: a simulated server is so slow
that the next request would else always be there before the handler asks for it, and what
it costs to wait would not be counted.
"""

import argparse
import re
import shutil
import sys

import environment
from processes import BUILD, Load, Server
from scenarios import ALL, make_command

WARM_UP_REQUESTS = 2000


def count_instructions(name, mode, load_options, requests):
    """Return (requests answered, instructions) of one run from start to end."""
    out_file = BUILD / "callgrind.out"
    valgrind = ["valgrind", "-q", "--tool=callgrind", f"--callgrind-out-file={out_file}"]
    out_file.unlink(missing_ok=True)
    server_command = make_command(name, mode)
    server = Server(lambda port: [*valgrind, *server_command(port)])
    try:
        load = Load(server.port, *load_options)
        try:
            answered = load.run(f"requests {WARM_UP_REQUESTS + requests}")["requests"]
        finally:
            load.stop()
    finally:
        server.stop()
    return answered, int(re.search(r"^(?:totals|summary): (\d+)", out_file.read_text(), re.M)[1])


def measure(name, mode, load_options, requests):
    """Return the instructions of one request."""
    few, few_instructions = count_instructions(name, mode, load_options, 0)
    many, many_instructions = count_instructions(name, mode, load_options, requests)
    return (many_instructions - few_instructions) / (many - few)


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", default=",".join(ALL), help=f"servers, with commas: {ALL}")
    parser.add_argument("--mode", choices=["echo", "lines"], default="echo")
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--requests", type=int, default=20000)
    parser.add_argument("--python", default=sys.executable, help="the interpreter to measure")
    parser.add_argument("--peers-only", action="store_true", help="leave pycoronet out")
    return parser.parse_args()


def main():
    arguments = parse_arguments()
    if shutil.which("valgrind") is None:
        sys.exit("callgrind.py: valgrind is not installed")
    environment.build_c_programs()
    environment.make_venv(arguments.python, with_project=not arguments.peers_only)
    in_flight = 16 if arguments.mode == "lines" else 1
    load_options = ["--connections", arguments.connections, "--in-flight", in_flight, "--lock-step"]
    print(
        f"User-space instructions a request: {arguments.mode}, "
        f"{arguments.connections} connections, {in_flight} in flight"
    )
    for name in arguments.only.split(","):
        if name == "pycoronet" and arguments.peers_only:
            continue
        count = measure(name, arguments.mode, load_options, arguments.requests)
        print(f"  {name:16}{count:10.0f}", flush=True)


if __name__ == "__main__":
    main()
