"""Tables of a benchmark run, as text, Markdown, JSON and pictures."""

import dataclasses
import json
import pathlib

import pictures
from figures import Chart

HERE = pathlib.Path(__file__).parent
RESULTS = HERE / "results"
PICTURES = HERE / "pictures"
README = HERE / "README.md"
BEGIN = "<!-- {} --markdown writes from here -->"
END = "<!-- to here -->"


@dataclasses.dataclass
class Table:
    """One test: a heading, rows of texts, what is drawn, and the numbers of every round."""

    title: str
    headers: list
    rows: list = dataclasses.field(default_factory=list)
    rounds: dict = dataclasses.field(default_factory=dict)
    chart: Chart | None = None
    note: str = ""
    name: str = ""  # of the test, and of its picture
    seconds: float = 0.0  # that it took


def skipped(title, why):
    return Table(title, [], note=f"skipped: {why}")


def nobody_asked_for(title):
    return skipped(title, "nobody whom it measures was asked for")


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
    if table.chart is not None:
        lines += [f"![{table.title}](pictures/{table.name}.svg)", ""]
    if table.rows:
        rule = ["---"] + ["---:"] * (len(table.headers) - 1)
        for row in (table.headers, rule, *table.rows):
            lines.append("| " + " | ".join(row) + " |")
        lines.append("")
    if table.note:
        lines += [table.note, ""]
    return "\n".join(lines)


def write_json(tables, about, folder=RESULTS):
    """Store the run beside the earlier ones; return the file's path."""
    folder.mkdir(exist_ok=True)
    numbers = [int(path.stem.rpartition("-")[2]) for path in folder.glob("????-??-??-*.json")]
    path = folder / f"{about['date']}-{max(numbers, default=0) + 1:03}.json"
    content = {"about": about, "tests": [dataclasses.asdict(table) for table in tables]}
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def read_json(path):
    """Return (tables, about) of a run that write_json() has stored."""
    content = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
    tables = [Table(**test) for test in content["tests"]]
    for table in tables:
        table.chart = table.chart and Chart.from_json(table.chart)
    return tables, content["about"]


def write_pictures(tables, about, folder=PICTURES):
    """Draw every table that has something to show; return the paths of the pictures."""
    folder.mkdir(exist_ok=True)
    when = f"{about['date']}, {about['commit']}"
    rounds = f"Medians, and thin lines for the middle half; rounds: {about['rounds']}; "
    paths = []
    for table in tables:
        if table.chart is not None:
            paths.append(folder / f"{table.name}.svg")
            footnote = rounds + when if table.chart.has_spread else when
            text = pictures.draw(table.title, table.chart, footnote)
            paths[-1].write_text(text, encoding="utf-8")
    return paths


def write_markdown(tables, about, program="run.py", page=README):
    """Put the tables between the two marks of a page that are the program's."""
    begin = BEGIN.format(program)
    before, mark, rest = page.read_text(encoding="utf-8").partition(begin)
    _, end, after = rest.partition(END)
    if not (mark and end):
        raise ValueError(f"{page.name} has no place for the tables of {program}")
    lines = [f"- {name}: {text}" for name, text in about.items()]
    parts = [begin, "", *lines, "", *(format_markdown(table) for table in tables), END]
    page.write_text(before + "\n".join(parts) + after, encoding="utf-8")
