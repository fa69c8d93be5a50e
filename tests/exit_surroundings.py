"""What a program can leave behind around the hub: finalizers, modules, signals, threads, processes.

They go on from exit_states.py.
"""

from __future__ import annotations

from exit_states import State

SURROUNDINGS = {
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
from contextlib import suppress
from pycoronet import from_thread
def work():
    with suppress(RuntimeError):  # it may still run when the hub is closed
        from_thread.run(hub, sleep, 60)
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
