"""Measures what each server of examples/rot13 costs: lines of code, memory, processor time.

    python3 benchmarks/rot13_costs.py [--rounds 9] [--seconds 0.4] [--markdown]

The load is that of the other tests: 64 connections with lines of 64 bytes, one in flight on
each and then 16. They are lines of digits, for the load wants back what it has sent. All
servers take their rounds in turn. A server counts with the processes that it has started:
its processor time is the sum of theirs, its memory the sum of their proportional shares
(Pss), in which what several processes share is counted once.
"""

import argparse
import ast
import contextlib
import io
import pathlib
import re
import sys
import tokenize

import environment
import report
from contest import Contestant, run_rounds
from figures import format_spread
from options import Settings
from processes import Load, Server, raise_file_limit

EXAMPLES = environment.ROOT / "examples" / "rot13"
SERVERS = ["fork", "select", "events", "buffered", "coroutine"]
IN_FLIGHT = (1, 16)

# A process each is too much for a thousand; select() knows no descriptor from 1024 on.
IDLE_CLIENTS = dict.fromkeys(SERVERS, 1000) | {"fork": 100}

NO_CODE = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENCODING,
    tokenize.ENDMARKER,
}


class ServerWithChildren(Server):
    """A server that may have a process for each client."""

    def _list_pids(self):
        pid = self.process.pid
        children = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text()
        return [pid, *map(int, children.split())]

    def read_cpu_seconds(self):
        own = super().read_cpu_seconds()
        children = [pathlib.Path(f"/proc/{pid}/schedstat") for pid in self._list_pids()[1:]]
        return own + sum(int(file.read_text().split()[0]) for file in children) / 1e9

    def read_shared_out_bytes(self):
        files = [pathlib.Path(f"/proc/{pid}/smaps_rollup") for pid in self._list_pids()]
        return sum(int(re.search(r"Pss:\s+(\d+)", file.read_text())[1]) * 1024 for file in files)


def make_command(name):
    return lambda port: [environment.PYTHON, EXAMPLES / f"rot13_{name}.py", port]


def count_lines_of_code(path):
    """Count the lines that hold something else than comments and docstrings."""
    source = path.read_text()
    lines = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in NO_CODE:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            lines.difference_update(range(node.lineno, node.end_lineno + 1))
    return len(lines)


def measure_memory(name):
    """Return the bytes of one client that has been answered once and is quiet."""
    count = IDLE_CLIENTS[name]
    with contextlib.ExitStack() as stack:
        server = ServerWithChildren(make_command(name))
        stack.callback(server.stop)
        before = server.read_shared_out_bytes()
        load = Load(server.port, "--digits", "--connections", 0, "--idle", count)
        stack.callback(load.stop)
        return (server.read_shared_out_bytes() - before) / count


def measure_lines(settings):
    """Return {(name, lines in flight): contestant} after all rounds."""
    with contextlib.ExitStack() as stack:
        contestants = {
            (name, in_flight): Contestant(
                stack,
                make_command(name),
                lambda port, count=in_flight: Load(port, "--digits", "--in-flight", count),
                ServerWithChildren,
            )
            for name in SERVERS
            for in_flight in IN_FLIGHT
        }
        run_rounds(settings, contestants)
    return contestants


def measure(settings):
    memory = {name: measure_memory(name) for name in SERVERS}
    contestants = measure_lines(settings)
    headers = ["server", "lines of code", "KiB a client"]
    headers += ["CPU µs/line, one in flight", f"CPU µs/line, {IN_FLIGHT[1]} in flight"]
    rows, raw = [], {}
    for name in SERVERS:
        cpu = {count: contestants[name, count].cpu_us for count in IN_FLIGHT}
        lines_of_code = count_lines_of_code(EXAMPLES / f"rot13_{name}.py")
        cells = [str(lines_of_code), f"{memory[name] / 1024:.1f}"]
        rows.append([f"`rot13_{name}.py`", *cells, *map(format_spread, cpu.values())])
        raw[name] = {"lines_of_code": lines_of_code, "bytes": memory[name], "cpu_us": cpu}
    shared = count_lines_of_code(EXAMPLES / "rot13.py")
    note = f"`rot13.py`, which all of them share, has {shared} lines of code."
    return report.Table("What each costs", headers, rows, raw, note)


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=9, help="rounds that count (9)")
    parser.add_argument("--seconds", type=float, default=0.4, help="length of a round (0.4)")
    parser.add_argument("--python", default=sys.executable, help="the interpreter to measure")
    parser.add_argument(
        "--markdown", action="store_true", help="put the table into examples/rot13/README.md"
    )
    return parser.parse_args()


def main():
    arguments = parse_arguments()
    raise_file_limit()
    environment.build_c_programs()
    environment.make_venv(arguments.python, with_project=True)
    about = environment.describe()
    del about["packages"]
    about["rounds"] = f"{arguments.rounds} of {arguments.seconds} s, medians and middle halves"
    table = measure(Settings(arguments.rounds, arguments.seconds))
    print(report.format_text(table), end="")
    print("\nstored as", report.write_json([table], about))
    if arguments.markdown:
        report.write_markdown([table], about, "rot13_costs.py", EXAMPLES / "README.md")


if __name__ == "__main__":
    main()
