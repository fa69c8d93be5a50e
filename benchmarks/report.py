"""Tables of a benchmark run, as text, Markdown and JSON."""

import dataclasses
import json
import re

from processes import HERE

RESULTS = HERE / "results"
README = HERE / "README.md"
BEGIN = re.compile(r"(<!-- \w+\.py --markdown writes from here -->)")
END = "<!-- to here -->"


@dataclasses.dataclass
class Table:
    """One test: a heading, rows of texts, and the raw numbers for the JSON file."""

    title: str
    headers: list
    rows: list = dataclasses.field(default_factory=list)
    raw: dict = dataclasses.field(default_factory=dict)
    note: str = ""


def skipped(title, why):
    return Table(title, [], note=f"skipped: {why}")


def judge(value, must=None, aim=None):
    """Return the cells [value, what it must reach, what it is to aim at]."""
    if value is None:
        return ["", "", ""]
    mark = "" if must is None or value <= must else " **short**"
    limits = ["" if limit is None else f"{limit:.3g}" for limit in (must, aim)]
    return [f"{value:.2f}{mark}", *limits]


def format_text(table):
    lines = [table.title]
    rows = [table.headers, *table.rows] if table.rows else []
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        first, *others = [(cell, width) for cell, width in zip(row, widths, strict=True)]
        cells = [first[0].ljust(first[1])] + [cell.rjust(width) for cell, width in others]
        lines.append("  " + "  ".join(cells).rstrip())
    if table.note:
        lines.append("  " + table.note)
    return "\n".join(lines) + "\n"


def format_markdown(table):
    lines = [f"**{table.title}**", ""]
    if table.rows:
        rule = ["---"] + ["---:"] * (len(table.headers) - 1)
        for row in (table.headers, rule, *table.rows):
            lines.append("| " + " | ".join(row) + " |")
        lines.append("")
    if table.note:
        lines += [table.note, ""]
    return "\n".join(lines)


def write_json(tables, about):
    """Store the run beside the earlier ones; return the file's path."""
    RESULTS.mkdir(exist_ok=True)
    number = len(list(RESULTS.glob("*.json"))) + 1
    path = RESULTS / f"{about['date']}-{number:03}.json"
    content = {"about": about, "tests": [dataclasses.asdict(table) for table in tables]}
    path.write_text(json.dumps(content, indent=1))
    return path


def write_markdown(tables, about, page=README):
    """Put the tables between the two marks of a page."""
    before, mark, rest = BEGIN.split(page.read_text(), maxsplit=1)
    _, _, after = rest.partition(END)
    lines = [f"- {name}: {text}" for name, text in about.items()]
    parts = [mark, "", *lines, "", *(format_markdown(table) for table in tables), END]
    page.write_text(before + "\n".join(parts) + after)
