"""TLS as a transport layer, over the memory BIOs of Python's own ssl module.

    tls = conn.start_tls(context, server_hostname="example.org")
    conn.write(b"now in private")

or from the beginning, `connect(address, tls=True)` and `serve(address, handler, tls=context)`.
Contexts are those of the ssl module, and so are the exceptions. `conn.tls` is the layer.
"""

import functools
import logging
import ssl
from collections.abc import Callable
from typing import Any

from ._coronet import TransportLayer, sk_conn
from ._coronet import timeout as time_limit

__all__ = ["TLSLayer", "default_context", "start_tls"]

# More than a record holds, which is what one read gives at most.
READ_SIZE = 16 * 1024

# What may wait for the peer to get on with a handshake.
MAX_HELD = 1024 * 1024

# Which handshakes failed, for whoever wants to see it; at INFO.
logger: logging.Logger = logging.getLogger("pycoronet.tls")


class TLSLayer(TransportLayer):
    """One end of TLS: `conn.start_tls()` makes one, pushes it and waits until it is ready.

    context: an ssl.SSLContext. server_side: this end is the server. server_hostname: whom a client
    wants to talk to, which the peer's certificate has to name if the context says so (the
    default), and which is sent to it (SNI). session: of an earlier connection's `session`, to be
    resumed.

    What is written before the handshake is done is held back till then. The peer's orderly
    end is the end of file; an end without it raises ssl.SSLEOFError, for somebody may have
    cut the stream short.

    Source: libevent's bufferevent_openssl_filter_new.
    """

    @property
    def _is_tls(self) -> bool:
        return True  # conn.tls looks for it

    @property
    def _takes_views(self) -> bool:
        return True  # what is written need not be copied for wrap()

    def __init__(
        self,
        context: ssl.SSLContext,
        *,
        server_side: bool = False,
        server_hostname: str | None = None,
        session: ssl.SSLSession | None = None,
    ) -> None:
        if context.check_hostname and not server_side and not server_hostname:
            # The ssl module only looks at it for sockets, and would check no name here.
            raise ValueError("this context checks the peer's name: server_hostname is needed")
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self.ssl_object: ssl.SSLObject = context.wrap_bio(
            self._incoming,
            self._outgoing,
            server_side=server_side,
            server_hostname=server_hostname,
            session=session,
        )
        self.is_ready: bool = False  # the handshake is done
        self.handshake_bytes_sent = 0  # by then, with what was waiting to be sent
        self._held: list[bytes | memoryview] = []
        self.leftover: bytes = b""  # what came behind the peer's end of TLS

    # What was agreed upon, by the names of ssl.SSLObject.

    @property
    def session(self) -> ssl.SSLSession | None:
        """The session, to be resumed by another connection; with TLS 1.3 once data came."""
        return self.ssl_object.session

    @property
    def session_reused(self) -> bool:
        """True if an earlier session was resumed."""
        return bool(self.ssl_object.session_reused)

    def version(self) -> str | None:
        """Return the protocol's version, such as "TLSv1.3"; None before the handshake.

        Never switches.
        """
        return self.ssl_object.version()

    def cipher(self) -> tuple[str, str, int] | None:
        """Return the cipher's name, its protocol and its bits. Never switches."""
        return self.ssl_object.cipher()

    def selected_alpn_protocol(self) -> str | None:
        """Return what ALPN has agreed on; None if nothing. Never switches."""
        return self.ssl_object.selected_alpn_protocol()

    def getpeercert(self, binary_form: bool = False) -> Any:
        """Return the peer's certificate as SSLObject.getpeercert() does. Never switches."""
        return self.ssl_object.getpeercert(binary_form)

    # The layer's work. An alert or any other answer that OpenSSL has left in _outgoing
    # goes out whatever becomes of the call, also if it raises.

    def started(self) -> None:
        """Begin the handshake. Never switches."""
        self._shake_hands()

    def _shake_hands(self) -> None:
        try:
            self.ssl_object.do_handshake()
        except ssl.SSLWantReadError:
            return
        finally:
            self.emit(self._outgoing.read())
        self.is_ready = True
        self._write_held()

    def unwrap(self, data: bytes, /) -> bytes:
        """Decrypt data, all records that are whole now; as TransportLayer.unwrap().

        Never switches.
        """
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()
        if not self.is_ready:
            self._shake_hands()
            if not self.is_ready:
                return b""
        try:
            plain = self._read()
        finally:
            if self._outgoing.pending:
                self.emit(self._outgoing.read())
        if self._held:
            self._write_held()  # not reached: a peer that begins another handshake
        return plain

    def _read(self) -> bytes:
        read, incoming = self.ssl_object.read, self._incoming
        pieces: list[bytes] = []
        try:
            # A call that would find nothing raises, which costs more than looking first.
            while piece := read(READ_SIZE):
                if not incoming.pending and not self.ssl_object.pending():
                    if not pieces:
                        return piece
                    pieces.append(piece)
                    break
                pieces.append(piece)
            else:
                self._take_end()
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self._take_end()  # so it is called once our own end has been sent
        return b"".join(pieces)

    def _take_end(self) -> None:
        self.leftover = self._incoming.read()
        self.end()

    def wrap(self, data: bytes | memoryview, /) -> bytes:
        """Encrypt data; as TransportLayer.wrap(). Never switches."""
        if not self.is_ready or self._held:
            self._hold(data)
        else:
            self._write(data)
        return self._outgoing.read()

    def _write(self, data: bytes | memoryview) -> None:
        try:
            written = self.ssl_object.write(data)
            while written < len(data):
                data = data[written:]  # not reached: OpenSSL takes all at once
                written = self.ssl_object.write(data)
        except ssl.SSLWantReadError:
            # The peer has begun another handshake, and has to go on with that first.
            self._hold(data)

    def _hold(self, data: bytes | memoryview) -> None:
        self._held.append(data)
        if sum(map(len, self._held)) > MAX_HELD:
            raise ssl.SSLError("too much was written before the peer went on with its handshake")

    def _write_held(self) -> None:
        held, self._held = self._held, []
        if held:
            self._write(b"".join(held))
            self.emit(self._outgoing.read())

    def finish(self) -> bytes:
        """Say that no more will come; not that we have seen the peer's end. Never switches."""
        if self._held:
            raise ssl.SSLError("the handshake was not done: what was written is lost")
        if self.is_ready:
            try:
                self.ssl_object.unwrap()
            except ssl.SSLError:
                pass  # that of a peer who has not ended yet, or of a broken stream
        return self._outgoing.read()


