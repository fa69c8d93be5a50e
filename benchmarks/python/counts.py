"""How often a script repeats what it measures, so that it takes the time it is given."""

import sys
from time import process_time_ns


def parse_seconds():
    """Return the seconds of a script's command line, `LIBRARY SECONDS ...`."""
    return float(sys.argv[2])


def choose_counts(warm_up, seconds):
    """Give first `warm_up`, and then how often the same fits into the time; measure the second."""
    start_ns = process_time_ns()
    yield warm_up
    took_ns = max(process_time_ns() - start_ns, 1)
    yield max(1, int(warm_up * seconds * 1e9 / took_ns))
