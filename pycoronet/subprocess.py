r"""Programs run beside this one, with connections as their pipes.

Example::

    from pycoronet import subprocess

    done = subprocess.run(["sort"], input=b"b\na\n", capture_output=True, timeout=5)
    print(done.stdout)

The standard library's module in small: what has a name there means the same here, and its
exceptions are raised. Whoever waits for a program waits for that one alone, by a descriptor of
the system's that tells its end; the signal SIGCHLD and other children stay untouched.
"""

import contextlib
import os
import select
import subprocess
import threading
from collections.abc import Callable, Sequence
from subprocess import (
    DEVNULL,
    PIPE,
    STDOUT,
    CalledProcessError,
    CompletedProcess,
    TimeoutExpired,
)
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ._coronet import Event, shield, sk_conn, spawn, wait_readable
from ._coronet import timeout as time_limit
from ._waiting import iwait

if TYPE_CHECKING:
    from _typeshed import FileDescriptorLike, StrOrBytesPath
    from typing_extensions import Buffer, Self

__all__ = [
    "DEVNULL",
    "PIPE",
    "STDOUT",
    "CalledProcessError",
    "CompletedProcess",
    "Popen",
    "TimeoutExpired",
    "check_output",
    "run",
]

# Connections carry bytes, and have buffers of their own.
_REFUSED_OPTIONS = ("bufsize", "encoding", "errors", "text", "universal_newlines")

_PIECE = 65536


def _pidfd_of(pid: int) -> tuple[int, Callable[[], None]]:
    fd = os.pidfd_open(pid)
    return fd, lambda: os.close(fd)


def _kqueue_of(pid: int) -> tuple[int, Callable[[], None]]:
    """Return a kqueue that can be read when the process has ended, and how to close it."""
    system: Any = select  # type checkers know the module of their own system
    queue = system.kqueue()
    try:
        change = system.kevent(
            pid,
            filter=system.KQ_FILTER_PROC,
            flags=system.KQ_EV_ADD,
            fflags=system.KQ_NOTE_EXIT,
        )
        queue.control([change], 0, 0)
    except BaseException:  # not reached: kqueue is asked for one process
        queue.close()
        raise
    return queue.fileno(), queue.close


def _open_exit(pid: int) -> tuple[int, Callable[[], None]]:
    """Return a descriptor that can be read when a child has ended, and how to close it."""
    if hasattr(os, "pidfd_open"):
        return _pidfd_of(pid)
    if hasattr(select, "kqueue"):  # not reached: systems without pidfd_open()
        return _kqueue_of(pid)
    raise OSError("this system has no descriptors that tell of a process")


