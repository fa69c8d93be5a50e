"""The metrics page as text, read by Prometheus' own parser."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from prometheus_client.openmetrics.parser import text_string_to_metric_families

from pycoronet.server._metrics import METRICS, render
from pycoronet.server._stats import ERROR_KINDS, SHED_REASONS, Stats


def make_stats() -> Stats:
    stats = Stats()
    stats.created = 1_700_000_000.25
    stats.accepted, stats.connections_served, stats.open = 100, 80, 7
    stats.shed = {reason: number for number, reason in enumerate(SHED_REASONS)}
    stats.errors = {kind: 10 + number for number, kind in enumerate(ERROR_KINDS)}
    stats.cancelled, stats.threads, stats.waiting = 1, 50, 2
    stats.workers, stats.workers_started = 4, 6
    stats.traffic = SimpleNamespace(bytes_read=2**40 + 1, bytes_sent=2**41 + 1)
    return stats


def parse(page: bytes) -> dict[str, Any]:
    """Return the families of a page by name."""
    return {family.name: family for family in text_string_to_metric_families(page.decode())}


def test_metrics_page_has_all_values() -> None:
    samples = {
        (sample.name, *sample.labels.items()): sample.value
        for family in parse(render(make_stats())).values()
        for sample in family.samples
    }
    expected: dict[tuple[Any, ...], float] = {
        ("pycoronet_start_time_seconds",): 1_700_000_000.25,
        ("pycoronet_connections_open",): 7,
        ("pycoronet_connections_waiting",): 2,
        ("pycoronet_connections_accepted_total",): 100,
        ("pycoronet_connections_served_total",): 80,
        ("pycoronet_handlers_cancelled_total",): 1,
        ("pycoronet_received_bytes_total",): 2**40 + 1,
        ("pycoronet_sent_bytes_total",): 2**41 + 1,
        ("pycoronet_threads",): 50,
        ("pycoronet_workers",): 4,
        ("pycoronet_workers_started_total",): 6,
    }
    for number, reason in enumerate(SHED_REASONS):
        expected["pycoronet_connections_shed_total", ("reason", reason)] = number
    for number, kind in enumerate(ERROR_KINDS):
        expected["pycoronet_errors_total", ("kind", kind)] = 10 + number
    assert samples == expected


def test_metrics_page_knows_types_units_and_help() -> None:
    families = parse(render(make_stats()))
    assert all(family.documentation for family in families.values())
    assert families["pycoronet_connections_accepted"].type == "counter"
    assert families["pycoronet_connections_open"].type == "gauge"
    assert families["pycoronet_received_bytes"].unit == "bytes"
    assert families["pycoronet_sent_bytes"].unit == "bytes"
    assert families["pycoronet_start_time_seconds"].unit == "seconds"


def test_metrics_page_ends_as_the_format_wants() -> None:
    assert render(make_stats()).endswith(b"\n# EOF\n")


def test_metrics_leave_no_value_out() -> None:
    assert {metric.value for metric in METRICS} == set(Stats().as_dict())
