"""What a program can leave in the hub when it ends: small programs and what they have to print.

They run as those of exit_places.py do, by test_exits.py.
"""

from __future__ import annotations

from typing import NamedTuple


class State(NamedTuple):
    """A program and how it ends."""

    program: str
    output: str = ""
    complaint: str = ""  # what the last line on standard error has; nothing: there is none
    status: int = 0


STATES = {
    # The hub.
    "hub that never turned": State("get_hub()"),
    "hub that turned once": State("sleep(0)"),
    "no hub": State("pass"),
    "hub closed": State("sleep(0); get_hub().close()"),
    "hub closed and another one made": State("get_hub().close(); sleep(0)"),
    "hub closed by atexit": State("sleep(0); atexit.register(get_hub().close)"),
    "hub made by atexit": State("atexit.register(lambda: (sleep(0), say('late')))", "late\n"),
    "hub made after the last one was closed at exit": State(
        """
last(lambda: (sleep(0), spawn(sleep, 60), sleep(0), say("late")))
spawn(sleep, 60)
sleep(0)
""",
        "late\n",
    ),
    "hub never closed": State(
        "atexit.unregister(pycoronet._close_at_exit); spawn(sleep, 60); sleep(0)"
    ),
    "hub never closed with everything at work": State(
        """
atexit.unregister(pycoronet._close_at_exit)
a, b = pair()
class Callbacks(Protocol):
    def on_close(self, conn): say("closed")
a.set_callbacks(Callbacks())
spawn(b.recv, 10)
get_hub().call_later(60, say, "timer")
get_hub().call_soon(say, "call")
read, write = os.pipe()
once(read, READ, print)
signal_handler(signal.SIGUSR1, print)
spawn(wait_readable, os.dup(read))
import asyncio
with move_on_after(0.001): await_(asyncio.sleep(60))
lock = Lock()
lock.acquire()
spawn(lock.acquire)
sleep(0)
""",
        "call\n",
    ),
    "hub in a reference cycle": State(
        "class It: pass\nit = It(); it.hub = get_hub(); it.it = it; spawn(sleep, 60); sleep(0)"
    ),
    "hub kept by the sys module": State("sys.kept = get_hub(); spawn(sleep, 60); sleep(0)"),
    "hub driven by hand": State(
        "spawn(sleep, 60); get_hub().wait(0); get_hub().dispatch(); get_hub().wait(0)"
    ),
    "hub stopped": State("get_hub().call_soon(get_hub().stop); get_hub().run()"),
    "hub paused": State("get_hub().loop_break(); get_hub().call_soon(say, 'call')"),
    "hook that waits": State(
        "get_hub().add_hook(prepare=lambda *_: sleep(1)); sleep(0.001)", complaint="RuntimeError"
    ),
    "stall watch": State("get_hub().set_stall_limit(60); sleep(0)"),
    "virtual time": State("get_hub(backend='fake'); spawn(sleep, 60); sleep(1)"),
    # Tasks.
    "task not begun": State("spawn(say, 'never'); kept = current()"),
    "task that waits": State(
        """
def work():
    try: sleep(60)
    finally: say("finally")
spawn(work)
sleep(0)
""",
        "finally\n",
    ),
    "task that waits in its finally block": State(
        """
def work():
    try: sleep(60)
    finally:
        with shield(): sleep(0.001); say("finally")
spawn(work)
sleep(0)
""",
        "finally\n",
    ),
    "task that begins others when it ends": State(
        """
def work(number):
    try: sleep(60)
    finally:
        say(number)
        if number: spawn(work, number - 1)
spawn(work, 3)
sleep(0)
""",
        "3\n",
    ),
    "a thousand tasks": State("for _ in range(1000): spawn(sleep, 60)\nsleep(0)"),
    "deep recursion": State(
        """
def down(depth):
    return down(depth - 1) if depth else sleep(60)
sys.setrecursionlimit(5000)
for _ in range(5): spawn(down, 700)
sleep(0)
"""
    ),
    "RecursionError": State(
        """
def down(): return down()
spawn(down)
sleep(0)
""",
        complaint="RecursionError",
    ),
    "MemoryError": State(
        "def work(): raise MemoryError\nspawn(work); sleep(0)", complaint="MemoryError"
    ),
    "generator suspended in a task": State(
        """
def numbers():
    try:
        while True: yield sleep(0)
    finally: say("generator")
def work():
    for _ in numbers(): sleep(60)
spawn(work)
sleep(0)
""",
        "generator\n",
    ),
    "generator that waits when it is dropped": State(
        """
def numbers():
    try: yield 1
    finally: sleep(0); say("dropped")
kept = numbers()
next(kept)
sleep(0)
""",
        complaint="RuntimeError",
    ),
    "asynchronous generator": State(
        """
async def numbers():
    try:
        while True: yield 1
    finally: say("generator")
kept = numbers()
async def main(): await kept.__anext__()
await_(main())
""",
        "generator\n",
    ),
    "greenlet of one's own": State(
        """
def nested():
    try: sleep(60)
    finally: say("nested")
spawn(lambda: greenlet.greenlet(nested).switch())
sleep(0)
""",
        "nested\n",
    ),
    "greenlet that nobody resumes": State(
        """
def nested(): greenlet.getcurrent().parent.switch()
kept = greenlet.greenlet(nested)
kept.switch()
sleep(0)
"""
    ),
    "group": State(
        """
def work():
    with TaskGroup() as group:
        for _ in range(3): group.spawn(sleep, 60)
spawn(work)
sleep(0)
"""
    ),
    "group never entered and one never left": State(
        "kept, other = TaskGroup(), TaskGroup(); other.__enter__(); other.spawn(sleep, 9); sleep(0)"
    ),
    "scope never left": State("kept = timeout(60); kept.__enter__(); sleep(0)"),
    "pool of tasks": State(
        "pool = Pool(2)\nfor _ in range(3): spawn(pool.spawn, sleep, 60)\nsleep(0)"
    ),
    "task's own data": State(
        """
class Dropped:
    def __del__(self): say("dropped")
kept = Local()
def work():
    kept.it = Dropped()
    sleep(60)
spawn(work)
sleep(0)
""",
        "dropped\n",
    ),
    "coroutine of conet": State(
        """
from pycoronet import conet
conet.conet_init()
kept = conet.co_create(sleep, 60)
conet.co_call(kept)
"""
    ),
    "coroutine of conet never entered": State(
        "from pycoronet import conet; conet.conet_init(); kept = conet.co_create(sleep, 60)"
    ),
    # Locks and queues.
    "lock held": State("lock = Lock(); lock.acquire(); spawn(lock.acquire); sleep(0)"),
    "lock held by a task": State(
        "lock = RLock(); spawn(lambda: (lock.acquire(), sleep(60))); sleep(0)\n"
        "spawn(lock.acquire); sleep(0)"
    ),
    "queue with getters": State("queue = Queue()\nfor _ in range(3): spawn(queue.get)\nsleep(0)"),
    "queue with putters": State(
        "queue = Queue(1)\nfor _ in range(3): spawn(queue.put, 1)\nsleep(0)"
    ),
    "queue with a promised item": State(
        "queue = Queue(); spawn(queue.get); sleep(0); queue.put(1)"
    ),
    "condition, barrier and semaphore": State(
        """
condition, barrier, semaphore = Condition(), Barrier(3), Semaphore(0)
def wait():
    with condition: condition.wait()
for function in (wait, barrier.wait, semaphore.acquire): spawn(function)
sleep(0)
""",
    ),
    "deadlock": State("sleep(None)", complaint="DeadlockError", status=1),
    # Connections.
    "connection open": State("kept = pair()"),
    "connection closed": State("for conn in pair(): conn.close()"),
    "connection that is read": State("a, b = pair(); spawn(a.recv, 10); sleep(0)"),
    "connection that is written": State(
        "a, b = pair(); spawn(a.write, b'x' * 10_000_000); sleep(0)"
    ),
    "output pending": State(
        """
a, b = socket.socketpair()
a = sk_conn(a)
a.enqueue(b"x" * 50_000)
a.close()
last(lambda: say(len(b.recv(100_000, socket.MSG_WAITALL))))
""",
        "50000\n",
    ),
    "output pending with linger": State(
        """
a, b = pair()
a.linger = 0.01
a.enqueue(b"x" * 10_000_000)
a.close()
"""
    ),
    "output buffered": State(
        """
a, b = socket.socketpair()
a = sk_conn(a)
a.buffered = True
a.write(b"late\\n")
last(lambda: say(b.recv(10).decode().strip()))
""",
        "late\n",
    ),
    "output with a function to call": State(
        """
a, b = pair()
a.linger = 0
a.enqueue(b"x" * 10_000_000, dealloc=lambda data: say("given back"))
a.close()
""",
        "given back\n",
    ),
    "file being sent": State(
        """
a, b = pair()
a.linger = 0
file = open(sys.executable, "rb")
spawn(a.sendfile, file)
sleep(0)
"""
    ),
    "listener": State("kept = listen(('127.0.0.1', 0)); spawn(kept.accept); sleep(0)"),
    "connect on its way": State(
        """
server = socket.create_server(("127.0.0.1", 0), backlog=0)
for _ in range(4): spawn(connect, server.getsockname())
sleep(0)
"""
    ),
    "callbacks": State(
        """
class Callbacks(Protocol):
    def on_close(self, conn): say("closed")
a, b = pair()
a.set_callbacks(Callbacks())
sleep(0)
""",
        "closed\n",
    ),
    "rate limit": State(
        """
a, b = pair()
a.linger = 0
a.set_rate_limit(RateLimit(write_rate=10))
spawn(a.write, b"x" * 1000)
sleep(0)
"""
    ),
    "layer": State(
        """
a, b = pair()
a.push_layer(TransportLayer())
spawn(a.recv, 10)
sleep(0)
"""
    ),
    "handshake of TLS": State(
        """
a, b = pair()
spawn(a.start_tls, client_ssl_context(), server_hostname="localhost")
sleep(0)
spawn(b.recv, 1)
sleep(0)
"""
    ),
    "datagrams": State(
        """
sock = socket.socket(type=socket.SOCK_DGRAM)
sock.bind(("127.0.0.1", 0))
kept = sk_conn(sock)
spawn(kept.recvfrom, 10)
sleep(0)
"""
    ),
    "connection kept by the sys module": State(
        "sys.kept = pair(); spawn(sys.kept[0].recv, 1); sleep(0)"
    ),
    "connection in a reference cycle": State(
        """
class Callbacks(Protocol): pass
def work():
    a, b = pair()
    callbacks = Callbacks()
    callbacks.conn = a
    a.set_callbacks(callbacks)
    callbacks.itself = callbacks
work()
"""
    ),
    "connection closed behind our back": State(
        "a, b = pair(); spawn(a.recv, 1); sleep(0); os.close(a.fileno())",
        complaint="Bad file descriptor",
    ),
    "every descriptor closed behind our back": State(
        """
a, b = pair()
spawn(a.recv, 1)
spawn(sleep, 60)
sleep(0)
os.closerange(3, 100)
""",
        complaint="Bad file descriptor",
    ),
    "no descriptor left": State(
        """
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))
try: sleep(0)
except OSError as error: say(error.errno == 24)
""",
        "True\n",
    ),
}
