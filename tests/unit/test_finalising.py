"""What is called while the interpreter finalises: nothing can wait or switch any more.

And what becomes of a copy of the extension that nobody has any more.
"""

from __future__ import annotations

import subprocess
import sys

from processes import PREAMBLE, lines_of

from pycoronet import _coronet

# What was registered before pycoronet's own end runs after it: so there is a hub again, and
# nobody closes it. The last object goes when greenlet has ended.
PROGRAM = (
    "import atexit; atexit.register(lambda: begin())\n"
    + PREAMBLE
    + """
import builtins, socket
from pycoronet.conet import co_delete, co_resume

class Last:
    def __del__(self, write=os.write):
        for name, call in calls.items():
            try:
                result = str(call())
            except Exception as error:
                result = type(error).__name__ + (": finalised" if "finali" in str(error) else "")
            write(1, f"{{name}} -> {{result}}\\n".encode())

def begin():
    it = Local()
    it.a = 1
    lock, other, full, scope = RLock(), RLock(), Queue(1), timeout(5)
    lock.acquire()
    full.put(0)
    coroutine = spawn(sleep, 1)
    sleep(0)
    left, right = (sk_conn(end) for end in socket.socketpair())
    left.set_watermarks(write_high=10)
    interrupt = signal.getsignal(signal.SIGINT)
    file = open(sys.executable, "rb")
    calls.update({calls})
    builtins.last = Last()

calls = {{}}
"""
)

# What gives way in hard mode.
GIVES_WAY = "RuntimeError: finalised"

# The calls, and what comes of them.
CALLS = {
    "sleep(0)": "RuntimeError: finalised",
    "get_hub().close()": "RuntimeError",
    "current()": "RuntimeError: finalised",
    "right.recv(1)": "RuntimeError: finalised",
    "left.write(b'x')": GIVES_WAY if _coronet.HARD_MODE else "1",
    "left.sendfile(file, 0, 100)": "100",
    "scope.__enter__()": "RuntimeError: finalised",
    "TaskGroup().__enter__()": "RuntimeError: finalised",
    "full.put(1, False)": "Full",
    "full.put(1)": "RuntimeError: finalised",
    "Event().wait(1)": "RuntimeError: finalised",
    "it.a": "1",
    "setattr(it, 'a', 2)": "None",
    "lock.acquire()": "True",
    "lock.release()": "None",
    "other.acquire()": GIVES_WAY if _coronet.HARD_MODE else "True",
    "co_delete(coroutine)": "RuntimeError: finalised",
    "co_resume()": "RuntimeError: finalised",
    "interrupt(2, None)": "RuntimeError: finalised",
}


def test_calls_while_the_interpreter_finalises() -> None:
    calls = ", ".join(f"{call!r}: lambda: {call}" for call in CALLS)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(calls=f"{{{calls}}}")],
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert done.stdout.splitlines() == [f"{call} -> {result}" for call, result in CALLS.items()]
    print(done.stderr)
    assert done.returncode == 0


def test_a_module_that_goes_lets_go_of_its_types() -> None:
    # Each interpreter has one of its own; a second one in the same goes sooner.
    lines = lines_of(
        """
        import gc, importlib.util
        from pycoronet import _coronet

        def count_types():
            gc.collect()
            return sum(type(thing) is type for thing in gc.get_objects())

        def make_another():
            spec = importlib.util.spec_from_file_location(_coronet.__name__, _coronet.__file__)
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            return module

        before = count_types()
        module = make_another()
        say(module.Hub is not _coronet.Hub, count_types() > before)
        del module
        say(count_types() - before)
        """
    )
    assert lines == ["True True", "0"]
