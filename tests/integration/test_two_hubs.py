"""Two hubs in two threads of one process, each with thousands of connections, and traffic across.

Every byte is checked, and nothing is left: no descriptor, no connection, no memory round by round.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from connections import count_descriptors

from pycoronet import (
    Channel,
    Hub,
    Queue,
    connect,
    from_thread,
    get_hub,
    listen,
    sk_conn,
    sleep,
    spawn,
)

CONNECTIONS = 2000  # that each hub serves; it has as many to the other one
PIECE_COUNT = 3
BLOCK = bytes(range(251)) * 40
MAX_GROWTH = 1 << 20  # bytes of memory, from one round to the next
"""