class Popen:
    """A program that has been started: `subprocess.Popen` for coroutines.

    args: the program and its arguments, or with shell=True one str.
    stdin, stdout, stderr: None inherits; PIPE makes a connection, in the attribute of that
    name; DEVNULL; a descriptor, or an object that has one and is no sk_conn; for stderr also
    STDOUT. Others: those of subprocess.Popen, except for the ones about text and buffering.

    Starting it waits until the program is executed, and runs nobody else meanwhile. Raises what
    subprocess.Popen raises: FileNotFoundError for a program or folder that is not there,
    OSError, ValueError, TypeError.

    As a context manager it closes the pipes and waits for the end. If the block is left by an
    exception, or a cancel, the program is killed first. Without one, wait() has to be called.

    Source: Python's subprocess.Popen.
    """

    stdin: sk_conn | None
    stdout: sk_conn | None
    stderr: sk_conn | None

    def __init__(
        self,
        args: "StrOrBytesPath | Sequence[StrOrBytesPath]",
        *,
        stdin: "FileDescriptorLike | None" = None,
        stdout: "FileDescriptorLike | None" = None,
        stderr: "FileDescriptorLike | None" = None,
        **options: Any,
    ) -> None:
        for name in _REFUSED_OPTIONS:
            if name in options:
                raise TypeError(f"pipes are connections, which carry bytes: no option {name!r}")
        for name, file in (("stdin", stdin), ("stdout", stdout), ("stderr", stderr)):
            if isinstance(file, sk_conn):
                raise TypeError(
                    f"{name} cannot be an sk_conn: its descriptor is non-blocking, which the "
                    "program does not expect; of two programs connect one end of os.pipe() each"
                )
        self.stdin = self.stdout = self.stderr = None
        self._received: dict[str, list[bytes]] = {}
        self._has_begun = False  # to communicate
        self._ended: Event | None = None  # set by the thread that waits for the end
        with contextlib.ExitStack() as ends_of_child:
            try:
                self._process = subprocess.Popen(
                    args,
                    stdin=self._open("stdin", stdin, ends_of_child),
                    stdout=self._open("stdout", stdout, ends_of_child),
                    stderr=self._open("stderr", stderr, ends_of_child),
                    **options,
                )
            except BaseException:
                self._abort_pipes()
                raise

    def _open(self, name: str, file: Any, ends_of_child: contextlib.ExitStack) -> Any:
        """Return what the child gets as a stream: for PIPE, the other end of a connection."""
        if file != PIPE:
            return file
        ours, theirs = os.pipe()
        if name == "stdin":
            ours, theirs = theirs, ours
        else:
            self._received[name] = []
        ends_of_child.callback(os.close, theirs)
        try:
            setattr(self, name, sk_conn(ours))
        except BaseException:
            os.close(ours)
            raise
        return theirs

    @property
    def args(self) -> "StrOrBytesPath | Sequence[StrOrBytesPath]":
        """What was started."""
        return self._process.args

    @property
    def pid(self) -> int:
        """The number of the process."""
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """The exit status once poll() or wait() has seen the end; -N if signal N ended it."""
        return self._process.returncode

    def __repr__(self) -> str:
        return repr(self._process)

    def poll(self) -> int | None:
        """Return the exit status, None while it runs. Never switches."""
        return self._process.poll()

    def send_signal(self, signum: int) -> None:
        """Send a signal by its number, signum; nothing if it has ended.

        Raises OSError. Never switches.
        """
        self._process.send_signal(signum)

    def terminate(self) -> None:
        """Send SIGTERM. Never switches."""
        self._process.terminate()

    def kill(self) -> None:
        """Send SIGKILL. Never switches."""
        self._process.kill()

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end; return the exit status.

        timeout: seconds, None for no limit. Any number of tasks and threads may wait. If one is
        cancelled, or TimeoutExpired is raised, the program goes on. A program that writes into a
        pipe that nobody reads never ends: read, or communicate(). Switches unless it has ended.
        """
        scope = time_limit(timeout)
        try:
            with scope:
                while (status := self._process.poll()) is None:
                    self._await_end()
        except TimeoutError:
            if not scope.expired or timeout is None:
                raise  # not reached: a timeout of the caller's
            raise TimeoutExpired(self.args, timeout) from None
        return status

    def _await_end(self) -> None:
        try:
            fd, close = _open_exit(self.pid)
        except OSError:
            # An old kernel, a sandbox, no descriptor left, or macOS, while it is ending.
            self._await_thread()
            return
        try:
            wait_readable(fd)
        finally:
            close()

    def _await_thread(self) -> None:
        if self._ended is None:
            ended, wait = Event(), self._process.wait

            def wait_for_end() -> None:
                wait()
                ended.set()

            threading.Thread(target=wait_for_end, name="pycoronet wait", daemon=True).start()
            self._ended = ended
        self._ended.wait()

    def communicate(
        self, input: "Buffer | None" = None, timeout: float | None = None
    ) -> tuple[bytes | None, bytes | None]:
        """Send input, read all output, wait for the end; return what stdout and stderr gave.

        input: for stdin, which is closed after it; that the program does not read it all is no
        error. None stands for a stream that is no PIPE. All of it is kept in memory.
        timeout: seconds, None for no limit. After it TimeoutExpired is raised, with the output
        so far; the program goes on, and nothing is lost if communicate() is called again,
        without input. If the caller is cancelled the program is killed and waited for.

        As output ends when the last one closes it, this also waits for programs that the program
        has started and left behind with its pipes. Raises ValueError for input without a pipe
        or at a second call; BusyError if another task uses a pipe. Switches.
        """
        scope = time_limit(timeout)
        self._begin_input(input)
        try:
            with scope:
                self._exchange()
                self.wait()
        except TimeoutError:
            if not scope.expired or timeout is None:
                raise
            raise TimeoutExpired(
                self.args, timeout, self._output("stdout"), self._output("stderr")
            ) from None
        except Exception:
            raise
        except BaseException:
            self._kill_and_reap()
            raise
        return self._output("stdout"), self._output("stderr")

    def _begin_input(self, input: "Buffer | None") -> None:
        if input is not None and self.stdin is None:
            raise ValueError("communicate() needs stdin=PIPE for its input")
        if input is not None and self._has_begun:
            raise ValueError("communicate() has begun, and cannot have more input")
        if input is not None and self.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self.stdin.enqueue(input)
        self._has_begun = True

    def _exchange(self) -> None:
        """Move what there is in all pipes at once, until each has ended."""
        tasks = [spawn(self._collect, name) for name in self._received]
        tasks.append(spawn(self._finish_input))
        try:
            for task in iwait(tasks):  # what fails first is raised, though others go on
                task.get()
        finally:
            for task in tasks:
                task.cancel()
            with shield():
                for task in tasks:
                    task.join()

    def _finish_input(self) -> None:
        if self.stdin is None or self.stdin.closed:
            return
        with contextlib.suppress(BrokenPipeError):
            self.stdin.flush()
        self.stdin.close()

    def _collect(self, name: str) -> None:
        conn: sk_conn = getattr(self, name)
        if conn.closed:
            return
        while piece := conn.recv(_PIECE):
            self._received[name].append(piece)
        conn.close()

    def _output(self, name: str) -> bytes | None:
        return b"".join(self._received[name]) if name in self._received else None

    def _kill_and_reap(self) -> None:
        try:
            self.kill()
            with shield():
                self.wait()
        finally:
            self._abort_pipes()

    def _abort_pipes(self) -> None:
        for conn in (self.stdin, self.stdout, self.stderr):
            if conn is not None:
                conn.abort()

    def __enter__(self) -> "Self":
        return self

    def __exit__(
        self,
        type: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if type is not None:
            self._kill_and_reap()
            return
        try:
            for conn in (self.stdout, self.stderr, self.stdin):
                if conn is not None:
                    conn.close()
            self.wait()
        except BaseException:
            self._kill_and_reap()
            raise


def run(
    args: "StrOrBytesPath | Sequence[StrOrBytesPath]",
    *,
    input: "Buffer | None" = None,
    capture_output: bool = False,
    timeout: float | None = None,
    check: bool = False,
    **options: Any,
) -> CompletedProcess[bytes]:
    """Run a program to its end: `subprocess.run` for coroutines.

    args: the program and its arguments, or its path. input: what it reads. capture_output: its
    stdout and stderr become those of the result.
    timeout: seconds, None for no limit. Others: those of Popen.

    If the time is over, or the caller is cancelled, the program is killed and waited for; what
    it has started itself goes on. Raises TimeoutExpired, with the output so far; with check
    CalledProcessError for a status other than 0; what Popen() raises. Switches.

    Source: Python's subprocess.run.
    """
    if input is not None:
        if options.get("stdin") is not None:
            raise ValueError("run() takes input or stdin, not both")
        options["stdin"] = PIPE
    if capture_output:
        if options.get("stdout") is not None or options.get("stderr") is not None:
            raise ValueError("run() takes capture_output, or stdout and stderr, not both")
        options["stdout"] = options["stderr"] = PIPE
    # Entered first: where nobody can wait it raises before there is a program to wait for.
    with time_limit(None), Popen(args, **options) as process:
        output, errors = process.communicate(input, timeout)
        status = process.wait()
    if check and status != 0:
        raise CalledProcessError(status, process.args, output, errors)
    return CompletedProcess(process.args, status, output, errors)


def check_output(
    args: "StrOrBytesPath | Sequence[StrOrBytesPath]",
    *,
    timeout: float | None = None,
    **options: Any,
) -> bytes:
    """Run a program that has to end with status 0; return its output. Otherwise as `run()`.

    Switches.

    Source: Python's subprocess.check_output.
    """
    for name in ("stdout", "check", "capture_output"):
        if name in options:
            raise ValueError(f"check_output() takes no {name}: that is what it sets")
    output: bytes = run(args, timeout=timeout, stdout=PIPE, check=True, **options).stdout
    return output
