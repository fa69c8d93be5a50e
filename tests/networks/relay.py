"""The bad network: a process that carries Ethernet frames between two interfaces.

    relay.py CONTROL_FD SEED

It makes a network namespace of its own and says so. Two interfaces, "client" and "server", are
put there from outside; then it is told to begin. Each direction, a *line*, can be slow, late,
lossy, in disorder, double; and the way between can break: by a *hole*, in which frames vanish,
or a *cut*, where both hosts lose the carrier as by a pulled plug. All chance comes from SEED.

Orders and answers are lines of JSON on the control socket. When that ends, so does the relay.
"""

from __future__ import annotations

import ctypes
import fcntl
import heapq
import json
import math
import random
import select
import signal
import socket
import struct
import sys
import time
from contextlib import suppress
from typing import Any

CLONE_NEWNET = 0x40000000
PR_SET_PDEATHSIG = 1
ETH_P_ALL = 3
ETHERNET_HEADER = 14
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 1
RECEIVE_BUFFER = 8 << 20
FRAMES_AT_ONCE = 64  # of one interface, so that the other's and the clock are looked at
TCP_FLAGS = {"FIN": 1, "SYN": 2, "RST": 4}

# The names of the ways: from the client to the server, and back.
LINES = ("up", "down")


def set_up(name: str, is_up: bool) -> None:
    """Have an interface carry frames, or have it and its other end lose the carrier."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        request = struct.pack("16sh22x", name.encode(), 0)
        (flags,) = struct.unpack("16xh22x", fcntl.ioctl(sock, SIOCGIFFLAGS, request))
        flags = flags | IFF_UP if is_up else flags & ~IFF_UP
        fcntl.ioctl(sock, SIOCSIFFLAGS, struct.pack("16sh22x", name.encode(), flags))


def find_tcp(frame: bytes) -> tuple[int, int]:
    """Return the flags and how many bytes of the stream a frame has; (0, 0): no TCP."""
    kind = int.from_bytes(frame[12:14], "big")
    at = ETHERNET_HEADER
    if kind == 0x0800 and frame[at + 9] == socket.IPPROTO_TCP:
        end = at + int.from_bytes(frame[at + 2 : at + 4], "big")
        at += (frame[at] & 15) * 4
    elif kind == 0x86DD and frame[at + 6] == socket.IPPROTO_TCP:
        end = at + 40 + int.from_bytes(frame[at + 4 : at + 6], "big")
        at += 40
    else:
        return 0, 0
    return frame[at + 13], end - at - (frame[at + 12] >> 4) * 4


class Line:
    """One direction: what it does to frames, and what it has done."""

    def __init__(self, seed: str) -> None:
        self._chance = random.Random(seed)
        self._free_at = 0.0  # when a line with a rate is ready for the next frame
        self.counts = dict.fromkeys(("frames", "stream", "lost", "doubled", "late"), 0)
        self.settings: dict[str, Any] = {
            "delay": 0.0,  # seconds
            "jitter": 0.0,  # up to so many seconds more, so that frames overtake others
            "loss": 0.0,  # shares of one
            "duplicate": 0.0,
            "rate": 0.0,  # bytes a second; 0: no limit
            "queue": 0.05,  # seconds that a frame may have to wait for the rate; else it is lost
            "largest": 1 << 16,  # bytes; larger packets vanish, and nobody is told
            "lose": {},  # TCP flag: how many segments with it are lost
        }

    def _is_lost(self, frame: bytes, flags: int) -> bool:
        settings = self.settings
        if len(frame) - ETHERNET_HEADER > settings["largest"]:
            return True
        for name, left in settings["lose"].items():
            if left > 0 and flags & TCP_FLAGS[name]:
                settings["lose"][name] = left - 1
                return True
        return self._chance.random() < settings["loss"]

    def pass_on(self, frame: bytes, now: float) -> list[float]:
        """Return when a frame is to arrive: not at all, once or twice."""
        settings = self.settings
        flags, length = find_tcp(frame)
        self.counts["frames"] += 1
        begin = max(now, self._free_at)
        if self._is_lost(frame, flags) or (settings["rate"] and begin - now > settings["queue"]):
            self.counts["lost"] += 1
            return []
        self.counts["stream"] += length
        if settings["rate"]:
            self._free_at = begin = begin + len(frame) / settings["rate"]
        times = [begin + settings["delay"] + self._chance.random() * settings["jitter"]]
        if self._chance.random() < settings["duplicate"]:
            self.counts["doubled"] += 1
            times.append(times[0] + self._chance.random() * settings["jitter"])
        return times


class Break:
    """A hole or a cut that is to come, or has come."""

    def __init__(self, order: dict[str, Any]) -> None:
        self.is_cut: bool = order["how"] == "cut"
        self.lines: list[str] = order["lines"]  # where frames vanish
        self.streams: list[str] = order["streams"]  # whose bytes are counted
        self.left: int = order["after"]  # bytes that still pass
        self.heal_after: float | None = order["heal_after"]
        self.heal_at = math.inf
        self.swallowed = 0
        self.is_open = False


class Relay:
    """The two interfaces, the frames that are under way, and the orders."""

    def __init__(self, control: socket.socket, seed: str) -> None:
        self._control = control
        self._orders = b""
        self._ports: dict[str, socket.socket] = {}  # by the line that begins there
        self._lines = {name: Line(f"{seed} {name}") for name in LINES}
        self._flying: list[tuple[float, int, str, bytes]] = []  # a heap
        self._count = 0
        self._last_due = dict.fromkeys(LINES, 0.0)
        self._break: Break | None = None

    def begin(self) -> None:
        """Take the interfaces into use."""
        for line, name in zip(LINES, ("client", "server"), strict=True):
            port = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
            with suppress(PermissionError):  # in a user namespace it is as the system says
                port.setsockopt(socket.SOL_SOCKET, 33, RECEIVE_BUFFER)  # SO_RCVBUFFORCE
            port.setblocking(False)
            port.bind((name, 0))
            set_up(name, True)
            self._ports[line] = port

    def run(self) -> None:
        """Carry frames until nobody has orders any more."""
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        while True:
            if len(self._ports) == 2:
                for port in self._ports.values():
                    poll.register(port, select.POLLIN)
            ready = {fd for fd, _ in poll.poll(self._seconds_to_wait() * 1000)}
            for line, port in self._ports.items():
                self._receive(line, port)  # before orders, which are about what comes later
            if self._control.fileno() in ready and not self._take_orders():
                return
            self._heal_if_due()
            self._deliver()

    def _seconds_to_wait(self) -> float:
        due = self._flying[0][0] if self._flying else math.inf
        if self._break is not None:
            due = min(due, self._break.heal_at)
        return min(max(0.0, due - time.monotonic()), 60.0)

    # --- Frames -------------------------------------------------------------------------

    def _receive(self, line: str, port: socket.socket) -> None:
        for _ in range(FRAMES_AT_ONCE):
            try:
                frame, (_, _, kind, *_) = port.recvfrom(1 << 17)
            except BlockingIOError:
                return
            except OSError:
                return  # ENETDOWN, told once: the cable is cut
            # What is for everybody is not carried: no host has to be asked for.
            if kind != socket.PACKET_OUTGOING and not frame[0] & 1:
                self._carry(line, frame)

    def _carry(self, line: str, frame: bytes) -> None:
        now = time.monotonic()
        if self._is_swallowed(line, frame):
            return
        for due in self._lines[line].pass_on(frame, now):
            if due < self._last_due[line]:
                self._lines[line].counts["late"] += 1
            self._last_due[line] = max(due, self._last_due[line])
            self._count += 1
            heapq.heappush(self._flying, (due, self._count, line, frame))

    def _deliver(self) -> None:
        now = time.monotonic()
        while self._flying and self._flying[0][0] <= now:
            _, _, line, frame = heapq.heappop(self._flying)
            other = self._ports["down" if line == "up" else "up"]
            try:
                other.send(frame)
            except OSError:
                self._lines[line].counts["lost"] += 1  # no room, or the cable is cut

    # --- Breaks -------------------------------------------------------------------------

    def _is_swallowed(self, line: str, frame: bytes) -> bool:
        it = self._break
        if it is None:
            return False
        if not it.is_open:
            if line in it.streams:
                it.left -= find_tcp(frame)[1]
            if it.left > 0:
                return False
            self._open(it)
        if it.is_cut or line in it.lines:
            it.swallowed += 1
            return True
        return False

    def _open(self, it: Break) -> None:
        it.is_open = True
        if it.heal_after is not None:
            it.heal_at = time.monotonic() + it.heal_after
        if it.is_cut:
            self._flying.clear()
            for name in ("client", "server"):
                set_up(name, False)

    def _heal_if_due(self) -> None:
        if self._break is not None and self._break.heal_at <= time.monotonic():
            self._heal()

    def _heal(self) -> None:
        it = self._break
        if it is not None:
            it.heal_at = math.inf
            it.lines = []
            if it.is_cut and it.is_open:
                for name in ("client", "server"):
                    set_up(name, True)
            it.is_cut = False

    # --- Orders -------------------------------------------------------------------------

    def _take_orders(self) -> bool:
        piece = self._control.recv(65536)
        self._orders += piece
        *lines, self._orders = self._orders.split(b"\n")
        for line in lines:
            self._control.sendall(json.dumps(self._obey(json.loads(line))).encode() + b"\n")
        return piece != b""

    def _obey(self, order: dict[str, Any]) -> object:
        if order["do"] == "begin":
            self.begin()
        elif order["do"] == "set":
            for name in order["lines"]:
                self._lines[name].settings.update(order["settings"])
        elif order["do"] == "break":
            self._break = Break(order)
            if self._break.left <= 0:
                self._open(self._break)
        elif order["do"] == "heal":
            self._heal()
        counts: dict[str, Any] = {name: line.counts for name, line in self._lines.items()}
        return {**counts, "swallowed": 0 if self._break is None else self._break.swallowed}


def main() -> None:
    """Run as a program."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the tests say when it is over
    if libc.unshare(CLONE_NEWNET) < 0:
        sys.exit(f"unshare: errno {ctypes.get_errno()}")
    # The interfaces are to say nothing of their own.
    with suppress(OSError), open("/proc/sys/net/ipv6/conf/default/disable_ipv6", "w") as file:  # noqa: PTH123
        file.write("1")
    control = socket.socket(fileno=int(sys.argv[1]))
    control.sendall(b'"ready"\n')
    Relay(control, sys.argv[2]).run()


if __name__ == "__main__":
    main()
