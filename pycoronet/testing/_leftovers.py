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
_MOMENT = 0.001

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
        # not reached: systems without /proc
        return f"descriptor {fd}: {stat.filemode(os.fstat(fd).st_mode)}"
    except OSError:
        return f"descriptor {fd}"


def _news(now: list[Any], before: list[Any]) -> list[Any]:
    known = set(map(id, before))
    return [thing for thing in now if id(thing) not in known]


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
        found: list[str] = []
        now = hub._contents()
        if self._kinds[0]:
            found += [f"task {task!r}" for task in _news(now[0], self._before[0])]
        if self._kinds[1]:
            found += [f"to be called: {handle!r}" for handle in _news(now[1], self._before[1])]
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
            sleep(_MOMENT)

    def finish(self) -> list[str]:
        """Return what is left."""
        hub = get_hub()
        # Those of a hub that the test has made are no leftovers, and go with it.
        self._settle(hub, with_descriptors=hub is self._hub)
        found = self.found + self._look_at(hub)
        connections = hub._contents()[2]
        if hub is not self._hub:
            hub.close()
            gc.collect()
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

    Source: pycoronet's own.
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
