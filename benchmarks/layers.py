"""What the parts of layers 1 and 2 cost, in C, beside the same parts of libevent, libev, libuv.

    python3 benchmarks/layers.py [--rounds 9] [--only lines,timer] [--peers libev,libuv]

Each row is a case of the programs c/bench_*.c; a library that has nothing of the kind has no
figure there, and one whose headers are not installed has no column. Nanoseconds of processor
time are medians over rounds in which the programs take turns, each started anew; instructions
are those in user space, counted by callgrind, and hardly vary. They are counted twice, over
few and over many operations, so that starting and preparing cancel out.
"""

import argparse
import pathlib

import environment
import instructions
import report
from figures import Chart, median
from options import add_settings, read_settings
from processes import BUILD, HERE, run_program
from progress import report_to_stderr

# A library's programs, each with cases of its own.
PROGRAMS = {
    "pycoronet": [
        "bench_line_buffer",
        "bench_loop_reactor",
        "bench_timer_wheel",
        "bench_watch_table",
    ],
    "libevent": ["bench_evbuffer", "bench_loop_libevent"],
    "libev": ["bench_loop_libev"],
    "libuv": ["bench_loop_libuv"],
}
# The few operations that are counted: whole batches of every case.
MOST_FEW_OPERATIONS = 20_000
SHARE_OF_A_RUN = 10
# What the operations of a run take, more or less, that a program does by itself.
SECONDS_A_RUN = 0.1
SECONDS_TO_COUNT = 2.5


def find_cases(libraries):
    """Return {case: {library: (program, operations of a run)}} of what has been built."""
    cases = {}
    for library in libraries:
        for program in PROGRAMS[library]:
            path = BUILD / program
            lines = run_program(path, "--list").splitlines() if path.exists() else []
            for line in lines:
                count, _, case = line.partition(" ")
                cases.setdefault(case, {})[library] = (path, int(count))
    return cases


def choose_cases(cases, only):
    """Return the cases of the groups in `only`, those that are compared first."""
    chosen = {
        case: programs
        for case, programs in cases.items()
        if not only or case.partition(":")[0] in only
    }
    return dict(sorted(chosen.items(), key=lambda item: len(item[1]) == 1))


def choose_few(count):
    """Return how many operations are few, for a case of which a run has `count`."""
    return max(1, min(MOST_FEW_OPERATIONS, count // SHARE_OF_A_RUN))


def choose_operations(count, seconds):
    """Return how many operations take about so long: a multiple of the few."""
    few = choose_few(count)
    return few * max(1, round(count * seconds / SECONDS_A_RUN / few))


def time_cases(settings, cases):
    """Return {case: {library: nanoseconds of each round}}."""
    times = {case: {library: [] for library in programs} for case, programs in cases.items()}
    for number in range(settings.rounds):
        for case, programs in cases.items():
            settings.progress.step(f"{case}, round {number + 1} of {settings.rounds}")
            turn = list(programs.items())
            start = number % len(turn)
            for library, (path, count) in turn[start:] + turn[:start]:
                operations = choose_operations(count, settings.seconds)
                times[case][library].append(float(run_program(path, case, operations)))
    return times


def count_instructions(path, case, operations):
    """Return the instructions of one run from start to end."""
    run_program(*instructions.make_command(path, case, operations))
    return instructions.read_count()


def count_cases(settings, cases):
    """Return {case: {library: instructions of one operation}}."""
    counts = {}
    for case, programs in cases.items():
        settings.progress.step(f"{case}, instructions")
        for library, (path, count) in programs.items():
            few = choose_few(count)
            begun = count_instructions(path, case, few)
            ended = count_instructions(path, case, 3 * few)
            counts.setdefault(case, {})[library] = (ended - begun) / (2 * few)
    return counts


def make_table(libraries, times, counts, note=""):
    """Return the one table: for each library its nanoseconds and its instructions."""
    headers = ["operation"]
    for library in libraries:
        headers += [f"{library} ns", "instr."] if counts else [f"{library} ns"]
    rows = []
    for case, found in times.items():
        row = [case]
        for library in libraries:
            row.append(f"{median(found[library]):.1f}" if library in found else "")
            if counts:
                row.append(f"{counts[case][library]:.0f}" if library in found else "")
        rows.append(row)
    compared = {case: found for case, found in times.items() if len(found) > 1} or times
    return report.Table(
        "Layers 1 and 2, in C: one operation",
        headers,
        rows,
        {"ns": times, "instructions": counts},
        Chart.of_rounds("CPU ns", compared, own_scales=True),
        note,
        "layers",
    )


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", default="", help="groups of cases, with commas: lines,timer")
    parser.add_argument("--times-only", action="store_true", help="count no instructions")
    parser.add_argument(
        "--markdown", action="store_true", help="put the table into benchmarks/README.md"
    )
    parser.add_argument(
        "--pictures", type=pathlib.Path, default=report.PICTURES, help="where to put the picture"
    )
    add_settings(parser, rounds=9, seconds=0.1)
    arguments = parser.parse_args()
    arguments.only = [name for name in arguments.only.split(",") if name]
    return arguments, read_settings(parser, arguments)


def main():
    arguments, settings = parse_arguments()
    environment.run("make", "--quiet", "-C", HERE / "c", "micro")
    cases = choose_cases(find_cases(settings.choose(PROGRAMS)), arguments.only)
    libraries = [name for name in PROGRAMS if any(name in found for found in cases.values())]
    runs = sum(map(len, cases.values()))
    counts_too = not arguments.times_only and instructions.is_possible()
    guess = runs * (settings.rounds * (settings.seconds + 0.05) + counts_too * SECONDS_TO_COUNT)
    settings.progress = report_to_stderr({"layers": guess})
    settings.progress.begin("layers")
    times = time_cases(settings, cases)
    counts = count_cases(settings, cases) if counts_too else {}
    settings.progress.end()
    note = "" if counts_too or arguments.times_only else f"no instructions: {instructions.MISSING}"
    table = make_table(libraries, times, counts, note)
    about = environment.describe_machine()
    about["rounds"] = f"{settings.rounds}"
    print(report.format_text(table))
    print("stored as", report.write_json([table], about))
    for path in report.write_pictures([table], about, arguments.pictures):
        print("drawn as", path)
    if arguments.markdown:
        report.write_markdown([table], about, "layers.py")


if __name__ == "__main__":
    main()
