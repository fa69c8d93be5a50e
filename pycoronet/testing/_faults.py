"""Faults in the system calls that pycoronet makes: by chance, or step by step."""

import errno
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, TypeAlias

from .._coronet import _Faults

if TYPE_CHECKING:
    from _typeshed import FileDescriptorLike

# What a call meets: nothing; at most so many bytes; "short"; or the name of an error.
_Fault: TypeAlias = int | str
_Rule: TypeAlias = Sequence[_Fault | None] | Mapping[_Fault, float]

# In the order of csrc/io_faults.h.
_OPERATIONS = ("read", "write", "sendfile", "file", "accept", "connect", "open")

_CAN_BE_SHORT = ("read", "write", "sendfile", "file")

# After these a call is made once more, sooner or later.
_REPEATED = ("EINTR", "EAGAIN", "EWOULDBLOCK", "EINPROGRESS")

# What cannot come from these calls.
_NEVER = {
    "file": ("EAGAIN", "EWOULDBLOCK", "EINPROGRESS"),
    "open": _REPEATED,
}

# What no program may notice: the results are the same, whatever of it happens.
_HARMLESS: Mapping[str, _Rule] = {
    "read": {"short": 0.3, "EINTR": 0.1, "EAGAIN": 0.2},
    "write": {"short": 0.3, "EINTR": 0.1, "EAGAIN": 0.2},
    "sendfile": {"short": 0.3, "EINTR": 0.1, "EAGAIN": 0.2},
    "file": {"short": 0.3, "EINTR": 0.1},
    "accept": {"EINTR": 0.1, "EAGAIN": 0.2},
    "connect": {"EINTR": 0.3},
}


def _number_of(operation: str, fault: _Fault) -> tuple[int, int]:
    """Return (errno, limit) of a fault. Raises ValueError if there is no such thing."""
    is_limit = isinstance(fault, int) and not isinstance(fault, bool)
    if is_limit or fault == "short":
        limit = fault if isinstance(fault, int) else 0
        if is_limit and limit < 1:
            raise ValueError(f"{operation}: a call can be cut to 1 byte or more, not {limit}")
        if operation not in _CAN_BE_SHORT:
            raise ValueError(f"{operation}: it moves no bytes, so it cannot be cut short")
        return 0, limit
    number = getattr(errno, fault, None) if isinstance(fault, str) else None
    if not isinstance(number, int) or fault in _NEVER.get(operation, ()):
        raise ValueError(f"{operation}: no fault of this kind: {fault!r}")
    return number, 0


def _check_shares(operation: str, shares: Mapping[_Fault, float]) -> None:
    if not all(0 <= share <= 1 for share in shares.values()) or sum(shares.values()) > 1.0001:
        raise ValueError(f"{operation}: shares are from 0 to 1, and so is their sum: {shares!r}")
    if sum(shares.get(fault, 0) for fault in _REPEATED) >= 1:
        raise ValueError(f"{operation}: with that, nothing would ever go on: {shares!r}")


class Faults:
    """A set of faults, made by `faults()`: as a context manager it injects them.

    Source: pycoronet's own.
    """

    def __init__(
        self, rules: Mapping[str, _Rule], seed: int, only: "Iterable[FileDescriptorLike] | None"
    ) -> None:
        unknown = set(rules).difference(_OPERATIONS)
        if unknown:
            raise ValueError(f"no operation {unknown.pop()!r}: there are {', '.join(_OPERATIONS)}")
        self._names: list[list[_Fault]] = []  # the kinds of faults of each operation
        self._rules = tuple(self._parse(name, rules.get(name, {})) for name in _OPERATIONS)
        self._seed = seed
        self._fds = None if only is None else [_fileno(thing) for thing in only]
        self._core = _Faults(self._rules, seed, self._fds)

    def _parse(
        self, operation: str, rule: _Rule
    ) -> tuple[tuple[tuple[int, int, float], ...], bytes | None]:
        if isinstance(rule, str):
            raise ValueError(f"{operation}: a sequence of steps, or shares, not {rule!r}")
        if isinstance(rule, Mapping):
            _check_shares(operation, rule)
            self._names.append(list(rule))
            return tuple((*_number_of(operation, name), rule[name]) for name in rule), None
        names: list[_Fault] = list(dict.fromkeys(step for step in rule if step is not None))
        self._names.append(names)
        plan = bytes(0 if step is None else names.index(step) + 1 for step in rule)
        return tuple((*_number_of(operation, name), 0.0) for name in names), plan

    def __enter__(self) -> "Faults":
        core = _Faults(self._rules, self._seed, self._fds)  # from the beginning each time
        core.start()
        self._core = core
        return self

    def __exit__(
        self,
        type: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._core.stop()

    @property
    def counts(self) -> dict[str, dict[_Fault, int]]:
        """How often each fault has happened, by operation; those that never did are left out."""
        counts = {}
        for operation, names, row in zip(
            _OPERATIONS, self._names, self._core.counts(), strict=True
        ):
            happened = {name: count for name, count in zip(names, row, strict=True) if count}
            if happened:
                counts[operation] = happened
        return counts

    @property
    def total(self) -> int:
        """How many faults have happened."""
        return sum(map(sum, self._core.counts()))

    def __repr__(self) -> str:
        return f"<Faults seed={self._seed} {self.counts!r}>"


def _fileno(thing: "FileDescriptorLike") -> int:
    return thing if isinstance(thing, int) else int(thing.fileno())


def faults(
    rules: Mapping[str, _Rule] | None = None,
    *,
    seed: int = 0,
    only: "Iterable[FileDescriptorLike] | None" = None,
) -> Faults:
    """Have system calls fail or do less than asked, in the block of a with statement.

    rules: for each operation what its calls meet. The operations are read (also a message),
    write (also a message), sendfile, file (reading one that is sent), accept, connect, and open
    (a new socket or duplicate). A list is a plan, one step a call, and then nothing any more:

        faults({"read": ["EINTR", "EAGAIN", 3, None, "ECONNRESET"], "accept": ["EMFILE"]})

    None is a call as ever, a number cuts it to so many bytes, "short" to a random number, and
    the rest are names of errors from the errno module. A mapping gives shares instead, and
    chance decides: {"read": {"short": 0.5, "EAGAIN": 0.2}}. Without rules it is short calls,
    EINTR and EAGAIN everywhere: what no correct program can notice.

    seed: the same one gives the same faults for the same calls. only: connections or
    descriptors that are concerned until they are closed; None for all.

    It is what pycoronet itself calls in this thread that meets faults, whichever task it is for,
    and what happens is what the system could do: no byte is lost, readiness comes again after
    an EAGAIN, and after ECONNRESET, EPIPE or ETIMEDOUT a stream is shut down for both sides.

    One set at a time in a thread; RuntimeError otherwise. ValueError for what cannot happen. Never
    switches.

    Source: pycoronet's own.
    """
    return Faults(_HARMLESS if rules is None else rules, seed, only)
