"""Accepting for as long as a listener lives: what `serve()` and `Server` have in common."""

import errno
from collections.abc import Callable
from typing import Any, TypeAlias

from ._coronet import sk_conn, sleep, wait_readable
from .errors import ClosedError

__all__ = ["AcceptErrorFunction", "accept_all"]

AcceptErrorFunction: TypeAlias = Callable[[sk_conn, Exception], object]

# accept() fails with these while the system is short of something; the connections stay
# queued, and after a pause there may be room again.
_SHORTAGES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
SHORTAGE_PAUSE = 0.1


def accept_all(
    listener: sk_conn,
    begin: Callable[[sk_conn, Any], object],
    on_accept_error: AcceptErrorFunction | None = None,
) -> None:
    """Give each connection that comes to begin(conn, address), until the listener is closed.

    on_accept_error: told what accepting failed with; see `serve()`. After a shortage it is
    tried again in a while, any other error of accept() is raised. Switches.
    """
    must_look = False
    while True:
        try:
            if must_look:
                wait_readable(listener)
            conn, peer = listener.accept()
        except ClosedError:
            return
        except (OSError, MemoryError) as error:
            if on_accept_error is not None:
                on_accept_error(listener, error)
            if not listener.closed:
                if isinstance(error, OSError):
                    if error.errno not in _SHORTAGES:
                        raise
                    must_look = True  # the system tells of it first, though nobody may wait
                sleep(SHORTAGE_PAUSE)
            if listener.closed:
                return
        else:
            must_look = False
            begin(conn, peer)
            del conn  # or it would be kept alive until the next one comes
