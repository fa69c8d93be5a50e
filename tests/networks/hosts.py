"""Two hosts and a bad network between them, all on this machine: three network namespaces.

    with Network() as network:
        with network.server:               # sockets made here are the server's
            listener = pycoronet.listen((SERVER, 0))
        network.set(delay=0.02, loss=0.05)
        with network.client:
            conn = pycoronet.connect(listener.getsockname())

A namespace is entered by the calling thread alone, and only the making of a socket asks where
that is: so both ends can be served by one hub. What is accepted belongs to its listener's host.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import threading
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

from relay import CLONE_NEWNET, LINES

CLIENT, SERVER, NOBODY = "10.77.0.1", "10.77.0.2", "10.77.0.9"
CLIENT6, SERVER6, NOBODY6 = "fd77::1", "fd77::2", "fd77::9"
STRANGER = "10.77.0.8"  # an address for which no host is found: no ARP entry, no answer
MACS = {
    CLIENT: "02:77:00:00:00:01",
    SERVER: "02:77:00:00:00:02",
    NOBODY: "02:77:00:00:00:09",
    CLIENT6: "02:77:00:00:00:01",
    SERVER6: "02:77:00:00:00:02",
    NOBODY6: "02:77:00:00:00:09",
}
RELAY_TIMEOUT = 30.0  # seconds for an answer of the relay: a failing test ends, too
SIOCETHTOOL = 0x8946
OFFLOADS = (0x17, 0x1F, 0x24, 0x2C)  # ETHTOOL_STXCSUM, STSO, SGSO, SGRO

# Small buffers, so that a transfer of some hundred kilobytes is in the middle for long, and
# times of the kernel that make a test wait for it as little as they can.
SETTINGS = {
    "ipv4/tcp_rmem": "4096 32768 65536",
    "ipv4/tcp_wmem": "4096 16384 65536",
    "ipv4/tcp_retries1": "1",
    "ipv4/tcp_syn_retries": "2",
    "ipv4/tcp_fin_timeout": "1",
    "ipv4/neigh/wire/retrans_time_ms": "50",
}

_libc = ctypes.CDLL(None, use_errno=True)


def _call(name: str, *arguments: int) -> None:
    if getattr(_libc, name)(*arguments) < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{name}: {os.strerror(error)}")


def _open_namespace() -> int:
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def why_not() -> str | None:
    """Return what this machine lacks for networks of our own, None if it has everything."""
    if not sys.platform.startswith("linux"):
        return "network namespaces: Linux alone has them"
    if shutil.which("ip") is None:
        return "the command ip (Debian's package iproute2)"
    failures: list[OSError] = []
    # In a thread of its own, for there may be no way back.
    thread = threading.Thread(target=_try_namespaces, args=[failures])
    thread.start()
    thread.join()
    if not failures:
        return None
    if isinstance(failures[0], PermissionError):
        return f"root's rights, or those that unshare --map-root-user --net gives ({failures[0]})"
    return f"namespaces, packet sockets or veth in this kernel ({failures[0]})"


def _try_namespaces(failures: list[OSError]) -> None:
    try:
        origin = _open_namespace()
        try:
            _call("unshare", CLONE_NEWNET)
            _ip("link add probe0 type veth peer name probe1")
            socket.socket(socket.AF_PACKET, socket.SOCK_RAW).close()
            _call("setns", origin, CLONE_NEWNET)
        finally:
            os.close(origin)
    except OSError as error:
        failures.append(error)


def _ip(*commands: str) -> None:
    """Have iproute2 do something in the namespace of this thread."""
    done = subprocess.run(
        ["ip", "-batch", "-"],
        input="\n".join(commands) + "\n",
        capture_output=True,
        text=True,
        timeout=RELAY_TIMEOUT,
    )
    if done.returncode != 0:
        raise OSError(f"ip: {done.stderr.strip()}")


class Host:
    """A network namespace with one interface; in a with statement this thread is there."""

    def __init__(self, address: str, address6: str, stack: ExitStack) -> None:
        self.address, self.address6 = address, address6
        self._before: list[int] = []
        origin = _open_namespace()
        try:
            _call("unshare", CLONE_NEWNET)
            try:
                self._fd = _open_namespace()
                stack.callback(os.close, self._fd)
            finally:
                _call("setns", origin, CLONE_NEWNET)
        finally:
            os.close(origin)

    def __enter__(self) -> Host:
        self._before.append(_open_namespace())
        _call("setns", self._fd, CLONE_NEWNET)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        origin = self._before.pop()
        _call("setns", origin, CLONE_NEWNET)
        os.close(origin)

    def set(self, name: str, value: str) -> None:
        """Set one of the kernel's switches below /proc/sys/net, for this host."""
        with self:
            Path("/proc/sys/net", name).write_text(value)

    def plug_in(self, relay: int, port: str) -> None:
        """Make the interface, whose other end is the relay process' port."""
        with self:
            _ip(
                f"link add wire address {MACS[self.address]} type veth "
                f"peer name {port} netns {relay}",
                f"address add {self.address}/24 dev wire",
                f"address add {self.address6}/64 dev wire nodad noprefixroute",
                "link set lo up",
                "link set wire up",
                # Nobody need be asked where a host is: the question would be lost as well.
                *(
                    f"neigh replace {address} lladdr {MACS[address]} dev wire nud permanent"
                    for address in MACS
                    if address not in (self.address, self.address6)
                ),
                "route replace 10.77.0.0/24 dev wire proto kernel scope link "
                f"src {self.address} rto_min 20ms",
                "route replace fd77::/64 dev wire proto kernel rto_min 20ms",
            )
            _switch_offloads_off("wire")
            for name, value in SETTINGS.items():
                Path("/proc/sys/net", name).write_text(value)


