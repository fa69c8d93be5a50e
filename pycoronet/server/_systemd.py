"""What systemd passes to a service, and what it wants to be told (sd_listen_fds, sd_notify).

Other supervisors speak the same protocol. Without their variables nothing happens here.
"""

import os
import socket
import time
from dataclasses import dataclass

__all__ = ["SystemdSockets", "find_passed", "forget_passed", "notify"]

FIRST_PASSED = 3
NOTIFY_SECONDS = 5.0  # how long the supervisor may leave a message unread

_VARIABLES = ("LISTEN_PID", "LISTEN_PIDFDID", "LISTEN_FDS", "LISTEN_FDNAMES")


@dataclass(frozen=True)
class SystemdSockets:
    """An address: the sockets that systemd has passed, or those of one name among them.

    name: what FileDescriptorName= of the .socket unit says; its default is the unit's name.
    """

    name: str | None = None


# (name, descriptor) of each socket that has been passed and that no server has taken yet;
# None as long as nobody has asked.
_passed: list[tuple[str, int]] | None = None


def find_passed(name: str | None = None) -> list[int]:
    """Return the passed descriptors that nobody has taken; of one name, if one is given.

    The first call takes the variables out of the environment, so that programs that are
    started from here do not take the sockets for theirs, and makes the descriptors close
    at an exec. Raises ValueError if the variables make no sense.
    """
    global _passed
    if _passed is None:
        _passed = _read_environment()
    return [fd for passed_name, fd in _passed if name is None or passed_name == name]


def forget_passed(descriptors: list[int]) -> None:
    """Never return these again: a server has them, and their numbers may come to mean others."""
    global _passed
    if _passed:
        _passed = [entry for entry in _passed if entry[1] not in descriptors]


def _read_environment() -> list[tuple[str, int]]:
    pid, _, count, names = (os.environ.pop(variable, "") for variable in _VARIABLES)
    if not count or pid != str(os.getpid()):
        return []  # nothing was passed, or it was meant for a process further up
    if not count.isdecimal():
        raise ValueError(f"LISTEN_FDS should be a number, not {count!r}")
    descriptors = range(FIRST_PASSED, FIRST_PASSED + int(count))
    for fd in descriptors:
        os.set_inheritable(fd, False)
    labels = names.split(":") if names else []
    labels += ["unknown"] * (len(descriptors) - len(labels))
    return list(zip(labels, descriptors, strict=False))


def notify(*assignments: str) -> bool:
    """Tell the supervisor something, such as "READY=1"; return True if it was told.

    RELOADING=1 is given the time that goes with it. Never raises: a server does not end
    because nobody listens to its news.
    """
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return False
    if address.startswith("@"):
        address = "\0" + address[1:]
    lines = list(assignments)
    if "RELOADING=1" in lines:
        lines.append(f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.settimeout(NOTIFY_SECONDS)
            sock.sendto("\n".join(lines).encode(), address)
    except (OSError, ValueError):
        return False
    return True
