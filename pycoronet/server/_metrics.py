"""A server's statistics as a text page in the OpenMetrics format."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from ._stats import Stats

__all__ = ["CONTENT_TYPE", "METRICS", "render"]

CONTENT_TYPE = "application/openmetrics-text; version=1.0.0; charset=utf-8"


class Metric(NamedTuple):
    """One value of the statistics, and what the page says of it."""

    value: str  # its name in Stats
    name: str  # its name in the page: of a counter if it ends with _total, else of a gauge
    help: str
    unit: str = ""  # also in the name
    label: str = ""  # what tells the parts of a dict apart


METRICS = (
    Metric("created", "pycoronet_start_time_seconds", "Since when it counts.", unit="seconds"),
    Metric("open", "pycoronet_connections_open", "Connections open now."),
    Metric("waiting", "pycoronet_connections_waiting", "Open ones that wait for a thread."),
    Metric("accepted", "pycoronet_connections_accepted_total", "Connections taken."),
    Metric("connections_served", "pycoronet_connections_served_total", "Connections that ended."),
    Metric("shed", "pycoronet_connections_shed_total", "Connections not served.", label="reason"),
    Metric("errors", "pycoronet_errors_total", "What went wrong.", label="kind"),
    Metric("cancelled", "pycoronet_handlers_cancelled_total", "Handlers cancelled by a stop."),
    Metric("bytes_read", "pycoronet_received_bytes_total", "Bytes received.", unit="bytes"),
    Metric("bytes_sent", "pycoronet_sent_bytes_total", "Bytes sent.", unit="bytes"),
    Metric("threads", "pycoronet_threads", "Threads of the pool now."),
    Metric("workers", "pycoronet_workers", "Worker processes now."),
    Metric("workers_started", "pycoronet_workers_started_total", "Worker processes so far."),
)


def _lines_of(metric: Metric, stats: Stats) -> Iterator[str]:
    family = metric.name.removesuffix("_total")
    yield f"# TYPE {family} {'gauge' if family == metric.name else 'counter'}"
    if metric.unit:
        yield f"# UNIT {family} {metric.unit}"
    yield f"# HELP {family} {metric.help}"
    value = getattr(stats, metric.value)
    if metric.label:
        for part, count in value.items():
            yield f'{metric.name}{{{metric.label}="{part}"}} {count}'
    else:
        yield f"{metric.name} {value}"


def render(stats: Stats) -> bytes:
    """Return the page."""
    lines = [line for metric in METRICS for line in _lines_of(metric, stats)]
    return "\n".join([*lines, "# EOF", ""]).encode("ascii")
