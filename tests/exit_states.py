"""What a program can leave behind when it ends: small programs and what they have to print.

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
    # Finalizers that use the hub when it has gone.
    "finalizer that waits": State(
        """
class Dropped:
    def __del__(self): sleep(0); say("waited")
kept = Dropped()
sleep(0)
""",
        complaint="RuntimeError",
    ),
    "finalizer that waits at the very end": State(
        """
class Dropped:
    def __init__(self): self.sleep, self.spawn, self.hub = sleep, spawn, get_hub()
    def __del__(self):
        for function in (lambda: self.sleep(0), lambda: self.spawn(int), self.hub.close,
                         lambda: self.hub.call_soon(int), lambda: self.hub.waiters()):
            try: function()
            except RuntimeError: pass
sys.kept = Dropped()
sleep(0)
"""
    ),
    "finalizer that uses a connection": State(
        """
class Dropped:
    def __init__(self): self.ends = pair()
    def __del__(self):
        a, b = self.ends
        for function in (lambda: a.write(b"x"), lambda: b.recv(1), a.close, a.abort, b.abort):
            try: function()
            except (RuntimeError, OSError): pass
sys.kept = Dropped()
sleep(0)
"""
    ),
    "finalizer in a task that is never resumed": State(
        """
class Dropped:
    def __del__(self): say("dropped")
def work():
    it = Dropped()
    sleep(60)
spawn(work)
sleep(0)
""",
        "dropped\n",
    ),
    "weak reference's callback that waits": State(
        """
def work():
    task = current()
    sleep(60)
kept = weakref.ref(spawn(work), lambda _: sleep(0))
sleep(0)
""",
        complaint="RuntimeError",
    ),
    # Modules and the collector.
    "module deleted": State(
        """
spawn(sleep, 60)
sleep(0)
for name in list(sys.modules):
    if name.startswith("pycoronet"): del sys.modules[name]
"""
    ),
    "everything in the module deleted": State(
        """
spawn(sleep, 60)
sleep(0)
for module in (pycoronet, pycoronet._coronet, pycoronet._waits, pycoronet._inspection):
    for name in list(vars(module)):
        if not name.startswith("__"): delattr(module, name)
""",
        complaint="NameError",
    ),
    "every module deleted": State("spawn(sleep, 60); sleep(0); sys.modules.clear()"),
    "modules set to None": State(
        """
spawn(sleep, 60)
sleep(0)
for name in ("threading", "signal", "_signal", "pycoronet._inspection", "greenlet"):
    sys.modules[name] = None
""",
        complaint="Exception ignored",
    ),
    "collector off": State("gc.disable(); kept = pair(); spawn(kept[0].recv, 1); sleep(0)"),
    "collector in every step": State(
        """
gc.set_threshold(1)
a, b = pair()
spawn(a.recv, 1)
for _ in range(10): spawn(sleep, 60)
sleep(0)
"""
    ),
    "collection that the end interrupts": State(
        """
class Dropped:
    def __init__(self): self.itself = self
    def __del__(self): os._exit(9)
Dropped()
spawn(gc.collect)
sleep(0)
""",
        status=9,
    ),
    "objects frozen": State("gc.freeze(); spawn(sleep, 60); sleep(0); gc.freeze()"),
    "faulthandler": State("faulthandler.enable(); faulthandler.dump_traceback_later(60); sleep(0)"),
    "tracing": State(
        "sys.settrace(lambda *_: None); sys.setprofile(lambda *_: None); spawn(sleep, 60); sleep(0)"
    ),
    # Streams.
    "standard streams closed": State(
        """
for stream in (sys.stdin, sys.stdout, sys.stderr): stream.close()
spawn(lambda: 1 / 0)
sleep(0)
"""
    ),
    "standard streams None": State(
        "sys.stdout = sys.stderr = None; get_hub().call_soon(int, 'x'); spawn(int, 'x'); sleep(0)"
    ),
    "report that fails": State(
        """
def report(_): raise LookupError("reporting")
sys.unraisablehook = report
spawn(lambda: 1 / 0)
sleep(0)
""",
        complaint="LookupError: reporting",
    ),
    "report that waits": State(
        """
