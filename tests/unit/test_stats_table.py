"""The table of `python -m pycoronet stats`: what a page says, in lines of a given width."""

from __future__ import annotations

import pytest

from pycoronet._cli.stats_table import (
    START_TIME,
    Snapshot,
    format_duration,
    format_number,
    format_table,
    parse_page,
)
from pycoronet.server._metrics import render
from pycoronet.server._stats import Stats

STARTED = 1_000_000.0
WIDE = 80


def snapshot_of(stats: Stats, *, after: float) -> Snapshot:
    """Return what a page says so many seconds after the start."""
    stats.created = STARTED
    return Snapshot(parse_page(render(stats).decode()), STARTED + after, 500.0 + after)


def make_stats(accepted: int) -> Stats:
    stats = Stats()
    stats.accepted = accepted
    stats.open = 12
    stats.shed["pool"] = accepted // 10
    return stats


def table_of(accepted: int, before: int | None = None, *, width: int = WIDE) -> list[str]:
    """Return the table 100 seconds after the start, 2 seconds after the snapshot before."""
    last = None if before is None else snapshot_of(make_stats(before), after=98)
    return format_table(
        "somewhere", snapshot_of(make_stats(accepted), after=100), last, width=width
    )


def row_of(lines: list[str], name: str) -> list[str]:
    (line,) = (line for line in lines if line.startswith(name))
    return line.removeprefix(name).split()


def test_page_is_parsed_value_by_value() -> None:
    values = parse_page(render(make_stats(50)).decode())
    assert values[START_TIME, ""] > 0
    assert values["pycoronet_connections_accepted_total", ""] == 50
    assert values["pycoronet_connections_shed_total", "pool"] == 5
    assert values["pycoronet_connections_open", ""] == 12


def test_page_of_others_is_passed_over() -> None:
    page = (
        "# TYPE x counter\nother_total 5\n"
        'pycoronet_errors_total{kind="\x1b[2J"} 5\n'
        "pycoronet_errors_total nan\npycoronet_errors_total 1 2 3\n"
        "pycoronet_start_time_seconds 1.5e+3\n"
    )
    assert parse_page(page) == {(START_TIME, ""): 1500.0}


@pytest.mark.parametrize("page", ["", "<html>", "other_total 5\n", "pycoronet_errors_total 1\n"])
def test_page_without_our_statistics_is_refused(page: str) -> None:
    with pytest.raises(ValueError, match="no statistics of pycoronet"):
        parse_page(page)


def test_page_with_a_broken_number_is_refused() -> None:
    with pytest.raises(ValueError, match="float"):
        parse_page("pycoronet_start_time_seconds 1.2.3\n")


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0, "", "0"),
        (0.25, "", "0.2"),
        (12, "", "12"),
        (999.96, "", "1,000.0"),
        (1234.5, "", "1,234"),
        (999_999, "", "999,999"),
        (1_234_567, "", "1.23 M"),
        (999_600_000, "", "1 G"),
        (0, "B", "0 B"),
        (9999, "B", "9,999 B"),
        (12_345, "B", "12.3 kB"),
        (2**50, "B", "1.13 PB"),
        (1e30, "B", "1e+12 EB"),
        (float("inf"), "", "inf E"),
    ],
)
def test_number_is_short(value: float, unit: str, text: str) -> None:
    assert format_number(value, unit) == text
    assert len(text) < 12


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00:00"), (3661.9, "1:01:01"), (86399, "23:59:59"), (190861, "2 d 5:01:01")],
)
def test_duration_is_read_at_a_glance(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


def test_table_of_one_snapshot_has_values_and_means() -> None:
    lines = table_of(300)
    assert lines[0] == "somewhere  up 0:01:40"
    assert lines[2].split() == ["value", "per", "second", "mean"]
    assert row_of(lines, "connections open") == ["12"]
    assert row_of(lines, "connections accepted") == ["300", "3"]
    assert row_of(lines, "connections shed") == ["30", "0.3"]
    assert row_of(lines, "  pool") == ["30", "0.3"]
    assert row_of(lines, "received bytes") == ["0", "B", "0", "B"]


def test_table_of_two_snapshots_has_rates() -> None:
    lines = table_of(300, before=250)
    assert row_of(lines, "connections accepted") == ["300", "25", "3"]
    assert row_of(lines, "connections shed") == ["30", "2.5", "0.3"]
    assert row_of(lines, "  pool") == ["30", "2.5", "0.3"]


def test_table_shows_only_the_reasons_that_occurred() -> None:
    assert [line for line in table_of(300) if line.startswith("  ") and "value" not in line] == [
        line for line in table_of(300) if line.startswith("  pool")
    ]


def test_table_after_a_restart_has_no_rate() -> None:
    before = snapshot_of(make_stats(250), after=98)
    before.values[START_TIME, ""] -= 1000
    lines = format_table("x", snapshot_of(make_stats(300), after=100), before, width=WIDE)
    assert row_of(lines, "connections accepted") == ["300", "3"]


def test_table_of_a_server_with_another_clock_is_shown() -> None:
    lines = format_table("x", snapshot_of(make_stats(300), after=-5), None, width=WIDE)
    assert lines[0] == "x  up 0:00:00"
    assert row_of(lines, "connections accepted") == ["300", "300"]


def test_table_columns_stand_below_each_other() -> None:
    lines = table_of(300, before=250)
    counters = ("connections accepted", "  pool", "sent bytes", "workers started")
    ends = {len(line) for line in lines if line.startswith(counters)}
    assert ends == {len(lines[2])}
    (gauge,) = (line for line in lines if line.startswith("connections open"))
    assert len(gauge) == lines[2].index("value") + len("value")


@pytest.mark.parametrize("width", range(60))
def test_table_is_no_wider_than_the_terminal(width: int) -> None:
    lines = format_table(
        "a long name of a server",
        snapshot_of(make_stats(300), after=100),
        snapshot_of(make_stats(250), after=98),
        width=width,
        note="no answer: and the reason for it",
    )
    limit = max(width, 8 + 12)  # a name of eight characters and one column are always there
    assert all(len(line) <= limit for line in lines)
    assert any("300" in line for line in lines)
    if width >= 56:
        assert lines[2].endswith("mean")
    elif width >= 44:
        assert lines[2].endswith("second")
    else:
        assert lines[2].endswith("value")
    assert lines[1] == "no answer: and the reason for it"[:width]
