"""The base class for objects whose methods a connection's events call."""

from ._coronet import sk_conn

__all__ = ["Protocol"]


class Protocol:
    """What a connection with callbacks calls; override what you need.

    One object may serve any number of connections, for each method is told which one it is.
    The methods run in the hub, one at a time and never in a coroutine: what would have to
    wait raises RuntimeError there. `conn.take()` and `conn.take_line()` give what has come,
    `conn.write()` collects what is then sent in one go, `spawn()` starts a task for the rest.

    What a method raises is reported through sys.unraisablehook, told to `on_error()`, and
    the connection is closed; LineTooLongError, which is the peer's doing, is not reported.
    However a connection ends, `on_close()` is called once.

    Source: libevent's bufferevent_setcb; libreact's on_data, on_ready, on_shutdown and on_close.
    """

    __slots__ = ()

    def on_open(self, conn: sk_conn) -> None:
        """Begin: a listener with these callbacks has accepted conn, or connect() is done.

        Must not switch.
        """

    def on_data(self, conn: sk_conn) -> None:
        """Take what has come for conn; what is left stays for the next time.

        `conn.set_watermarks()` says from how many bytes on it is called, and when nothing more
        is received: at first while 64 KiB are left, or as much waits to be sent. Must not switch.
        """

    def on_ready(self, conn: sk_conn) -> None:
        """Go on writing to conn: what could not be sent at once has been sent. Must not switch."""

    def on_eof(self, conn: sk_conn) -> None:
        """Note that the peer sends no more. Unless overridden, this closes conn.

        What was left of the last data, or is less than on_data() waits for, can be taken. Must not
        switch.
        """
        conn.close()

    def on_error(self, conn: sk_conn, error: Exception, direction: int) -> None:
        """Note that the connection failed, or a callback did; it is closed after this.

        conn: of which `conn.error` is the errno. error: the exception. direction: READ or WRITE (a
        connect() too), whichever failed; 0 if it was a callback or a transport layer. Must not
        switch.
        """

    def on_timeout(self, conn: sk_conn, direction: int) -> None:
        """Note that nothing has moved for too long.

        conn: it stays open. direction: READ or WRITE, by the time of `conn.set_timeouts()`; READ |
        WRITE when nothing has come nor gone for as long as `conn.settimeout()` said. It is called
        again when as long a time has passed once more. Must not switch.
        """

    def on_shutdown(self, conn: sk_conn) -> None:
        """Say goodbye: the hub is about to stop, and closes conn after this. Must not switch."""

    def on_close(self, conn: sk_conn) -> None:
        """Let go of conn: its descriptor is closed. Must not switch."""