def _switch_offloads_off(interface: str) -> None:
    """Have the kernel finish checksums and cut segments itself: the relay is no network card."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for command in OFFLOADS:
            value = ctypes.create_string_buffer(struct.pack("II", command, 0))
            request = struct.pack("16sP16x", interface.encode(), ctypes.addressof(value))
            fcntl.ioctl(sock, SIOCETHTOOL, request)


class Network:
    """A client's host, a server's host and the relay between them; all end with the block."""

    def __init__(self, seed: object = 0) -> None:
        self._seed = str(seed)

    def __enter__(self) -> Network:
        with ExitStack() as stack:
            self._relay = self._start_relay(stack)
            self.client = Host(CLIENT, CLIENT6, stack)
            self.server = Host(SERVER, SERVER6, stack)
            self.client.plug_in(self._relay.pid, "client")
            self.server.plug_in(self._relay.pid, "server")
            self._order("begin")
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.close()

    def _start_relay(self, stack: ExitStack) -> subprocess.Popen[bytes]:
        ours, its = socket.socketpair()
        stack.enter_context(ours)
        ours.settimeout(RELAY_TIMEOUT)
        self._control = ours
        self._answers = stack.enter_context(ours.makefile("rb"))
        with its:
            program = Path(__file__).with_name("relay.py")
            command = [sys.executable, "-I", "-S", str(program), str(its.fileno()), self._seed]
            relay = subprocess.Popen(command, pass_fds=[its.fileno()])
        stack.callback(relay.wait)
        stack.callback(relay.kill)
        assert json.loads(self._answers.readline() or "null") == "ready"
        return relay

    # --- Orders -------------------------------------------------------------------------

    def _order(self, do: str, **details: Any) -> Any:
        self._control.sendall(json.dumps({"do": do, **details}).encode() + b"\n")
        return json.loads(self._answers.readline())

    def set(self, *lines: str, **settings: Any) -> None:
        """Change what the lines ("up", "down"; without a name both) do to frames; see relay.py."""
        self._order("set", lines=lines or LINES, settings=settings)

    def hole(
        self, *lines: str, after: int = 0, of: str | None = None, heal_after: float | None = None
    ) -> None:
        """Have frames vanish on the lines (without a name: on both).

        after: bytes of TCP streams that pass before that, on the line `of` or on both together.
        heal_after: seconds from then on after which all is well again.
        """
        self._break("hole", lines or LINES, after, of, heal_after)

    def cut(
        self, *, after: int = 0, of: str | None = None, heal_after: float | None = None
    ) -> None:
        """Have both hosts lose the carrier, as when somebody pulls the plug."""
        self._break("cut", LINES, after, of, heal_after)

    def _break(
        self,
        how: str,
        lines: tuple[str, ...],
        after: int,
        of: str | None,
        heal_after: float | None,
    ) -> None:
        streams = LINES if of is None else (of,)
        self._order(
            "break", how=how, lines=lines, streams=streams, after=after, heal_after=heal_after
        )

    def heal(self) -> None:
        """Mend a hole or a cut."""
        self._order("heal")

    def counts(self) -> Any:
        """Return what was done: "swallowed" is the frames of a hole, the rest counted by line.

        Of each line: frames, stream (bytes of it), lost, doubled, late.
        """
        return self._order("counts")

    def forget_neighbour(self, address: str) -> None:
        """Have the host that this thread is at ask for a host's address again, and in vain."""
        _ip(f"neigh del {address} dev wire")