sys.unraisablehook = lambda report: sleep(1)
get_hub().call_soon(lambda: 1 / 0)
sleep(0)
""",
        complaint="RuntimeError",
    ),
    # Signals.
    "handler left": State("signal_handler(signal.SIGUSR1, print); sleep(0)"),
    "signal at the last moment": State(
        """
signal_handler(signal.SIGUSR1, lambda number: say("handled"))
sleep(0)
os.kill(os.getpid(), signal.SIGUSR1)
"""
    ),
    "signal after the end": State(
        """
sleep(0)
last(lambda: signal.raise_signal(signal.SIGUSR1))
signal.signal(signal.SIGUSR1, lambda *_: say("handled"))
""",
        "handled\n",
    ),
    "two interrupts": State(
        """
def work():
    signal.raise_signal(signal.SIGINT)
    signal.raise_signal(signal.SIGINT)
spawn(work)
sleep(60)
""",
        complaint="KeyboardInterrupt",
        status=-2,
    ),
    "interrupt while the hub closes": State(
        """
def work():
    try: sleep(60)
    finally: signal.raise_signal(signal.SIGINT); say("finally")
spawn(work)
sleep(0)
""",
        "finally\n",
        complaint="KeyboardInterrupt",
    ),
    # Threads.
    "thread that has ended": State("t = threading.Thread(target=sleep); t.start(); t.join()"),
    "thread that ends with tasks": State(
        """
def work(): spawn(sleep, 60); sleep(0)
t = threading.Thread(target=work)
t.start()
t.join()
"""
    ),
    "thread that runs on": State(
        """
def work(): begun.set(); spawn(sleep, 0.01).join(); say("thread")
begun = threading.Event()
threading.Thread(target=work).start()
begun.wait()
""",
        "thread\n",
    ),
    "thread that waits for events": State(
        """
def work(): spawn(sleep, 60); begun.set(); sleep(60)
begun = threading.Event()
threading.Thread(target=work, daemon=True).start()
begun.wait()
sleep(0)
"""
    ),
    "thread that is busy": State(
        """
def work():
    begun.set()
    while True: sleep(0)
begun = threading.Event()
threading.Thread(target=work, daemon=True).start()
begun.wait()
"""
    ),
    "threads that ping one another": State(
        """
def work(hub, queue):
    while True:
        hub.call_soon_threadsafe(int)
        queue.get()
queue = Queue()
for _ in range(3): threading.Thread(target=work, args=(get_hub(), queue), daemon=True).start()
for _ in range(30): queue.put(1); sleep(0)
"""
    ),
    "thread that waits for a lock": State(
        """
lock = Lock()
lock.acquire()
begun = threading.Event()
threading.Thread(target=lambda: (begun.set(), lock.acquire()), daemon=True).start()
begun.wait()
"""
    ),
    "thread in a call into the hub": State(
        """
def work(): from_thread.run(hub, sleep, 60)
from pycoronet import from_thread
hub = get_hub()
threading.Thread(target=work, daemon=True).start()
while hub.task_count == 0: sleep(0)
"""
    ),
    "thread that exits": State(
        "t = threading.Thread(target=sys.exit, args=(5,)); t.start(); t.join(); sleep(0)"
    ),
    "thread that ends the process": State(
        """
def work():
    sleep(0)
    os._exit(6)
threading.Thread(target=work).start()
sleep(60)
""",
        status=6,
    ),
    "task of a thread that exits": State(
        """
def work():
    spawn(sys.exit, 5)
    sleep(60)
t = threading.Thread(target=work)
t.start()
t.join()
"""
    ),
    "task of a thread that raises": State(
        """
def work():
    spawn(lambda: 1 / 0)
    sleep(0)
t = threading.Thread(target=work)
t.start()
t.join()
""",
        complaint="ZeroDivisionError",
    ),
    "call in a thread": State(
        """
def work(): begun.set(); threading.Event().wait()
begun = threading.Event()
spawn(to_thread, work)
while not begun.is_set(): sleep(0)
"""
    ),
    "call in a thread that ends the process": State("to_thread(os._exit, 7)", status=7),
    "calls that wait for a thread": State(
        """
