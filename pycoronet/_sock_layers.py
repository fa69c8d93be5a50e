"""The transport layers of pycoronet.libsock: functions that get the descriptor, as in C."""

from collections.abc import Callable
from typing import Any

from ._coronet import TransportLayer
from ._descriptors import Entry, find, find_open

__all__ = [
    "SockRWHook",
    "SockTLC",
    "sock_rw_hook_get",
    "sock_rw_hook_set",
    "sock_tlc_add",
    "sock_tlc_get",
    "sock_tlc_set",
]

Transform = Callable[[int, Any, bytes], "bytes | None"]


class SockTLC(TransportLayer):
    """`struct sockTLC`: one layer of a chain, for one socket, once.

    wrap, unwrap: called as function(fd, udata, data), they return what goes on instead of the
    data; unwrap gets b"" at the end of the stream, and returns None to end it. on_clear: called
    as on_clear(fd, udata), once, when the socket lets go of the layer. None passes all on.
    """

    def __init__(
        self,
        *,
        udata: Any = None,
        wrap: Transform | None = None,
        unwrap: Transform | None = None,
        on_clear: Callable[[int, Any], object] | None = None,
    ) -> None:
        self.udata = udata
        self.fd: int = -1  # once it is on a socket, that one's number
        self._wrap = wrap
        self._unwrap = unwrap
        self._on_clear = on_clear

    @property
    def next(self) -> "SockTLC | None":
        """The layer below; None at the bottom, and when the socket has let go of this one."""
        chain = _chain(find(self.fd)) if self.fd >= 0 else []
        place = chain.index(self) + 1 if self in chain else len(chain)
        return chain[place] if place < len(chain) else None

    def wrap(self, data: bytes, /) -> bytes:
        """Return what is sent instead of data; as TransportLayer.wrap(). Never switches."""
        return data if self._wrap is None else self._wrap(self.fd, self.udata, data) or b""

    def unwrap(self, data: bytes, /) -> bytes | None:
        """Return what is read instead of data; as TransportLayer.unwrap(). Never switches."""
        return data if self._unwrap is None else self._unwrap(self.fd, self.udata, data)

    def on_clear(self) -> None:
        """Tell the function. Never switches."""
        fd, self.fd = self.fd, -1
        if self._on_clear is not None:
            self._on_clear(fd, self.udata)


class SockRWHook(TransportLayer):
    """`sock_rw_hook_s`: what stands between a socket and its descriptor, for one socket, once.

    Other than in C the functions do not read and write the descriptor themselves. read: called
    as read(uuid, data) with what was received, write: as write(uuid, data) with what is to be
    sent; they return what takes its place. flush: as flush(uuid) before the socket closes, it
    returns what write() has held back. on_clear: as on_clear(uuid), once.
    """

    def __init__(
        self,
        *,
        read: Callable[[int, bytes], bytes | None] | None = None,
        write: Callable[[int, bytes], bytes] | None = None,
        flush: Callable[[int], bytes] | None = None,
        on_clear: Callable[[int], object] | None = None,
    ) -> None:
        self.uuid: int = -1
        self._read = read
        self._write = write
        self._flush = flush
        self._on_clear = on_clear

    def wrap(self, data: bytes, /) -> bytes:
        """Return what is sent instead of data; as TransportLayer.wrap(). Never switches."""
        return data if self._write is None else self._write(self.uuid, data)

    def unwrap(self, data: bytes, /) -> bytes | None:
        """Return what is read instead of data; as TransportLayer.unwrap(). Never switches."""
        return data if self._read is None else self._read(self.uuid, data)

    def finish(self) -> bytes:
        """Return what was held back. Never switches."""
        return b"" if self._flush is None else self._flush(self.uuid)

    def on_clear(self) -> None:
        """Tell the function. Never switches."""
        uuid, self.uuid = self.uuid, -1
        if self._on_clear is not None:
            self._on_clear(uuid)


def sock_tlc_get(fd: int) -> SockTLC | None:
    """`sock_tlc_get`: return the top of the socket's chain, or None. Raises ClosedError.

    Never switches.
    """
    chain = _chain(find_open(fd))
    return chain[0] if chain else None


def sock_tlc_set(fd: int, tlc: SockTLC | None) -> int:
    """`sock_tlc_set`: put one layer in place of the whole chain, None for none; return 0.

    What was written before still goes through the old ones, whose on_clear() follows. Raises
    as sock_tlc_add(); ValueError if other layers lie on top. Never switches.
    """
    entry = find_open(fd)
    if tlc is not None:
        _check(tlc, SockTLC)
    layers = entry.conn.layers
    count = len(_chain(entry))
    if not all(isinstance(layer, SockTLC) for layer in layers[:count]):
        raise ValueError("the chain lies below layers that are not its own")
    for _ in range(count):
        entry.conn.pop_layer()
    return 0 if tlc is None else sock_tlc_add(fd, tlc)


def sock_tlc_add(fd: int, tlc: SockTLC) -> int:
    """`sock_tlc_add`: put a layer, tlc, on top of the chain; return 0.

    Raises ClosedError, TypeError, ValueError for one that was on a socket before, BusyError while
    a task reads or writes. Never switches.
    """
    entry = find_open(fd)
    _check(tlc, SockTLC)
    before, tlc.fd = tlc.fd, entry.number
    try:
        entry.conn.push_layer(tlc)
    except BaseException:
        tlc.fd = before
        raise
    return 0


def sock_rw_hook_get(fd: int) -> SockRWHook | None:
    """`sock_rw_hook_get`: return the socket's hook, or None. Raises ClosedError.

    Never switches.
    """
    layers = find_open(fd).conn.layers
    return layers[-1] if layers and isinstance(layers[-1], SockRWHook) else None


def sock_rw_hook_set(fd: int, hook: SockRWHook | None) -> int:
    """`sock_rw_hook_set`: set the socket's hook in place of another, None for none; return 0.

    It lies below all layers, so it is set first: ValueError if there are some. Otherwise raises
    as sock_tlc_add(). Never switches.
    """
    entry = find_open(fd)
    if hook is not None:
        _check(hook, SockRWHook)
    old = sock_rw_hook_get(fd)
    if len(entry.conn.layers) > (old is not None):
        raise ValueError("a hook lies below all layers: set it before them")
    if old is not None:
        entry.conn.pop_layer()
    if hook is not None:
        before, hook.uuid = hook.uuid, entry.uuid
        try:
            entry.conn.push_layer(hook)
        except BaseException:  # not reached: a hook that cannot be pushed
            hook.uuid = before
            raise
    return 0


def _chain(entry: Entry) -> list[SockTLC]:
    return [layer for layer in entry.conn.layers if isinstance(layer, SockTLC)]


def _check(layer: object, kind: type[object]) -> None:
    if not isinstance(layer, kind):
        raise TypeError(f"a {kind.__name__} is needed, not {type(layer).__name__}")
