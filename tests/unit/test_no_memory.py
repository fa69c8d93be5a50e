"""Each allocation of Python's that an operation makes fails in turn.

The outcome is MemoryError or success, and the hub goes on. Layers 1 and 2 have the same in C.
"""

from __future__ import annotations

import sys

import pytest
from processes import lines_of

pytest.importorskip("_testcapi")

FIRST_ALLOCATIONS = 60

# What is done with memory, and what without. None of the latter switches: greenlet ends the
# process if it has no memory for the stack it moves.
OPERATIONS = {
    "hub": ("get_hub().close()", "get_hub(backend='fake')"),
    "task": ("", "spawn(int)"),
    "links": ("t = spawn(int)", "t.link(int); t.link(len); t.unlink(int)"),
    "later task": ("", "spawn_later(1, dict, a=1)"),
    "local": ("", "it = Local(); it.a = 1; it.a"),
    "own local": (
        "class Own(Local): __init__ = lambda self: setattr(self, 'a', 1)",
        "Own().a",
    ),
    "local in a callback": ("it = Local()", "get_hub().call_soon(setattr, it, 'a', 1)"),
    "keywords": ("", "spawn(dict, a=1)"),
    "handler": ("made = pair()", "_coronet.spawn_handler(isinstance, made[0], sk_conn)"),
    "coroutine": ("", "co_create(int)"),
    "cancel": ("t = spawn(sleep, 1)", "t.cancel('why'); t.name; repr(t)"),
    "report": ("t = spawn(sleep, 1); sleep(0)", "get_hub().waiters()"),
    "snapshot": ("t = spawn(sleep, 1); sleep(0)", "_inspection.take_snapshot(); repr(t)"),
    "described": ("t = spawn(left.recv, 9); sleep(0)", "repr(left); repr(server); t.cancel()"),
    "scopes": ("", "timeout(5).__enter__().__exit__(None, None, None); shield(1)"),
    "group": ("", "g = TaskGroup(); g.__enter__(); g.spawn(int); repr(g)"),
    "empty group": ("g = TaskGroup(); g.__enter__()", "g.__exit__(None, None, None)"),
    "ended scope": ("s = timeout(5)", "cancelled(s)"),
    "lot": ("", "_coronet.ParkingLot()"),
    "locks": (
        "",
        "m = Lock(); m.acquire(); repr(m); m = RLock(); m.acquire(); repr(m); m.release()",
    ),
    "event": ("e = Event(); t = spawn(e.wait); sleep(0)", "e.set(); repr(e); Event()"),
    "semaphore": ("", "m = BoundedSemaphore(2); m.acquire(); m.release(); repr(m)"),
    "queue": (
        "",
        "q = Queue(); [q.put(n) for n in range(9)]; [q.get() for n in range(9)]; repr(q)",
    ),
    "kept by a subclass": ("q = PriorityQueue()", "q.put(1); q.put(0); q.get(); q.get()"),
    "empty queue": ("q = SimpleQueue()", "attempt(errors.Empty, q.get, False)"),
    "served getter": (
        "q = Queue(); q.put(0); q.get(); t = spawn(q.get); sleep(0)",
        "q.put(1) or t.name",
    ),
    "shut down": ("q = Queue(); t = spawn(q.join); q.put(1); sleep(0)", "q.shutdown(True); t.name"),
    "channel": ("", "c = Channel(1); c.put_nowait(1); c.get_nowait(); c.close(); c = None"),
    "callback": ("", "get_hub().call_soon_threadsafe(int)"),
    "timer": ("", "get_hub().call_later(1, int)"),
    "guest": ("", "conn = _coronet.Guest(int, int); conn.wake_at(5.5)"),
    "hook": ("h = []", "h.append(get_hub().add_hook(check=int)); h.pop().cancel()"),
    "once": ("a, b = socket.socketpair()", "once(a, READ, int, timeout=1)"),
    "signal": ("h = []", "h.append(signal_handler(signal.SIGUSR1, int)); h.pop().cancel()"),
    "dump": ("t = spawn(sleep, 1); sleep(0)", "get_hub().dump(); get_hub().registrations()"),
    "connection": ("a, b = socket.socketpair()", "conn = sk_conn(a)"),
    "opened": ("", "_coronet._socket(socket.AF_INET, socket.SOCK_STREAM).close()"),
    "accepted": ("c = client()", "conn, peer = server.accept()"),
    "listening": ("", "listen(('127.0.0.1', 0), enabled=False).close()"),
    "limited": ("", "server.accept_limit = 500; server.accept_limit"),
    "accept errors": (
        "",
        "server.set_callbacks(Protocol(), on_accept_error=int); server.set_callbacks(None)",
    ),
    "line": ("left.write(b'line\\n')", "right.readln()"),
    "next line": ("left.write(b'a\\nb\\n'); right.readln()", "right.readln()"),
    "block": ("left.write(b'x' * 600)", "right.recv(600)"),
    "exactly": ("left.write(b'x' * 600)", "right.read_exactly(600)"),
    "until": ("left.write(b'x;')", "right.read_until(b';')"),
    "peek": ("left.write(b'ab\\n' + b'x' * 600); right.readln()", "right.peek(600)"),
    "put back": ("", "right.prepend(b'x' * 600); right.search(b'y'); right.drain(600)"),
    "any line": ("left.write(b'any\\r')", "right.readln(eol='any', keepends=False)"),
    "lines": ("left.write(b'a\\n')", "next(right.lines(eol='crlf'))"),
    "taken line": ("left.write(b'taken\\n')", "right.take_line(keepends=False)"),
    "frame": ("left.write(b'\\x03abc')", "right.read_frame('B')"),
    "taken frame": ("left.write(b'\\x03abc')", "right.take_frame('B')"),
    "huge frame": ("left.write(b'\\x03abc')", "attempt(ValueError, right.take_frame, 'I')"),
    "wrong format": ("", "attempt(ValueError, right.read_frame, 'x')"),
    "too long": ("left.write(b'xxx\\n')", "attempt(ValueError, right.readln, 2)"),
    "waited for": ("left.write(b'x')", "right.wait_input(1); Traffic(); right.created"),
    "through layers": (
        "right.push_layer(TransportLayer()); left.write(b'x' * 600)",
        "right.wait_input()",
    ),
    "counted": ("left.traffic = Traffic()", "left.write(b'x' * 600); repr(left.traffic)"),
    "moved": ("fd = left.detach()", "left.closed and left._attach(fd); repr(left)"),
    "shared": ("", "server.exclusive = True; server.wait_input(0)"),
    "message": ("left.sendmsg([b'x'], [rights()])", "right.recvmsg(10, 100)"),
    "sent": ("", "left.sendmsg([b'x'], [rights()])"),
    "printed": ("", "left.printf(b'%d %s', 5, b'x')"),
    "buffered": ("left.buffered = True", "left.write(b'x' * 600); left.flush()"),
    "enqueued": (
        "data = bytearray(9)",
        "left.enqueue([b'x' * 5000, data], move=True, dealloc=list); left.flush()",
    ),
    "file": ("f = open(sys.executable, 'rb')", "left.sendfile(f, 0, 99); left.flush(); f.close()"),
    "given file": ("f = open(sys.executable, 'rb')", "left.sendfile(f, 9, 9, close=True)"),
    "idle": ("right.set_timeouts(5, 5)", "right.set_callbacks(Protocol()); right.abort()"),
    "timeouts": ("right.set_callbacks(Protocol())", "right.set_timeouts(5, 5); right.abort()"),
    "settings": ("", "left.get_watermarks(); left.get_timeouts()"),
    "marks": ("", "left.set_watermarks(write_low=1)"),
    "linger": ("", "left.linger = 2.5"),
    "valve": ("", "left.disable(5); left.enable(5)"),
    "limits": ("", "left.set_single_limits(5, 5); left.get_single_limits()"),
    "rate": ("", "left.set_rate_limit(RateLimit(read_rate=5)); repr(left.rate_limit)"),
    "rate taken off": ("left.set_rate_limit(RateLimit())", "left.set_rate_limit(None); [0] * 99"),
    "rate group": (
        "limit = RateLimit(write_rate=5)",
        "group = RateGroup(limit); group.add(left); group.members; repr(group)",
    ),
    "address": ("", "server.getsockname(); server.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE)"),
    "closed": ("made = pair(); made[0].close()", "attempt(OSError, made[0].recv, 1)"),
    "timed out": ("left.settimeout(0)", "left.gettimeout(); repr(left)"),
}