set_thread_limits(calls=1)
event = threading.Event()
for _ in range(5): spawn(to_thread, event.wait)
sleep(0)
"""
    ),
    "name being looked up": State("spawn(getaddrinfo, 'localhost', 80); sleep(0)"),
    "thread made by a thread's hub at exit": State(
        """
def late():
    t = threading.Thread(target=lambda: (sleep(0), say("thread")))
    t.start()
    t.join()
atexit.register(late)
sleep(0)
""",
        "thread\n",
    ),
    # Servers, asyncio, processes.
    "server": State(
        """
server = Server(("127.0.0.1", 0), lambda conn, address: conn.recv(1))
server.start()
peer = connect(server.addresses[0])
sleep(0.001)
"""
    ),
    "server with threads": State(
        """
def handle(conn, address): begun.set(); conn.recv(1)
begun = Event()
server = Server(("127.0.0.1", 0), handle, strategy="threadpool", poolsize_min=1)
server.start()
peer = connect(server.addresses[0])
begun.wait()
"""
    ),
    "server of callbacks": State(
        """
class Callbacks(Protocol):
    def on_data(self, conn): pass
server = Server(("127.0.0.1", 0), Callbacks, strategy="callback")
server.start()
peer = connect(server.addresses[0])
sleep(0.001)
"""
    ),
    "asyncio loop": State(
        "from pycoronet import aio; aio.get_loop().call_later(60, print); sleep(0)"
    ),
    "asyncio task": State(
        """
import asyncio
async def work():
    try: await asyncio.sleep(60)
    finally: say("finally")
async def begin(): kept.append(asyncio.ensure_future(work())); await asyncio.sleep(0)
kept = []
await_(begin())
""",
        "finally\n",
    ),
    "asyncio's own loop besides": State(
        "import asyncio; spawn(sleep, 60); sleep(0); asyncio.run(asyncio.sleep(0)); "
        "kept = asyncio.new_event_loop()"
    ),
    "process of one's own": State(
        """
from pycoronet import subprocess
kept = subprocess.Popen([sys.executable, "-c", "pass"])
spawn(kept.wait)
sleep(0)
""",
    ),
    # Forks.
    "child of the main program": State(
        """
spawn(sleep, 60)
sleep(0)
pid = os.fork()
if pid: say(os.waitpid(pid, 0)[1])
""",
        "0\n",
    ),
    "child of a coroutine": State(
        """
def work():
    pid = os.fork()
    if pid: say(os.waitpid(pid, 0)[1])
spawn(work).join()
""",
        "0\n",
    ),
    "child of a callback": State(
        """
def call():
    global pid
    pid = os.fork()
    if pid == 0: raise SystemExit(3)
get_hub().call_soon(call)
sleep(0.001)
say(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
""",
        "3\n",
    ),
    "child of a thread": State(
        """
def work():
    sleep(0)
    pid = os.fork()
    if pid == 0: sleep(0); os._exit(0)
    say(os.waitpid(pid, 0)[1])
spawn(sleep, 60)
sleep(0)
t = threading.Thread(target=work)
t.start()
t.join()
""",
        "0\n",
    ),
    "grandchild": State(
        """
def work(depth):
    if depth == 0: say("last"); return
    pid = os.fork()
    if pid == 0: spawn(work, depth - 1).join(); return
    os.waitpid(pid, 0)
spawn(work, 3).join()
""",
        "last\n",
    ),
    "another program": State(
        "spawn(sleep, 60); sleep(0); os.execv(sys.executable, [sys.executable, '-c', 'pass'])"
    ),
    "abort": State(
        "import resource\nresource.setrlimit(resource.RLIMIT_CORE, (0, 0))\n"
        "faulthandler.disable(); spawn(os.abort); sleep(0)",
        status=-6,
    ),
    "exit functions run twice": State("sleep(0); spawn(sleep, 60); atexit._run_exitfuncs()"),
    "exit in the middle of an exit": State(
        """
def work():
    try: sys.exit(3)
    finally: sys.exit(4)
spawn(work)
sleep(60)
""",
        status=4,
    ),
}
