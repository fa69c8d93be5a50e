"""rot13: what the five servers of this folder share: what a line is, and how it is answered.

A line ends with a newline (LF), may be empty and may hold any bytes; ROT13 moves its letters of
ASCII by 13 places and leaves the rest. The answer goes out as soon as the line is whole. With
its newline a line has at most MAX_LINE bytes: of a longer one each MAX_LINE bytes are answered
as soon as they are there, with a newline added. The last line may lack its newline, and then
its answer does, too.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import socket

    from pycoronet import sk_conn  # two of the five do without

    Listener = TypeVar("Listener", bound=socket.socket | sk_conn)

HOST, PORT = "127.0.0.1", 40713
MAX_LINE = 16384

_SMALL, _CAPITAL = b"abcdefghijklmnopqrstuvwxyz", b"ABCDEFGHIJKLMNOPQRSTUVWXYZ"
ROT13 = bytes.maketrans(
    _SMALL + _CAPITAL, _SMALL[13:] + _SMALL[:13] + _CAPITAL[13:] + _CAPITAL[:13]
)


def answer(line: bytes) -> bytes:
    """Return the answer to a line, or to MAX_LINE bytes of a longer one."""
    is_piece = len(line) == MAX_LINE and not line.endswith(b"\n")
    return line.translate(ROT13) + b"\n" if is_piece else line.translate(ROT13)


class Lines:
    """The begun line of one client, for servers that receive blocks."""

    __slots__ = ("_begun",)

    def __init__(self) -> None:
        self._begun = bytearray()

    @property
    def room(self) -> int:
        """How many bytes answer() takes at most; never 0."""
        return MAX_LINE - len(self._begun)

    def answer(self, block: bytes) -> bytes:
        """Return the answers to the lines that are whole now; b"" is the end of the stream."""
        looked_at = len(self._begun)
        self._begun += block
        end = self._begun.rfind(b"\n", looked_at) + 1
        if not block or (end == 0 and len(self._begun) == MAX_LINE):
            end = len(self._begun)
        whole = bytes(self._begun[:end])
        del self._begun[:end]
        return answer(whole)


def main(listen: Callable[[tuple[str, int]], Listener], serve: Callable[[Listener], None]) -> None:
    """Listen where the command line says, and serve until Ctrl-C."""
    name = Path(sys.argv[0]).stem
    parser = argparse.ArgumentParser(description="Answers each line with its ROT13.")
    parser.add_argument(
        "port", nargs="?", type=int, default=PORT, help=f"{PORT} if not given; 0 takes a free one"
    )
    options = parser.parse_args()
    try:
        listener = listen((HOST, options.port))
    except (OSError, OverflowError, ValueError) as error:
        sys.exit(f"{name}: {error}")
    with closing(listener):
        host, port = listener.getsockname()
        print(f"{name}: {host}:{port}", flush=True)
        with suppress(KeyboardInterrupt):
            serve(listener)
