"""Load: run the soak, or parts of it, and print a table; the status is 1 if something fails.

    python tests/soak/run.py --smoke
    python tests/soak/run.py --part held --seconds 600 --connections 19000

What was measured goes to build/soak/ as JSON.
"""

import argparse
import datetime
import json
import os
import pathlib
import resource
import sys

import attacks
import churn
import held
from measure import Verdicts

RESULTS = pathlib.Path(__file__).parents[2] / "build" / "soak"
PARTS = ("held", "churn", "attacks")
LIMITS = ("max_per_address", "idle_timeout", "request_seconds")

# Descriptors that a process needs besides those of its connections, and some air.
RESERVE = 300


def parse_arguments():
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = min(hard, 60_000) - RESERVE
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--part", choices=PARTS, action="append", help="only this; may be repeated")
    parser.add_argument("--smoke", action="store_true", help="all parts in half a minute")
    parser.add_argument("--seconds", type=int, help="how long connections are held; 600")
    parser.add_argument("--connections", type=int, help=f"how many are held; here {most}")
    parser.add_argument("--active", type=int, help="how many of them are busy; 1000")
    parser.add_argument("--churn", type=int, help="how many short connections; 1,000,000")
    parser.add_argument("--rounds", type=int, help="how many attacks; 6")
    parser.add_argument("--without", choices=LIMITS, help="attack a server without this limit")
    arguments = parser.parse_args()
    usual = {
        "seconds": 8 if arguments.smoke else 600,
        "connections": min(most, 2000) if arguments.smoke else most,
        "active": 200 if arguments.smoke else 1000,
        "churn": 10_000 if arguments.smoke else 1_000_000,
        "rounds": 2 if arguments.smoke else 6,
    }
    for name, value in usual.items():
        if getattr(arguments, name) is None:
            setattr(arguments, name, value)
    return arguments


def main():
    arguments = parse_arguments()
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # for the programs, too
    verdicts = Verdicts()
    window_seconds = 1 if arguments.smoke else 5
    calls = {
        "held": lambda: held.run(
            verdicts, arguments.seconds, arguments.connections, arguments.active
        ),
        "churn": lambda: churn.run(verdicts, arguments.churn),
        "attacks": lambda: attacks.run(
            verdicts, arguments.rounds, window_seconds, without=arguments.without
        ),
    }
    figures = {}
    for part in PARTS:
        if arguments.part is None or part in arguments.part:
            try:
                figures[part] = calls[part]()
            except (RuntimeError, OSError) as error:
                verdicts.check(part, "comes to its end", str(error), False)
    write_down(figures, verdicts)
    print("", *verdicts.table(), sep="\n")
    return 0 if verdicts.all_hold else 1


def write_down(figures, verdicts):
    RESULTS.mkdir(parents=True, exist_ok=True)
    now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H%M%SZ")
    machine = {"load": os.getloadavg(), "processors": os.cpu_count()}
    everything = {"at": now, "machine": machine, "verdicts": verdicts.rows, **figures}
    (RESULTS / f"{now}.json").write_text(json.dumps(everything, indent=1) + "\n")


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
