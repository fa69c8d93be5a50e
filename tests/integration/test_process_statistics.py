"""What workers count is one sum: whoever is asked, and whatever becomes of the workers."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from connections import receive_until
from master_case import PATIENCE_SECONDS, SERVER_PREAMBLE, Load, MasterProgram, ask, connect
from prometheus_client.openmetrics.parser import text_string_to_metric_families

# What goes up and down.
GAUGES = {"connections_open", "connections_waiting", "threads", "workers"}

SOURCE = """
server = Server(("127.0.0.1", 0), {handler}, strategy={strategy!r},
                processes={processes}, metrics={path!r}, delay=0.05)
server.add_shutdown_callback(lambda server: logging.info(
    "in the end %d served, %d open", server.stats.connections_served, server.stats.open))
server.listen()
logging.info("listening %r", server.addresses[0])
server.serve_forever()
"""
# Tells when a worker has published.
TELLING = """
from pycoronet.server._shared_stats import Row
publish_silently = Row.publish
def publish(row, stats):
    publish_silently(row, stats)
    logging.info("published %d", stats.connections_served)
Row.publish = publish
"""

HANDLERS = {"coroutine": "answer", "callback": "answer_what_is_there", "threadpool": "answer"}


def program(
    strategy: str = "coroutine", *, processes: int = 2, path: str | None = None, before: str = ""
) -> MasterProgram:
    source = SOURCE.format(
        handler=HANDLERS[strategy], strategy=strategy, processes=processes, path=path
    )
    return MasterProgram(before + source, SERVER_PREAMBLE)


class Page:
    """The page of a server, on a Unix socket."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def read(self) -> dict[str, float]:
        """Return the values; a worker that is on its way out may break off."""
        page = b""
        while not page.endswith(b"# EOF\n"):
            with connect(self.path) as sock:
                try:
                    sock.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
                    page = b"".join(iter(lambda: sock.recv(65536), b""))
                except ConnectionError:
                    continue
        text = page.partition(b"\r\n\r\n")[2].decode()
        return {
            "_".join(
                [sample.name.removeprefix("pycoronet_"), *sample.labels.values()]
            ): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    def wait_for(self, **values: float) -> dict[str, float]:
        """Read until it has these values, as it has to have in the end; return all."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            found = self.read()
            shown = {name: found[name] for name in values}
            if shown == values or time.monotonic() > deadline:
                assert shown == values
                return found


@pytest.fixture
def page(tmp_path: Path) -> Page:
    return Page(tmp_path / "page")


@pytest.fixture(params=list(HANDLERS))
def start(request: pytest.FixtureRequest, page: Page) -> Callable[[], MasterProgram]:
    """Return what starts a server of each strategy, with two workers and a page."""
    return lambda: program(request.param, path=page.path)


def ask_both(address: Any, pids: set[int]) -> int:
    """Ask until each worker has answered; return how often."""
    answered: list[int] = []
    while not pids <= set(answered):
        answered.append(ask(address))
    return len(answered)


def test_the_page_is_the_sum_of_all_workers_and_stays_it(
    start: Callable[[], MasterProgram], page: Page
) -> None:
    with start() as server:
        address = server.wait_for_address()
        pids = set(server.wait_for_ready().values())
        began = page.read()["start_time_seconds"]
        asked = ask_both(address, pids)
        with connect(address) as idle:
            page.wait_for(connections_open=1)
            idle.sendall(b"hello\n")
            assert receive_until(idle, b"hello\n").endswith(b" hello\n")
        asked += 1
        values = page.wait_for(
            connections_accepted_total=asked,
            connections_served_total=asked,
            connections_open=0,
            received_bytes_total=6 * asked,
            workers=2,
            workers_started_total=2,
        )
        assert values["sent_bytes_total"] > 6 * asked

        killed = min(pids)
        os.kill(killed, signal.SIGKILL)
        pids = pids - {killed} | set(server.wait_for_ready(1).values())
        # What has been published is not forgotten.
        page.wait_for(connections_accepted_total=asked, workers=2, workers_started_total=3)
        asked += ask_both(address, pids)
        page.wait_for(connections_served_total=asked, connections_open=0)

        server.signal(signal.SIGHUP)
        pids = set(server.wait_for_ready().values())
        server.wait_for("reloaded")
        page.wait_for(workers=2, workers_started_total=5)
        asked += ask_both(address, pids)
        values = page.wait_for(connections_served_total=asked, received_bytes_total=6 * asked)
        assert values["start_time_seconds"] == began

        server.signal(signal.SIGTERM)
        server.wait_for(f"in the end {asked} served, 0 open")
        assert server.finish() == 0
    assert not Path(page.path).exists()


def test_what_a_killed_worker_has_published_counts() -> None:
    with program(processes=1, before=TELLING) as server:
        address = server.wait_for_address()
        (pid,) = server.wait_for_ready(1).values()
        for _ in range(3):
            ask(address)
        server.wait_for("published 3")
        os.kill(pid, signal.SIGKILL)
        server.wait_for_ready(1)
        for _ in range(2):
            ask(address)
        server.wait_for("published 2")
        server.signal(signal.SIGTERM)
        server.wait_for("in the end 5 served, 0 open")
        assert server.finish() == 0


def test_no_counter_goes_back_and_nobody_is_missed_in_reloads(
    start: Callable[[], MasterProgram], page: Page
) -> None:
    with start() as server:
        address = server.wait_for_address()
        server.wait_for_ready()
        last = page.read()
        with Load(address, clients=4) as load:
            for _ in range(3):
                server.signal(signal.SIGHUP)
                server.wait_for_ready()
                server.wait_for("reloaded")
                for _ in range(10):
                    values = page.read()
                    assert values.keys() == last.keys()
                    back = {name for name in values if values[name] < last[name]} - GAUGES
                    assert not back, (last, values)
                    last = values
        assert load.counts.keys() == {"answered"}, load.problems
        answered = load.counts["answered"]
        page.wait_for(connections_served_total=answered, connections_open=0, workers=2)
        server.signal(signal.SIGTERM)
        server.wait_for(f"in the end {answered} served, 0 open")
        assert server.finish() == 0


def test_readers_of_the_page_that_say_nothing_harm_no_worker(page: Page) -> None:
    with program(path=page.path) as server:
        address = server.wait_for_address()
        pids = set(server.wait_for_ready().values())
        silent: list[socket.socket] = []
        try:
            for _ in range(20):
                silent.append(connect(page.path))
            asked = ask_both(address, pids)
            page.wait_for(connections_served_total=asked)
        finally:
            for one in silent:
                one.close()
        server.signal(signal.SIGTERM)
        assert server.finish() == 0


def test_a_server_that_is_run_again_counts_on() -> None:
    source = """
    server = Server(("127.0.0.1", 0), answer, processes=2)
    for _ in range(3):
        server.listen()
        logging.info("listening %r", server.addresses[0])
        try:
            server.serve_forever()
        except SystemExit:
            stats = server.stats
            logging.info("served %d of %d, read %d, by %d workers", stats.connections_served,
                         stats.accepted, stats.bytes_read, stats.workers_started)
    """
    with MasterProgram(source, SERVER_PREAMBLE) as server:
        for run in (1, 2, 3):
            address = server.wait_for_address()
            server.wait_for_ready()
            for _ in range(3):
                ask(address)
            server.signal(signal.SIGTERM)
            server.wait_for(f"served {3 * run} of {3 * run}, read {18 * run}, by {2 * run} workers")
        assert server.finish() == 0
