"""Says how much of the code the tests have run, and fails if that is too little.

Reads gcov's counters (of the extension and of the C tests) and coverage.py's data, all below
build/. csrc/README.md says which file is in which layer. A line that no test runs has its
reason beside it: a comment `not reached: why` at the end of the line, or on the lines above.
One reason holds for all the lines up to the next one that was run. A line without a reason
is a failure.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
OBJECTS = (ROOT / "build/coverage/objects", ROOT / "build/coverage/tests-c")

# Percent of the lines.
BOUNDS = {"layer 1": 95, "layer 2": 95, "layer 3": 90, "Python": 95}

REASON = re.compile(r"(?://|#) not reached: (.+)")
COMMENT = re.compile(r"\s*(?:(?://|#) ?(.*)|$)")
RESULT = re.compile(r"[a-z]\w+( \w+)* ?\*?")  # the line above a function's name in C

Counts = dict[int, int]  # by line: how often it was run


class File(NamedTuple):
    """A source file with what was counted in it."""

    group: str
    path: Path
    counts: Counts

    @property
    def missed(self) -> list[int]:
        """The lines that were not run."""
        return sorted(line for line, count in self.counts.items() if count == 0)


def read_layers() -> dict[str, str]:
    """Return the layer of each C file, as csrc/README.md tells it."""
    layers = {}
    layer = ""
    for line in (ROOT / "csrc/README.md").read_text(encoding="utf-8").splitlines():
        if heading := re.match(r"## Layer (\d)", line):
            layer = f"layer {heading[1]}"
        elif row := re.match(r"\| `(\w+)\.(\w)(?:/\.(\w))?` \|", line):
            for suffix in filter(None, row.group(2, 3)):
                layers[f"{row[1]}.{suffix}"] = layer
    return layers


def run_gcov(notes: Iterable[Path]) -> Iterator[tuple[str, Counts]]:
    """Yield the path of each source and its counts, for each object that used it."""
    for path in notes:
        done = subprocess.run(
            ["gcov", "--json-format", "--stdout", path],
            cwd=path.parent,
            capture_output=True,
            check=True,
        )
        for line in filter(None, done.stdout.splitlines()):
            for source in json.loads(line)["files"]:
                counts: Counts = defaultdict(int)
                for found in source["lines"]:
                    counts[found["line_number"]] += found["count"]
                yield source["file"], counts


def read_c_files() -> list[File]:
    """Return the files of csrc, with the counts of all objects together."""
    layers = read_layers()
    merged: dict[str, Counts] = {}
    notes = [path for folder in OBJECTS for path in folder.rglob("*.gcno")]
    for source, counts in run_gcov(notes):
        path = Path(source)
        if path.parent.name == "csrc" and path.name in layers:
            sums = merged.setdefault(path.name, defaultdict(int))
            for line, count in counts.items():
                sums[line] += count
    return [
        File(layers[name], ROOT / "csrc" / name, counts) for name, counts in sorted(merged.items())
    ]


def read_python_files() -> list[File]:
    """Return the files of the package, as coverage.py has counted them."""
    report = json.loads((ROOT / "build/coverage/python.json").read_text(encoding="utf-8"))
    files = []
    for name, found in sorted(report["files"].items()):
        counts = dict.fromkeys(found["executed_lines"], 1)
        counts.update(dict.fromkeys(found["missing_lines"], 0))
        files.append(File("Python", ROOT / name, counts))
    return files


def read_reason(lines: list[str]) -> str:
    """Return the reason that the lines give, the first of code behind comments; or nothing."""
    reason = ""
    for text in lines:
        if found := REASON.search(text):
            reason = found[1]
        elif reason and (comment := COMMENT.fullmatch(text)):
            reason = f"{reason} {comment[1] or ''}".rstrip()
    return reason


def find_reasons(file: File) -> dict[int, str]:
    """Return the lines that were not run, each with its reason, which may be empty."""
    lines = ["", *file.path.read_text(encoding="utf-8").splitlines()]
    reasons = {}
    reason = ""
    last = 0
    for number, count in sorted(file.counts.items()):
        if count > 0:
            reason = ""
        else:
            first = number
            while first - 1 > last and (
                COMMENT.fullmatch(lines[first - 1]) or RESULT.fullmatch(lines[first - 1])
            ):
                first -= 1
            reason = read_reason(lines[first : number + 1]) or reason
            reasons[number] = reason
        last = number
    return reasons


def find_reasonless(file: File) -> list[int]:
    """Return the lines that were not run and have no reason."""
    return [number for number, reason in find_reasons(file).items() if not reason]


def list_reasons(file: File) -> Iterator[str]:
    """Yield the reasons in the file, each behind the lines that it is given for."""
    for reason, found in groupby(find_reasons(file).items(), key=lambda item: item[1]):
        numbers = as_ranges([number for number, _ in found])
        yield f"{file.path.relative_to(ROOT)}:{numbers}: {reason or 'NO REASON'}"


def as_ranges(numbers: list[int]) -> str:
    """Return line numbers as people write them: 3, 7-9."""
    ranges: list[list[int]] = []
    for number in numbers:
        if ranges and number == ranges[-1][1] + 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in ranges)


def find_gotos(file: File) -> tuple[int, list[int]]:
    """Return how many jumps a file has, and the lines of those without a run and a reason."""
    lines = file.path.read_text(encoding="utf-8").splitlines()
    gotos = [n for n, text in enumerate(lines, 1) if re.match(r"\s*goto \w+;", text)]
    return len(gotos), [number for number in find_reasonless(file) if number in gotos]


def percent(run: int, all_lines: int) -> float:
    """Return a share in percent; of nothing, all was run."""
    return 100 * run / all_lines if all_lines else 100.0


def main() -> int:
    """Print the tables and the list; 1 if a bound is not met or a reason is missing."""
    files = read_c_files() + read_python_files()
    is_bad = False
    for group, bound in BOUNDS.items():
        print(f"\n{group:48} lines     run  percent")
        total = missed = 0
        for file in (file for file in files if file.group == group):
            total += len(file.counts)
            missed += len(file.missed)
            print(
                f"  {file.path.relative_to(ROOT)!s:44} {len(file.counts):7} "
                f"{len(file.counts) - len(file.missed):7} "
                f"{percent(len(file.counts) - len(file.missed), len(file.counts)):7.1f}"
            )
        share = percent(total - missed, total)
        is_met = total > 0 and share >= bound
        is_bad = is_bad or not is_met
        print(
            f"{group}: {share:.1f} % of {total} lines, at least {bound} % wanted"
            f"{'' if is_met else ': NOT MET'}; {missed} not run"
        )

    print("\nNot run, and why")
    for file in files:
        for line in list_reasons(file):
            print(f"  {line}")
    reasonless = sum(len(find_reasonless(file)) for file in files)
    is_bad = is_bad or reasonless > 0
    print(f"{reasonless} lines without a reason, none wanted")

    gotos = 0
    for file in (file for file in files if file.path.suffix == ".c"):
        count, unreached = find_gotos(file)
        gotos += count
        for number in unreached:
            print(f"no test makes the jump of {file.path.relative_to(ROOT)}:{number}")
            is_bad = True
    print(f"{gotos} lines with goto, each to an error exit")
    return int(is_bad)


if __name__ == "__main__":
    sys.exit(main())