@functools.cache
def default_context() -> ssl.SSLContext:
    """Return the context of `tls=True`: a client's, which verifies by the system's CAs.

    Never switches.

    Source: pycoronet's own.
    """
    return ssl.create_default_context()


def start_tls(
    conn: sk_conn,
    context: ssl.SSLContext | None = None,
    *,
    server_side: bool = False,
    server_hostname: str | None = None,
    session: ssl.SSLSession | None = None,
    timeout: float | None = None,
) -> TLSLayer:
    """Encrypt conn from here on: as `conn.start_tls()` with the same arguments. Switches.

    Source: pycoronet's own.
    """
    if context is None:
        if server_side:
            raise TypeError("a TLS server needs a context, with its certificate")
        context = default_context()
    layer = TLSLayer(
        context, server_side=server_side, server_hostname=server_hostname, session=session
    )
    conn.push_layer(layer)
    try:
        with time_limit(timeout):
            while not layer.is_ready:
                conn._receive_layered()
        layer.handshake_bytes_sent = conn.bytes_sent + conn.pending
    except BaseException:
        # A failed handshake has closed it, and our alert may be on its way still.
        if not conn.closed:
            conn.abort()
        raise
    return layer


def shake_hands(
    conn: sk_conn, address: Any, context: ssl.SSLContext, timeout: float | None
) -> OSError | None:
    """Do a server's handshake; return what it failed with, or None. The logger is told."""
    try:
        start_tls(conn, context, server_side=True, timeout=timeout)
    except OSError as error:  # SSLError and TimeoutError are such
        logger.info("TLS handshake with %s failed: %s", address, error)
        return error
    return None


def shake_hands_first(
    handler: Callable[[sk_conn, Any], object], context: ssl.SSLContext, timeout: float | None
) -> Callable[[sk_conn, Any], object]:
    """Return what serve() runs for each client of a TLS port: the handshake, then the handler."""

    @functools.wraps(handler)
    def handle(conn: sk_conn, address: Any) -> object:
        if shake_hands(conn, address, context, timeout) is None:
            return handler(conn, address)
        return None

    return handle
