"""What a test leaves behind: tasks, timers and other functions to be called, descriptors."""

import gc
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .._coronet import Hub, get_hub, sleep

# Where open descriptors are listed. FreeBSD's /dev/fd need not have them all.
_FD_FOLDER = {"linux": "/proc/self/fd", "darwin": "/dev/fd"}.get(sys.platform)
_HIGHEST_DESCRIPTOR = 4096  # that is looked at where there is no list

# How often what can end by itself is given the time for it.
_ROUNDS = 10

# The blocks that are being watched, the innermost last.
_watches: list["_Watch"] = []


def _list_descriptors() -> dict[int, tuple[int, int]]:
    """Return which file each open descriptor is."""
    numbers = range(_HIGHEST_DESCRIPTOR)
    listed = numbers if _FD_FOLDER is None else map(int, os.listdir(_FD_FOLDER))  # noqa: PTH208
    found = {}
    for fd in listed:
        try:
            status = os.fstat(fd)
        except OSError:
            continue  # the one that was needed to look
        found[fd] = (status.st_dev, status.st_ino)
    return found


def _describe_descriptor(fd: int, connections: list[Any]) -> str:
    for conn in connections:
        if conn.sfd == fd:
            return repr(conn)
    try:
        if _FD_FOLDER == "/proc/self/fd":
            return f"descriptor {fd}: {Path(_FD_FOLDER, str(fd)).readlink()}"
        return f"descriptor {fd}: {stat.filemode(os.fstat(fd).st_mode)}"
    except OSError:
        return f"descriptor {fd}"


class _Watch:
    """What there was before, and what is there besides."""

    def __init__(self, tasks: bool, timers: bool, descriptors: bool) -> None:
        self._hub = get_hub()
        self._hub.wait(0)  # so that all its descriptors are open
        self._kinds = (tasks, timers)
        self._before = self._hub._contents()
        self._descriptors = _list_descriptors() if descriptors else None
        self.found: list[str] = []

    def _look_at(self, hub: Hub) -> list[str]:
        """Return what the hub has now and did not have before."""
        found = []
        now = hub._contents()
        for is_wanted, title, objects, known in zip(
            self._kinds, ("task", "to be called:"), now, self._before, strict=False
        ):
            if is_wanted:
                new = (thing for thing in objects if not any(thing is old for old in known))
                found += [f"{title} {thing!r}" for thing in new]
        return found

    def _look_at_descriptors(self, connections: list[Any]) -> list[str]:
        if self._descriptors is None:
            return []
        now = _list_descriptors()
        new = sorted(fd for fd in now if self._descriptors.get(fd) != now[fd])
        return [_describe_descriptor(fd, connections) for fd in new]

    def note(self, hub: Hub) -> None:
        """Note what is in the hub, which closes."""
        self._settle(hub, with_descriptors=False)
        self.found += self._look_at(hub)

    def _settle(self, hub: Hub, *, with_descriptors: bool) -> None:
        """Let what is about to end do so, and let go of what nobody refers to."""
        for round in range(_ROUNDS):
            is_empty = not self._look_at(hub)
            if is_empty and not (with_descriptors and self._look_at_descriptors([])):
                return
            if round == 0:
                gc.collect()
            sleep(0)

    def finish(self) -> list[str]:
        """Return what is left."""
        hub = get_hub()
        self._settle(hub, with_descriptors=True)
        found = self.found + self._look_at(hub)
        connections = hub._contents()[2]
        if hub is not self._hub:
            hub.close()  # the test's own: its descriptors are no leftovers
        return found + self._look_at_descriptors(connections)


def look_before_closing(hub: Hub) -> None:
    """Note what a hub has that is about to be closed, and all its tasks with it."""
    for watch in _watches:
        watch.note(hub)


@contextmanager
def nothing_left_behind(
    *, tasks: bool = True, timers: bool = True, descriptors: bool = True
) -> Iterator[None]:
    """Fail with AssertionError if a block leaves something behind that was not there before.

    tasks: those of this thread's hub that have not ended. timers: functions that the hub is
    still to call: call_later(), once(), signal_handler(). descriptors: files, sockets and
    whatever else the process has open. What is about to end is let run before, and what nobody
    refers to any more is collected. A `virtual_time()` inside is looked at before it ends.

    If the block raises, nothing is looked for: a traceback refers to all that there was. A hub
    that the block has made for this thread in the place of the one before is closed. Switches.
    """
    watch = _Watch(tasks, timers, descriptors)
    _watches.append(watch)
    try:
        yield
    finally:
        _watches.remove(watch)
    found = watch.finish()
    if found:
        raise AssertionError("left behind: " + "; ".join(found))
