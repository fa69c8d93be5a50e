"""The other end of a TLS connection, moved on by hand: so tests decide what comes together."""

from __future__ import annotations

import socket
import ssl

from recorders import turn


class TlsPeer:
    """Speaks TLS over a plain socket, letting the hub run between what it sends and reads."""

    def __init__(
        self, sock: socket.socket, context: ssl.SSLContext, *, server_side: bool = False
    ) -> None:
        self.sock = sock
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        name = None if server_side else "localhost"
        self.tls = context.wrap_bio(
            self.incoming, self.outgoing, server_side=server_side, server_hostname=name
        )

    def hello(self) -> bytes:
        """Begin the handshake; return what is to be sent first."""
        try:
            self.tls.do_handshake()
        except ssl.SSLWantReadError:
            pass
        return self.outgoing.read()

    def shake_hands(self, first: bytes | None = None, *, piece: int = 1 << 20) -> None:
        """Send what hello() gave, unless that has been done, and go on until all is agreed."""
        waiting = self.hello() if first is None else first
        while True:
            for at in range(0, len(waiting), piece):
                self.sock.sendall(waiting[at : at + piece])
                turn(1)
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                waiting = self.outgoing.read()
                if not waiting:
                    self.take_in()
                continue
            self.send(self.outgoing.read())
            return

    def take_in(self) -> None:
        """Receive what is there now."""
        turn(1)
        timeout = self.sock.gettimeout()
        self.sock.settimeout(0)
        try:
            data = self.sock.recv(1 << 20)
        except BlockingIOError:
            return
        finally:
            self.sock.settimeout(timeout)
        if data:
            self.incoming.write(data)
        else:
            self.incoming.write_eof()

    def send(self, data: bytes) -> None:
        """Send bytes that are encrypted already."""
        self.sock.sendall(data)
        turn()

    def encrypted(self, *pieces: bytes) -> bytes:
        """Return each piece in a record of its own."""
        for piece in pieces:
            self.tls.write(piece)
        return self.outgoing.read()

    def end(self) -> bytes:
        """Return the orderly end of our direction."""
        try:
            self.tls.unwrap()
        except ssl.SSLError:
            pass  # the other direction goes on
        return self.outgoing.read()

    def read(self, length: int) -> bytes:
        """Return that many bytes, fewer only at the orderly end; another raises SSLEOFError."""
        received = b""
        while len(received) < length:
            try:
                piece = self.tls.read(length - len(received))
            except ssl.SSLWantReadError:
                self.take_in()
            except ssl.SSLZeroReturnError:
                break
            else:
                if not piece:
                    break
                received += piece
        return received
