"""What a run is asked to do: its command line, and whom it measures."""

import argparse
import dataclasses
import math
import sys

from progress import Progress

OURS = "pycoronet"
# What can be measured beside it, by the names that --peers takes.
PEERS = {
    "c": "the simplest correct loops, in bare C",
    "gevent": "",
    "eventlet": "",
    "asyncio": "",
    "uvloop": "",
    "trio": "",
    "threads": "socketserver of the standard library, with a thread for each client",
    "libevent": "in C, beside the layers below Python",
    "libev": "in C",
    "libuv": "in C",
}
FAMILIES = {
    "bare": "c",
    "cnhttpd.py": OURS,
    "Server": OURS,
    "ThreadingTCPServer": "threads",
}


def find_family(name):
    """Return the library that a contestant belongs to: "uvloop" for "uvloop streams, 1"."""
    first = name.replace(",", " ").split()[0]
    return FAMILIES.get(first, first)


@dataclasses.dataclass
class Settings:
    """One run: how long, with whom, and who is told how far it is."""

    rounds: int = 9
    seconds: float = 0.5
    families: frozenset = frozenset({OURS, *PEERS})
    progress: Progress = dataclasses.field(default_factory=Progress)

    @property
    def peers_only(self):
        return OURS not in self.families

    def choose(self, names):
        """Return those of `names` that are to be measured, in their order."""
        return [name for name in names if find_family(name) in self.families]


def split_names(kind, known, default):
    """Return a converter from names with commas to a list, for argparse."""

    def convert(text):
        names = [name.strip() for name in text.split(",") if name.strip()]
        if unknown := [name for name in names if name not in known]:
            raise argparse.ArgumentTypeError(
                f"no such {kind}: {', '.join(unknown)} (there are {', '.join(known)})"
            )
        return [name for name in known if name in names] if names else default

    return convert


def add_settings(parser, rounds, seconds):
    """Add what every benchmark program takes; read_settings() reads it back."""
    parser.add_argument(
        "--rounds", type=int, default=rounds, help="rounds that count (%(default)s)"
    )
    parser.add_argument(
        "--seconds", type=float, default=seconds, help="length of a round (%(default)s)"
    )
    parser.add_argument(
        "--peers",
        type=split_names("peer", list(PEERS), []),
        default=list(PEERS),
        metavar="NAMES",
        help="whom to measure beside it, with commas: %(default)s; '' for nobody".replace(
            "%(default)s", ", ".join(PEERS)
        ),
    )
    parser.add_argument("--peers-only", action="store_true", help="leave pycoronet out")
    parser.add_argument("--python", default=sys.executable, help="the interpreter to measure")


def read_settings(parser, arguments):
    """Return the Settings that a command line asks for; end the program if they make no sense."""
    if arguments.rounds < 1 or not 0 < arguments.seconds < math.inf:
        parser.error("--rounds has to be at least 1, and --seconds more than 0 and finite")
    ours = set() if arguments.peers_only else {OURS}
    families = frozenset(ours | set(arguments.peers))
    if not families:
        parser.error("--peers-only, and no peers: that leaves nobody")
    return Settings(arguments.rounds, arguments.seconds, families)
