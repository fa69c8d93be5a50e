"""One transfer over a bad network, one over none: what also runs among all the other tests."""

from __future__ import annotations

from contextlib import closing

import pytest
from hosts import Network
from transfers import CONTENT, STREAMS, Link


def test_echo_over_a_bad_network_is_whole(network: Network) -> None:
    network.set(delay=0.002, jitter=0.01, loss=0.03, duplicate=0.03)
    with closing(Link(network, STREAMS[0])) as link:
        link.fetch()
        assert link.received == CONTENT
        assert link.server.get() is None
    counts = network.counts()["up"]
    assert min(counts["lost"], counts["doubled"], counts["late"]) > 0


def test_echo_through_a_hole_times_out(network: Network) -> None:
    with closing(Link(network, STREAMS[0], 1.0)) as link:
        network.hole(after=100_000)
        with pytest.raises(TimeoutError):
            link.fetch()
        assert isinstance(link.server.get(), TimeoutError)
        assert CONTENT.startswith(link.received)
