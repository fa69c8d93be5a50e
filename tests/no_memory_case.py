"""What the tests without memory share: operations, and the program that does one of them."""

from __future__ import annotations

import sys

# What is done with memory, and what without. None of the latter switches: greenlet ends the
# process if it has no memory for the stack it moves.
OPERATIONS = {
    "hub": ("get_hub().close()", "get_hub(backend='fake')"),
    "links": ("t = spawn(int)", "t.link(repr); t.link(str); t.unlink(repr)"),
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
    "lot": ("", "_coronet.ParkingLot()"),
    "described": ("t = spawn(left.recv, 9); sleep(0)", "repr(left); repr(server); t.cancel()"),
    "scopes": ("", "timeout(5).__enter__().__exit__(None, None, None); shield(1)"),
    "group": ("g = TaskGroup(); g.__enter__()", "g.spawn(int); repr(g)"),
    "new group": ("", "TaskGroup().__enter__().__exit__(None, None, None)"),
    "empty group": ("g = TaskGroup(); g.__enter__()", "g.__exit__(None, None, None)"),
    "ended scope": ("s = timeout(5)", "cancelled(s)"),
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
    "faults": ("", "it = _coronet._Faults((((), None),) * 7, 1, None); it.counts()"),
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
    "marks": ("", "left.set_watermarks(write_low=1); left.linger = 2.5"),
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

HELPERS = """
import array, gc, socket
from pycoronet import _coronet, _inspection, errors
from pycoronet.conet import co_call, co_create, co_delete, co_resume
from pycoronet.testing import faults

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

def fail(*ignored):
    raise KeyError("on purpose")

def print_nothing(*ignored):
    pass

def abs_or_none(seconds):
    return None

def interrupt():
    signal.raise_signal(signal.SIGINT)

def use_local(it):
    it.a = 2
    return it.a

def sleep_within(scope):
    with scope:
        sleep(9)

def nest(outer, inner):
    with outer, inner:
        sleep(9)

def run_group(function=int, cancels=False):
    with TaskGroup() as group:
        group.spawn(sleep, 1)
        group.spawn(function)
        if cancels:
            group.cancel("why")

def hold(lock):
    with lock:
        sleep(0)

def contend(lock):
    tasks = [spawn(hold, lock) for number in range(3)]
    for task in tasks:
        task.get()

def together(*calls):
    with TaskGroup() as group:
        for function, *arguments in calls:
            group.spawn(function, *arguments)

def fill_queue(queue, count):
    for number in range(count):
        queue.put(number)

def drain_queue(queue, count):
    for number in range(count):
        queue.get()
        queue.task_done()

def drain_conn(conn):
    while conn.recv(65536):
        pass

def opened(family=socket.AF_INET):
    return _coronet._socket(family, socket.SOCK_STREAM)

def bound():
    end = socket.socket(type=socket.SOCK_DGRAM)
    end.bind(("127.0.0.1", 0))
    return sk_conn(end)

def send_much(conn):
    conn.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    for number in range(5):
        conn.write(b"x" * 4000)
    conn.close()

def send_file(conn):
    conn.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    with open(sys.executable, "rb") as file:
        conn.sendfile(file, 0, 20_000)
    conn.close()

def limited():
    return RateLimit(read_rate=1000, read_burst=100, write_rate=1000, write_burst=100)

def take_rights(conn):
    data, ancillary, flags, address = conn.recvmsg(9, 99)
    for level, kind, fds in ancillary:
        for fd in array.array("i", fds if kind == socket.SCM_RIGHTS else b""):
            os.close(fd)

def take_events():
    for descriptor, events in conn.take():
        a.recv(9)

def send_name(conn, address):
    conn.write(repr(address).encode())

def serve_once(server):
    peer = client()
    conn, address = server.accept()
    task = _coronet.spawn_handler(send_name, conn, address)
    task.get()
    conn.close()
    peer.close()

class Recorder(Protocol):
    def on_data(self, conn):
        conn.take_line()
        conn.take(9)

def taker(take):
    return type("Taker", (Protocol,), dict(on_data=lambda self, conn: take(conn)))()

class Flipping(TransportLayer):
    def wrap(self, data):
        return bytes(data)[::-1]

    def unwrap(self, data):
        return bytes(data)[::-1]

    def finish(self):
        return b"end"

def cancel_all():
    for task, *others in get_hub()._list_tasks()[1:]:  # the first is the main program
        task.cancel()

def close_all():
    names = globals()
    for name in ("a", "b", "c", "conn", "made", "left", "right", "server"):
        for end in names.pop(name, ()) if name == "made" else [names.pop(name, None)]:
            end is None or attempt(MemoryError, end.close)  # a failure not told yet
    handle = names.pop("h", None)
    hasattr(handle, "cancel") and handle.cancel()
    if "g" in names:
        attempt(Exception, names.pop("g").__exit__, None, None, None)  # left by half, perhaps
"""

# What waits and hands over, and what runs callbacks. Functions are in HELPERS.
SWITCHING_OPERATIONS = {
    "first task": ("get_hub().close()", "spawn(int)"),
    "first lot": ("get_hub().close()", "_coronet.ParkingLot()"),
    "first scope": ("get_hub().close()", "timeout(1).__enter__().__exit__(None, None, None)"),
    "first group": ("get_hub().close()", "TaskGroup().__enter__().__exit__(None, None, None)"),
    "first connection": ("a, b = socket.socketpair(); get_hub().close()", "c = sk_conn(a)"),
    "first socket": ("get_hub().close()", "c = opened()"),
    "first handler": ("c = pair()[0]; get_hub().close()", "_coronet.spawn_handler(id, c, 1)"),
    "first coroutine": ("get_hub().close()", "co_create(int)"),
    "first call": ("get_hub().close()", "co_resume.__self__; current(); flush_all()"),
    "first once": ("a, b = socket.socketpair(); get_hub().close()", "h = once(a, READ, int)"),
    "first guest": ("get_hub().close()", "conn = _coronet.Guest(print_nothing, print_nothing)"),
    "first rate group": ("get_hub().close()", "RateGroup(RateLimit(read_rate=5))"),
    "first signal": ("get_hub().close()", "h = signal_handler(signal.SIGUSR1, int); h.cancel()"),
    "first wait": ("get_hub().close()", "sleep(0)"),
    "run task": ("", "assert spawn(dict, a=1).get() == {'a': 1}"),
    "failed task": ("t = spawn(fail)", "attempt(KeyError, t.get); t.exception; t.cancel_reason"),
    "joined task": (
        "t = spawn(sleep, 1)",
        "attempt(TimeoutError, t.join, 0); t.get()",
    ),
    "linked task": ("t = spawn(sleep, 1)", "t.link(repr, handles_failure=True); t.get()"),
    "cancelled task": (
        "t = spawn(sleep, 9); sleep(0)",
        "t.cancel('why'); attempt(Cancelled, t.get)",
    ),
    "own local in a task": ("it = Local(); it.a = 1", "spawn(use_local, it).get(); del it.a"),
    "timeout": ("", "attempt(TimeoutError, sleep_within, timeout(0.1))"),
    "move on": ("", "sleep_within(move_on_after(0.1)); sleep_within(shield(0.1))"),
    "nested scopes": ("", "attempt(TimeoutError, spawn(nest, timeout(1), move_on_after(2)).get)"),
    "group with members": ("", "run_group()"),
    "failing group": ("", "attempt(BaseExceptionGroup, run_group, fail)"),
    "cancelled group": ("", "run_group(cancels=True)"),
    "parked": (
        "lot = _coronet.ParkingLot(); t = spawn(lot.park, 'test')",
        "sleep(0); lot.unpark(); t.get()",
    ),
    "parked too long": ("lot = _coronet.ParkingLot()", "lot.park('test', 0.1)"),
    "lock handed over": ("m = Lock()", "contend(m)"),
    "rlock handed over": ("m = RLock()", "contend(m)"),
    "semaphore handed over": ("m = Semaphore(1)", "contend(m)"),
    "lock timed out": ("m = Lock(); m.acquire()", "m.acquire(timeout=0.1); m.release()"),
    "event waited for": (
        "e = Event(); t = spawn(e.wait)",
        "sleep(0); e.set(); t.get(); e.clear(); e.wait(0.1)",
    ),
    "queue handed over": (
        "q = Queue(1)",
        "together((drain_queue, q, 5), (fill_queue, q, 5)); q.join()",
    ),
    "queue timed out": (
        "q = LifoQueue(1); q.put(1)",
        "attempt(errors.Full, q.put, 2, True, 1); q.get(); attempt(errors.Empty, q.get, True, 1)",
    ),
    "queue shut down": (
        "q = SimpleQueue(); t = spawn(attempt, errors.ShutDown, q.get)",
        "sleep(0); q.shutdown(); t.get()",
    ),
    "callbacks of the hub": (
        "hub = get_hub()",
        "hub.call_soon(int); hub.call_soon_threadsafe(int); hub.call_later(0.1, int); sleep(0.2)",
    ),
    "repeated callback": (
        "",
        "h = get_hub().call_every(0.1, int); sleep(0.35); h.cancel(); h.when",
    ),
    "hooks": ("", "h = get_hub().add_hook(abs_or_none, int); sleep(0.1); h.cancel(); sleep(0)"),
    "once in the hub": (
        "a, b = socket.socketpair(); b.send(b'x')",
        "h = once(a, READ, print_nothing); sleep(0.1); h.active",
    ),
    "once timed out": (
        "a, b = socket.socketpair()",
        "h = once(a, READ, print_nothing, timeout=0.1); sleep(0.2); h.active",
    ),
    "signal in the hub": (
        "h = signal_handler(signal.SIGUSR1, print_nothing)",
        "signal.raise_signal(signal.SIGUSR1); sleep(0.1); h.cancel()",
    ),
    "descriptor": (
        "a, b = socket.socketpair(); b.send(b'x')",
        "wait_readable(a); wait_writable(b); wait_fd(a, READ, 1); notify_closing(a)",
    ),
    "descriptor timed out": (
        "a, b = socket.socketpair()",
        "attempt(TimeoutError, wait_readable, a, 0.1)",
    ),
    "guest steps": (
        "a, b = socket.socketpair(); conn = _coronet.Guest(take_events, print_nothing)",
        "conn.watch(a, READ); b.send(b'x'); conn.wake_at(1); sleep(2); conn.wake()",
    ),
    "coroutines": (
        "t = co_create(co_resume)",
        "co_call(t); t.done or co_call(t); t.done or co_delete(t)",
    ),
    "handlers": ("", "serve_once(server)"),
    "handler of callbacks": (
        "c = client()",
        "server.set_callbacks(Recorder); c.send(b'x'); sleep(0.1)",
    ),
    "received by callbacks": (
        "right.set_callbacks(Recorder())",
        "left.write(b'a\\nbc'); left.flush(); sleep(0.1); left.close(); sleep(0.1)",
    ),
    "sent by callbacks": (
        "right.set_callbacks(Recorder()); right.set_watermarks(write_low=1)",
        "right.write(b'x' * 600); right.trigger(READ | WRITE, ignore_watermarks=True); sleep(0.1)",
    ),
    "idle callbacks": (
        "right.set_callbacks(Recorder()); right.set_timeouts(0.1, 0.1)",
        "sleep(0.2); right.close(); sleep(0.1)",
    ),
    "callbacks of a layer": (
        "left.push_layer(TransportLayer()); right.push_layer(TransportLayer())",
        "right.set_callbacks(Recorder()); left.write(b'x' * 600); sleep(1); right.abort()",
    ),
    "dispatch interval": (
        "hub = get_hub(); hub.set_dispatch_interval(0.5, 1)",
        "hub.call_soon(int); hub.call_soon(int); sleep(0.1); hub.set_dispatch_interval()",
    ),
    "loop exit": (
        "hub = get_hub()",
        "hub.loop_exit(0.1); hub.run(); hub.loop_break(); hub.loop_continue()",
    ),
    "driven by hand": (
        "t = spawn(int)",
        "get_hub().wait(0); get_hub().dispatch(); get_hub().dispatch()",
    ),
    "waited line": ("t = spawn(right.readln)", "sleep(0); left.write(b'line\\n'); t.get()"),
    "waited bytes": (
        "t = spawn(right.read, 9)",
        "sleep(0); left.write(b'123456'); left.close(); t.get()",
    ),
    "read into": (
        "data = bytearray(9)",
        "left.write(b'123'); right.recv_into(data); left.write(b'4'); right.peek(1)",
    ),
    "waited frame": (
        "t = spawn(right.read_frame, 'B')",
        "sleep(0); left.write(b'\\x02a'); sleep(0); left.write(b'b'); t.get()",
    ),
    "waited line timed out": (
        "right.settimeout(0.1)",
        "attempt(TimeoutError, right.readln); attempt(TimeoutError, right.read, 5)",
    ),
    "written slowly": ("", "together((drain_conn, right), (send_much, left))"),
    "buffered slowly": (
        "left.buffered = True; left.set_watermarks(write_high=1000)",
        "together((drain_conn, right), (send_much, left)); flush_all()",
    ),
    "sent file": ("", "together((drain_conn, right), (send_file, left))"),
    "sent file through a layer": (
        "left.push_layer(TransportLayer())",
        "together((drain_conn, right), (send_file, left))",
    ),
    "linger at close": (
        "left.linger = 1; left.buffered = True",
        "left.write(b'x'); left.close(); right.read(9)",
    ),
    "layers both ways": (
        "left.push_layer(Flipping()); right.push_layer(Flipping())",
        "left.write(b'abc'); right.recv(3); left.pop_layer(); left.flush(); right.recv(9)",
    ),
    "layer over held bytes": (
        "left.write(b'a\\n' + b'x' * 90); right.readln()",
        "right.push_layer(Flipping()); right.recv(9)",
    ),
    "layer emits": (
        "it = TransportLayer(); left.push_layer(it)",
        "it.emit(b'x' * 9); left.flush(); it.end(); it.ended; it.take_emitted()",
    ),
    "connected": (
        "c = opened()",
        "c.connect(server.getsockname()); c.getpeername()",
    ),
    "refused": (
        "c = opened(); address = server.getsockname(); server.close()",
        "attempt(OSError, c.connect, address); c.error",
    ),
    "unix address": (
        "c = opened(socket.AF_UNIX)",
        "attempt(OSError, c.connect, '/nowhere'); c.getsockname()",
    ),
    "address of IPv6": (
        "c = opened(socket.AF_INET6)",
        "attempt(OSError, c.connect, ('::1', 1, 0, 0)); c.getsockname()",
    ),
    "accepted by waiting": (
        "t = spawn(server.accept)",
        "sleep(0); c = client(); t.get()[0].close()",
    ),
    "options": (
        "",
        "server.setsockopt(1, 9, bytes(4)); server.getsockopt(1, 9, 4)",
    ),
    "datagram": (
        "a, b = bound(), bound()",
        "a.sendto(b'x', b.getsockname()); b.recvfrom(9); a.sendto(b'y', 0, b.getsockname())",
    ),
    "datagram as a message": (
        "a, b = bound(), bound()",
        "a.sendmsg([b'x', b'y'], [], 0, b.getsockname()); b.recvmsg(9, 99)",
    ),
    "waited datagram": (
        "a, b = bound(), bound()",
        "t = spawn(b.recvfrom, 9); sleep(0); a.sendto(b'x', b.getsockname()); t.get()",
    ),
    "rights": (
        "",
        "left.sendmsg([b'x'], [rights()]); [take_rights(right) for n in range(1)]",
    ),
    "rates": (
        "left.set_rate_limit(limited())",
        "left.write(b'x' * 150); left.flush(); left.decrement_rate(1, 1); left.write_remaining",
    ),
    "read rates": (
        "right.set_rate_limit(limited()); left.write(b'x' * 150)",
        "right.read_exactly(150); right.read_remaining; right.rate_limit",
    ),
    "rates of a group": (
        "group = RateGroup(limited()); group.add(left); group.add(right)",
        "left.write(b'x' * 150); right.write(b'x' * 150); left.flush(); right.flush()",
    ),
    "rate group left": (
        "group = RateGroup(limited()); group.add(left)",
        "group.decrement(1, 1); group.set_limit(RateLimit()); group.remove(left); len(group)",
    ),
    "capped": (
        "left.set_single_limits(5, 5); right.set_single_limits(5, 5)",
        "left.write(b'x' * 20); right.read_exactly(20)",
    ),
    "disabled": (
        "right.disable(READ); t = spawn(right.recv, 9)",
        "left.write(b'x'); sleep(0.1); right.enable(READ); t.get()",
    ),
    "waiters": (
        "t = spawn(right.recv, 9); u = spawn(sleep, 5); sleep(0)",
        "get_hub().waiters(); get_hub().dump()",
    ),
    "enqueued and sent": (
        "",
        "left.enqueue([b'a', bytearray(9)], dealloc=print_nothing); left.flush()",
    ),
    "put in front": (
        "left.write(b'abc\\n')",
        "right.peek(2); right.prepend(b'x'); right.search(b'b'); right.take(1); right.take_line()",
    ),
    "until": (
        "left.write(b'ab;cd'); left.close()",
        "right.read_until(b';'); attempt(errors.IncompleteReadError, right.read_until, b';')",
    ),
    "layers": ("left.push_layer(TransportLayer())", "left.layers; left.tls"),
    "layer of TLS": ("", "attempt(AttributeError, left.start_tls, 5)"),
    "contents": ("t = spawn(int)", "get_hub()._contents()"),
    "members": ("g = TaskGroup(); g.__enter__().spawn(int)", "g._list_members()"),
    "credentials": (
        "right.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)",
        "left.sendmsg([b'x'], [rights()]); take_rights(right)",
    ),
    "large message": ("left.write(b'x')", "right.recvmsg(300_000)"),
    "held for a message": ("left.write(b'x\\ny'); right.readln()", "right.recvmsg(9)"),
    "exclusive": ("server.wait_input(0)", "server.exclusive = True"),
    "unconnected": ("c = opened()", "c.set_callbacks(Protocol())"),
    "wrong protocol": ("", "attempt(TypeError, left.set_callbacks, object())"),
    "priority queue shut down": ("q = PriorityQueue()", "q.shutdown()"),
    "pieces": ("left.push_layer(TransportLayer())", "left.enqueue([b'x'] * 99); left.flush()"),
    "end through a layer": (
        "right.push_layer(Flipping()); left.write(b'abc')",
        "left.close(); right.recv(9); right.recv(9)",
    ),
    "interrupt": ("sleep(0)", "attempt(KeyboardInterrupt, spawn(interrupt).join)"),
    "deadlock": ("", "attempt(errors.DeadlockError, Event().wait)"),
    "injected faults": (
        "left.write(b'x')",
        (
            "with faults({'write': ['ECONNRESET'], 'read': ['EAGAIN']}): "
            "attempt(OSError, left.write, b'y'); attempt(OSError, right.recv, 9)"
        ),
    ),
    "room": ("", "left._await_room(); sleep(0)"),
    "written too slowly": (
        "left.settimeout(0.1)",
        "attempt(TimeoutError, left.write, b'x' * 1_000_000)",
    ),
    "connected by callbacks": (
        "c = opened(); c.set_callbacks(Protocol())",
        "c.connect(server.getsockname()); sleep(0.1)",
    ),
    "any line by callbacks": (
        "right.set_callbacks(taker(lambda conn: conn.take_line(eol='any')))",
        "left.write(b'a\\r'); sleep(0.1)",
    ),
    "frame by callbacks": (
        "right.set_callbacks(taker(lambda conn: conn.take_frame('B')))",
        "left.write(b'\\x03a'); sleep(0.1)",
    ),
    "left by callbacks": (
        "right.set_callbacks(taker(print_nothing))",
        "left.write(b'a'); sleep(0.1); attempt(OSError, left.write, b'b'); sleep(0.1)",
    ),
    "put by hand": ("q = Queue()", "q._put(600)"),
    "off": (
        "right.set_callbacks(taker(lambda conn: conn.set_callbacks(None)))",
        "left.write(b'abc'); sleep(0.1)",
    ),
    "put back by callbacks": (
        "right.set_callbacks(taker(lambda conn: conn.prepend(b'x')))",
        "left.write(b'abc'); sleep(0.1)",
    ),
    "shut down output": (
        "",
        "left.write(b'x'); left.shutdown(1); right.read(9); left.mod(READ)",
    ),
    "taken over": ("fd = right.detach()", "right._attach(fd); left.write(b'x'); right.recv(1)"),
}
