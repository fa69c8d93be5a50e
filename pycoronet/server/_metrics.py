"""A server's statistics as a text page in the OpenMetrics format, and who serves it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from ._stats import Stats

if TYPE_CHECKING:
    from .._coronet import sk_conn
    from .._http import Request, Response
    from ._server import Server

__all__ = ["METRICS", "make_page", "render"]

# What all who read the page, or only pretend to, may have at most: connections; seconds for a
# request, and until the next one; and seconds for everything.
MAX_READERS = 32
REQUEST_TIMEOUT = 10.0
TOTAL_TIMEOUT = 60.0

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


def make_page(address: Any, read: Callable[[], Stats]) -> Server:
    """Return a server, not started, that answers GET / and GET /metrics.

    read: returns what is to be shown. Raises ModuleNotFoundError, which says what to install,
    if there is no parser for HTTP.
    """
    from .._http import HTTPError, Response, serve_http
    from ._server import Server

    def respond(request: Request) -> Response:
        if request.target.partition("?")[0] not in ("/", "/metrics"):
            raise HTTPError(404)
        if request.method not in ("GET", "HEAD"):
            raise HTTPError(405, [("Allow", "GET, HEAD")])
        return Response(200, [("Content-Type", CONTENT_TYPE)], render(read()))

    def handler(conn: sk_conn, _: Any) -> None:
        serve_http(
            conn,
            respond,
            server=conn.server,
            request_timeout=REQUEST_TIMEOUT,
            idle_timeout=REQUEST_TIMEOUT,
        )

    return Server(address, handler, max_connections=MAX_READERS, total_timeout=TOTAL_TIMEOUT)
