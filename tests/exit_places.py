"""Where a program can be when it ends: small programs, each of which calls leave() somewhere.

leave() is what test_exits.py makes of it: sys.exit(), an exception, a signal and so on. What comes
of the place is one of the fates below. The main program then waits for a minute of virtual time,
which is over at once.
"""

from __future__ import annotations

from typing import NamedTuple

# What raising an exception leads to, in a place.
MAIN = "it reaches the main program"
ENDING = "what ends programs reaches the main program, an Exception is reported"
REPORTED = "it is reported; an interrupt reaches the main program"
AT_EXIT = "it is reported, for the program is at its end anyhow"


class Place(NamedTuple):
    """A program, and what comes of an exception in it."""

    fate: str
    program: str


PLACES = {
    "main program": Place(MAIN, "leave()"),
    "nested greenlet": Place(
        MAIN, "import greenlet; sleep(0); greenlet.greenlet(lambda: leave()).switch()"
    ),
    "joined coroutine": Place(MAIN, "spawn(leave).get()"),
    "coroutine": Place(ENDING, "spawn(leave); sleep(60)"),
    "coroutine that nobody waits for": Place(ENDING, "spawn(leave); sleep(0)"),
    "coroutine with its worker used before": Place(
        ENDING, "spawn(int).join(); spawn(leave); sleep(60)"
    ),
    "deep in a coroutine": Place(
        ENDING,
        """
def down(depth):
    sleep(0)
    return down(depth - 1) if depth else leave()
spawn(down, 200)
sleep(60)
""",
    ),
    "greenlet nested in a coroutine": Place(
        ENDING,
        """
import greenlet
spawn(lambda: greenlet.greenlet(lambda: (sleep(0), leave())).switch())
sleep(60)
""",
    ),
    "finally of a cancelled coroutine": Place(
        ENDING,
        """
def work():
    try: sleep(60)
    finally: leave()
task = spawn(work)
sleep(0)
task.cancel()
sleep(60)
""",
    ),
    "finally block at exit": Place(
        AT_EXIT,
        """
def work():
    try: sleep(60)
    finally: leave()
spawn(work)
sleep(0)
""",
    ),
    "callback": Place(ENDING, "get_hub().call_soon(leave); sleep(60)"),
    "callback left behind at exit": Place(AT_EXIT, "sleep(0); get_hub().call_soon(leave)"),
    "call from a thread": Place(
        ENDING,
        "hub = get_hub(); to_thread(hub.call_soon_threadsafe, leave); sleep(60)",
    ),
    "timer": Place(ENDING, "get_hub().call_later(1, leave); sleep(60)"),
    "repeated timer": Place(
        ENDING,
        """
calls = []
def call():
    calls.append(1)
    if len(calls) == 3: leave()
get_hub().call_every(1, call)
sleep(60)
""",
    ),
    "signal's handler": Place(
        MAIN,
        """
signal.signal(signal.SIGUSR1, lambda *_: leave())
spawn(sleep, 60)
sleep(0)
os.kill(os.getpid(), signal.SIGUSR1)
sleep(60)
""",
    ),
    "signal's callback": Place(
        ENDING,
        """
handle = signal_handler(signal.SIGUSR1, lambda number: leave())
os.kill(os.getpid(), signal.SIGUSR1)
sleep(60)
""",
    ),
    "link": Place(ENDING, "spawn(int).link(lambda task: leave()); sleep(60)"),
    "function called when a descriptor is ready": Place(
        ENDING, "read, write = os.pipe(); once(write, WRITE, lambda _: leave()); sleep(60)"
    ),
    "hook": Place(
        ENDING,
        """
calls = []
def call(*_):
    calls.append(1)
    if len(calls) == 2: leave()
get_hub().add_hook(prepare=call)
sleep(60)
""",
    ),
    "on_data": Place(
        ENDING,
        """
class Callbacks(Protocol):
    def on_data(self, conn): leave()
a, b = pair()
a.set_callbacks(Callbacks())
b.write(b"data")
sleep(60)
""",
    ),
    "on_close": Place(
        ENDING,
        """
class Callbacks(Protocol):
    def on_close(self, conn): leave()
a, b = pair()
a.set_callbacks(Callbacks())
a.close()
sleep(60)
""",
    ),
    "on_close at exit": Place(
        AT_EXIT,
        """
class Callbacks(Protocol):
    def on_close(self, conn): leave()
a, b = pair()
a.set_callbacks(Callbacks())
sleep(0)
""",
    ),
    "layer": Place(
        ENDING,
        """
class Layer(TransportLayer):
    def unwrap(self, data): leave()
def work():
    a.push_layer(Layer())
    a.recv(10)
a, b = pair()
spawn(work)
sleep(0)
b.write(b"data")
sleep(60)
""",
    ),
    "function called when data has been sent": Place(
        ENDING,
        """
a, b = pair()
a.enqueue(b"data", dealloc=lambda _: leave())
sleep(60)
""",
    ),
    "member of a group": Place(
        MAIN,
        """
def enter():
    with TaskGroup() as group:
        group.spawn(leave)
        group.spawn(sleep, 60)
        sleep(60)
enter()
""",
    ),
    "body of a group": Place(
        MAIN,
        """
with TaskGroup() as group:
    group.spawn(sleep, 60)
    sleep(0)
    leave()
""",
    ),
    "holder of a lock": Place(
        ENDING,
        """
lock = Lock()
def hold():
    with lock: sleep(1); leave()
spawn(hold)
for _ in range(3): spawn(hold)
sleep(60)
""",
    ),
    "holder of a lock that it never gives back": Place(
        ENDING,
        """
lock = Lock()
spawn(lambda: (lock.acquire(), sleep(1), leave()))
spawn(lock.acquire)
sleep(60)
""",
    ),
    "consumer of a queue": Place(
        ENDING,
        """
queue = Queue()
for _ in range(2): spawn(lambda: (queue.get(), leave()))
sleep(0)
queue.put(1)
sleep(60)
""",
    ),
    "suspended generator": Place(
        ENDING,
        """
def numbers():
    try:
        while True: sleep(0); yield 1
    finally: sleep(0)
def work():
    for _ in numbers():
        leave()
        break
spawn(work)
sleep(60)
""",
    ),
    "server's worker": Place(
        ENDING,
        """
server = Server(("127.0.0.1", 0), lambda conn, address: leave())
server.start()
peer = connect(server.addresses[0])
sleep(60)
""",
    ),
    "step of an asyncio guest": Place(
        ENDING,
        """
from pycoronet import aio
aio.get_loop().call_soon(leave)
sleep(60)
""",
    ),
    "asyncio task": Place(
        MAIN,
        """
import asyncio
async def main():
    await asyncio.sleep(1)
    leave()
await_(main())
""",
    ),
    "call in a thread": Place(MAIN, "to_thread(leave)"),
    "finalizer": Place(
        REPORTED,
        """
class Dropped:
    def __del__(self): leave()
def work():
    it = Dropped()
    sleep(1)
spawn(work)
sleep(60)
""",
    ),
    "collection": Place(
        REPORTED,
        """
import gc
class Dropped:
    def __init__(self): self.itself = self
    def __del__(self): leave()
Dropped()
spawn(gc.collect)
sleep(60)
""",
    ),
    "function of atexit": Place(AT_EXIT, "sleep(0); atexit.register(leave)"),
    "import": Place(
        MAIN,
        """
import importlib.util
class Loader:
    def create_module(self, spec): return None
    def exec_module(self, module):
        spawn(sleep, 60)
        sleep(0)
        leave()
spec = importlib.util.spec_from_loader("leaving", Loader())
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
""",
    ),
    "dispatch by hand": Place(
        ENDING,
        """
spawn(leave)
get_hub().wait(1)
get_hub().dispatch()
sleep(60)
""",
    ),
    "Hub.run": Place(ENDING, "get_hub().call_later(1, leave); get_hub().run()"),
}
