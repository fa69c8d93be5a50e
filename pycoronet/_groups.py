"""TaskGroup: tasks that end together, and what leaves their block."""

import sys
from types import TracebackType

from ._coronet import GreenletExit, GroupBase, _report, current, shield
from .errors import Cancelled, DeadlockError

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup  # not reached: Python 3.10

__all__ = ["TaskGroup"]

# What ends a program or a greenlet, and so comes out as it is.
_ENDINGS = (KeyboardInterrupt, SystemExit, GreenletExit, DeadlockError)


class TaskGroup(GroupBase):
    """Tasks that end together: the block is left only when all of them have ended.

    `with TaskGroup() as group:` begins one, `group.spawn(function, *args)` adds a task, for the
    block and for tasks of the group. The first failure, of a task or of the block itself, cancels
    the rest; what was raised comes out of the block as an ExceptionGroup. A task that is cancelled
    just ends, and so does the block after `group.cancel()`.

    If the task around the block is cancelled, or a scope around it is over, the tasks are
    cancelled, too. They are waited for in any case; only a second interruption of that
    (KeyboardInterrupt, DeadlockError) gives up. KeyboardInterrupt and SystemExit come out as they
    are; those of a task go to the main program, and the block ends with Cancelled.

    Entering never switches; leaving may. Raises RuntimeError for a group that was entered before,
    and where another task leaves it.

    Source: pycoronet's own.
    """

    __slots__ = ()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> bool:
        """Wait until all tasks have ended; raise what has failed. May switch."""
        outcome = None
        scope = self._check_exit()
        try:
            is_own = scope.__exit__(kind, error, traceback)
        except RuntimeError as misuse:  # a scope within was not left
            is_own, error = False, misuse
        raised = [] if error is None or is_own else [error]
        try:
            self._wait_for_members(raised)
            outcome = self._choose_outcome(raised)
            if outcome is None:
                return is_own
            if outcome is error:
                return False
            raise outcome from None
        finally:
            # A traceback refers to this frame.
            raised.clear()
            del error, outcome

    def _wait_for_members(self, raised: list[BaseException]) -> None:
        """Cancel the members if something was raised; wait for them, adding what this raises."""
        if raised:
            self._cancel_for(raised[0])
        try:
            self._join()
            return
        except BaseException as error:
            raised.append(error)
            self._cancel_for(error)
        with shield():
            try:
                self._join()
            except BaseException as error:
                raised.append(error)

    def _cancel_for(self, error: BaseException) -> None:
        self.cancel(error.reason if isinstance(error, Cancelled) else current())

    def _choose_outcome(self, raised: list[BaseException]) -> BaseException | None:
        """Return what the block has to end with."""
        failures = [error for error in raised if not isinstance(error, Cancelled)]
        failures += self._close()
        endings = [error for error in failures if isinstance(error, _ENDINGS)]
        if endings:
            for error in failures:
                if error is not endings[0]:
                    _report(error, self)
            return endings[0]
        if failures:
            group: BaseException = BaseExceptionGroup(
                f"{len(failures)} failed in a TaskGroup", failures
            )
            return group
        if not raised and self._ends_program:
            return Cancelled("the program ends")
        return raised[0] if raised else None
