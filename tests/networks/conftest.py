"""The tests over bad networks: skipped with a reason where there can be no networks of our own.

All of them run when this folder is asked for, as `make networks` does; among all the tests of
the project only test_smoke.py.
"""

from __future__ import annotations

import functools
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hosts
import pytest
from hosts import Network
from transfers import STREAMS, Transfer, over_tls

import pycoronet

HERE = Path(__file__).parent

# How often the hub looks for events in the longest of these tests is a few thousand times; in a
# busy loop it does so more often than this within a tenth of a second.
MOST_TURNS = 20_000

# Seconds after which a test that hangs fails. None takes a tenth of it, however slow a machine.
LONGEST = 60.0


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave the long ones out of a run of everything."""
    chosen = [Path(argument.split("::")[0]).resolve() for argument in config.args]
    if any(path == HERE or HERE in path.parents for path in chosen):
        return None
    is_test = collection_path.parent == HERE and collection_path.name.startswith("test_")
    return True if is_test and collection_path.name != "test_smoke.py" else None


why_not = functools.cache(hosts.why_not)


@pytest.fixture
def network(request: pytest.FixtureRequest, nothing_left_behind: None) -> Iterator[Network]:
    """Return a network of our own; its chance is the test's own, the same in each run.

    The test fails if it leaves anything behind, spins, or hangs.
    """
    lacking = why_not()
    if lacking is not None:
        pytest.skip(f"needs {lacking}")
    turns = 0

    def count() -> None:
        nonlocal turns
        turns += 1

    with Network(zlib.crc32(request.node.nodeid.encode())) as network:
        hook = pycoronet.get_hub().add_hook(check=count)
        try:
            yield network
        finally:
            hook.cancel()
    assert turns < MOST_TURNS


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Any:
    """Bound each test of this folder."""
    if HERE not in pyfuncitem.path.parents:
        return (yield)
    with pycoronet.timeout(LONGEST):
        return (yield)


@pytest.fixture(scope="session")
def tls_transfer(request: pytest.FixtureRequest) -> Transfer:
    """Return an echo over TLS."""
    certificates = request.getfixturevalue("certificates")
    return over_tls(STREAMS[0], certificates.server_context(), certificates.client_context())


@pytest.fixture(params=[*(stream.name for stream in STREAMS), "TLS"])
def transfer(request: pytest.FixtureRequest) -> Transfer:
    """Return one kind of transfer over a stream after the other."""
    if request.param == "TLS":
        return request.getfixturevalue("tls_transfer")
    return next(stream for stream in STREAMS if stream.name == request.param)
