r"""For tests of programs that use pycoronet: virtual time, a network in memory, faults.

    with virtual_time(), pair(latency=0.1) as (client, server), faults(seed=1):
        spawn(handle, server)  # what is to be tested
        client.write(b"ping\n")
        assert client.readln() == b"pong\n"  # 0.2 seconds later, and no time has passed

What happens, happens in the same order each time. `nothing_left_behind()` finds the tasks,
timers and descriptors that a test leaves; for pytest there is a fixture of that name.
"""

from ._faults import Faults, faults
from ._leftovers import nothing_left_behind
from ._pair import Pair, pair
from ._time import advance, virtual_time

__all__ = [
    "Faults",
    "Pair",
    "advance",
    "faults",
    "nothing_left_behind",
    "pair",
    "virtual_time",
]