if sys.version_info >= (3, 11):
    # The warning machinery of 3.10 crashes by itself without memory.
    OPERATIONS["dropped"] = ("a, b = socket.socketpair(); c = [sk_conn(a)]", "c = None")

PROGRAM = """
import _testcapi, array, gc, socket
from pycoronet import _coronet, _inspection, errors
from pycoronet.conet import co_create

def pair():
    return [sk_conn(end) for end in socket.socketpair()]

def client():
    return socket.create_connection(server.getsockname())

def rights():
    return (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0]))

def attempt(error, call, *arguments):
    try:
        call(*arguments)
    except error:
        pass

def cancelled(scope):
    try:
        with scope:
            scope.cancel()
            sleep(0)
    except TimeoutError:
        pass

def close_all():
    names = globals()
    for name in ("a", "b", "c", "conn", "made", "left", "right", "server"):
        for end in names.pop(name, ()) if name == "made" else [names.pop(name, None)]:
            end is None or end.close()

get_hub(backend="fake")
reports = []
sys.unraisablehook = lambda report: reports.append(report.exc_type)
failures = 0
for number in range({first_allocations}):
    server = listen(("127.0.0.1", 0))
    left, right = pair()
    {setup}
    if {setup!r} == "get_hub().close()":
        close_all()
    _testcapi.set_nomemory(number, number + 1)
    try:
        {operation}
    except MemoryError:
        failures += 1
    finally:
        _testcapi.remove_mem_hooks()
    close_all()
    assert spawn(int).get() == 0
    sleep(2)
    assert get_hub().task_count == 0
    gc.collect()
say("failures:", failures > 0 or MemoryError in reports)
"""


@pytest.mark.parametrize("name", OPERATIONS)
def test_running_out_of_memory_is_a_clean_error(name: str) -> None:
    setup, operation = OPERATIONS[name]
    lines = lines_of(
        PROGRAM.format(
            setup=setup or "pass", operation=operation, first_allocations=FIRST_ALLOCATIONS
        ),
        environment={"PYTHONWARNINGS": "ignore::ResourceWarning"},
    )
    assert lines == ["failures: True"]
