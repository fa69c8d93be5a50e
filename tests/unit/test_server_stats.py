"""Stats: what a server counts, as a record and as a dict."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest

from pycoronet.server._stats import ERROR_KINDS, SHED_REASONS, Stats


def test_stats_new_count_nothing() -> None:
    before = time.time()
    stats = Stats()
    assert before <= stats.created <= time.time()
    values = stats.as_dict()
    del values["created"]
    assert values.pop("shed") == dict.fromkeys(SHED_REASONS, 0)
    assert values.pop("errors") == dict.fromkeys(ERROR_KINDS, 0)
    assert set(values.values()) == {0}


def test_stats_as_dict_has_every_value_and_is_a_copy() -> None:
    stats = Stats()
    stats.accepted = 5
    stats.shed["pool"] += 2
    stats.errors["reset"] += 1
    stats.traffic = SimpleNamespace(bytes_read=10, bytes_sent=20)
    values = stats.as_dict()
    assert values["accepted"] == 5
    assert values["shed"]["pool"] == 2
    assert values["errors"]["reset"] == 1
    assert (values["bytes_read"], values["bytes_sent"]) == (10, 20)
    assert set(values) == {*Stats.__slots__, "bytes_read", "bytes_sent"} - {"traffic"}
    values["shed"]["pool"] = 7
    values["errors"]["reset"] = 7
    assert (stats.shed["pool"], stats.errors["reset"]) == (2, 1)


def test_stats_of_another_name_is_refused() -> None:
    stats = Stats()
    with pytest.raises(AttributeError):
        stats.approved = 1  # type: ignore[attr-defined]


def test_stats_repr_has_the_sums() -> None:
    stats = Stats()
    stats.accepted, stats.connections_served, stats.open = 9, 4, 2
    stats.shed.update(pool=1, address=2)
    stats.errors.update(tls=1, timeout=3)
    assert repr(stats) == "<Stats open=2 accepted=9 served=4 shed=3 errors=4>"
