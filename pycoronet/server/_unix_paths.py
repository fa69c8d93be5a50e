"""The paths of Unix sockets: replaced when they are stale, removed when they are ours.

A socket's file stays when its server dies, and bind() refuses it then. It is replaced only
if nobody listens on it, and removed only as long as it is the file that we have made.
"""

import errno
import os
import socket
import stat
from pathlib import Path
from typing import Any

from .._binding import Place, bind

__all__ = ["adopt_path", "bind_path", "disown_path", "unlink_path"]

Identity = tuple[int, int]  # device and inode
Key = tuple[str, int]  # what a socket is bound to, and its own inode, which duplicates share

# Which file this process has to remove for a listener.
_owned: dict[Key, tuple[Path, Identity]] = {}

# The parent goes on serving; its paths are not for a child to remove.
os.register_at_fork(after_in_child=_owned.clear)


def bind_path(path: str | bytes, *, mode: int | None = None) -> socket.socket:
    """Return a socket that is bound to the path and does not listen yet.

    path: a leading NUL byte means Linux' abstract namespace. mode: the file's permissions;
    None leaves them to the umask. Raises OSError: EADDRINUSE if somebody listens there,
    EEXIST if it is the path of something else.
    """
    place = Place(socket.AF_UNIX, path)
    try:
        sock = bind(place)
    except OSError as error:
        if error.errno != errno.EADDRINUSE or is_abstract(path):
            raise
        _remove_stale(Path(os.fsdecode(path)), error)
        sock = bind(place)
    adopt_path(sock)
    try:
        if mode is not None and not is_abstract(path):
            Path(os.fsdecode(path)).chmod(mode)
    except BaseException:
        unlink_path(sock)
        sock.close()
        raise
    return sock


def is_abstract(path: str | bytes) -> bool:
    """Tell whether a name is of the abstract namespace, or of no namespace at all."""
    return path[:1] in ("", "\0", b"", b"\0")


def _remove_stale(path: Path, in_use: OSError) -> None:
    """Remove a socket's file that nobody listens on; raise in_use if somebody does."""
    identity = _identify(path)
    if identity is None:
        return  # gone meanwhile
    if not path.is_socket() or path.is_symlink():
        raise FileExistsError(errno.EEXIST, "there is a file that is no socket") from None
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)  # a full queue is an answer, too
        if probe.connect_ex(os.fspath(path)) != errno.ECONNREFUSED:
            raise in_use
    if _identify(path) != identity:
        raise in_use  # somebody else was quicker
    path.unlink()


def _identify(path: Path) -> Identity | None:
    try:
        found = path.lstat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def adopt_path(listener: Any) -> None:
    """Make the path of a listener this process's to remove: it has bound or inherited it.

    listener: anything with getsockname(); one that has no path is left alone.
    """
    key = _key_of(listener)
    if key is None:
        return
    path = Path(key[0]).absolute()  # the working directory may change
    identity = _identify(path)
    if identity is not None and stat.S_ISSOCK(path.lstat().st_mode):
        _owned[key] = path, identity


def disown_path(listener: Any) -> None:
    """Leave the path of a listener to another process, which goes on with it."""
    _forget(listener)


def unlink_path(listener: Any) -> bool:
    """Remove the path of a listener that is about to be closed; return True if that was done.

    Only if this process has bound or adopted it, and it still is the same file. Raises
    OSError if the directory does not allow it.
    """
    path, identity = _forget(listener)
    if path is None or _identify(path) != identity:
        return False
    path.unlink(missing_ok=True)
    return True


def _forget(listener: Any) -> tuple[Path, Identity] | tuple[None, None]:
    key = _key_of(listener)
    return (None, None) if key is None else _owned.pop(key, (None, None))


def _key_of(listener: Any) -> Key | None:
    """Return what a listener is known by, None if it has no path."""
    # A connection whose hub is closed tells other threads its descriptor, and no more.
    sock = socket.socket(fileno=listener.fileno())
    try:
        name = sock.getsockname()
    finally:
        sock.detach()  # the descriptor is the listener's
    if not isinstance(name, str | bytes) or is_abstract(name):
        return None
    return os.fsdecode(name), os.fstat(listener.fileno()).st_ino
