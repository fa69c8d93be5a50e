"""Lines that are slow, late, lossy, in disorder, double: each transfer arrives whole all the same.

And breaks that are mended: TCP sends again what is lost, and nobody has to know.
"""

from __future__ import annotations

from contextlib import closing
from typing import Any

import pytest
from hosts import Network
from transfers import CONTENT, Link, Transfer

# What the lines do, and what of it the relay must have seen.
LINES: dict[str, tuple[dict[str, Any], str]] = {
    "delay": ({"delay": 0.01}, "frames"),
    "loss": ({"loss": 0.05}, "lost"),
    "disorder": ({"jitter": 0.01}, "late"),
    "duplicates": ({"duplicate": 0.2, "jitter": 0.002}, "doubled"),
    "small pipe": ({"rate": 1_500_000, "queue": 0.01, "delay": 0.002}, "frames"),
    "everything": (
        {"delay": 0.002, "jitter": 0.005, "loss": 0.05, "duplicate": 0.02, "rate": 5e6},
        "lost",
    ),
}


def fetch_whole(network: Network, transfer: Transfer, *, ipv6: bool = False) -> None:
    """Do a transfer, which has to come to its end and be right to the byte."""
    with closing(Link(network, transfer, ipv6=ipv6)) as link:
        link.fetch()
        assert link.received == transfer.expected
        link.conn.close()
        assert link.server.get() is None


@pytest.mark.parametrize("line", LINES)
def test_transfer_over_a_bad_line_is_whole(network: Network, transfer: Transfer, line: str) -> None:
    settings, seen = LINES[line]
    network.set(**settings)
    fetch_whole(network, transfer)
    counts = network.counts()
    if transfer.expected is CONTENT:  # the others have few segments, and one under way at a time
        assert counts["up"][seen] + counts["down"][seen] > 0


@pytest.mark.parametrize("line", ["up", "down"])
def test_transfer_over_a_line_that_is_bad_one_way_is_whole(
    network: Network, transfer: Transfer, line: str
) -> None:
    network.set(line, loss=0.1, jitter=0.005)
    fetch_whole(network, transfer)
    assert network.counts()[line]["lost"] > 0


@pytest.mark.parametrize("after", [1, 40_000])
def test_transfer_through_a_hole_that_is_mended_is_whole(
    network: Network, transfer: Transfer, after: int
) -> None:
    network.hole(after=after, heal_after=0.2)
    fetch_whole(network, transfer)
    assert network.counts()["swallowed"] > 0


@pytest.mark.parametrize("line", ["up", "down"])
def test_transfer_through_a_hole_one_way_that_is_mended_is_whole(
    network: Network, transfer: Transfer, line: str
) -> None:
    network.hole(line, after=20_000, heal_after=0.2)
    fetch_whole(network, transfer)
    assert network.counts()["swallowed"] > 0


def test_transfer_over_a_cable_that_is_pulled_and_put_back_is_whole(
    network: Network, transfer: Transfer
) -> None:
    network.cut(after=30_000, heal_after=0.2)
    fetch_whole(network, transfer)


def test_transfer_with_a_path_too_narrow_for_its_packets_is_whole_where_the_kernel_probes(
    network: Network, transfer: Transfer
) -> None:
    for host in (network.client, network.server):
        host.set("ipv4/tcp_mtu_probing", "1")
        host.set("ipv4/tcp_base_mss", "512")
    network.set(largest=800)
    fetch_whole(network, transfer)
    counts = network.counts()
    assert counts["up"]["lost"] + counts["down"]["lost"] > 0


def test_transfer_over_ipv6_is_whole(network: Network, transfer: Transfer) -> None:
    network.set(loss=0.05, jitter=0.005)
    network.hole(after=30_000, heal_after=0.2)
    fetch_whole(network, transfer, ipv6=True)
    assert network.counts()["swallowed"] > 0
