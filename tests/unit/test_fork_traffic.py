"""fork() in the middle of traffic: the parent's goes on, and the child has a network of its own.

Connections are half-written, some in the middle of a TLS handshake; timers are armed, threads at
work. Each stream is a pattern, so a byte that is lost, doubled or sent by the child shows.
"""

from __future__ import annotations

from certificates import Certificates
from processes import lines_of

SETTING = """
import random, socket, warnings
warnings.filterwarnings("ignore", "This process .* is multi-threaded")
warnings.simplefilter("ignore", ResourceWarning)
signal.alarm(45)
parent = os.getpid()
TOTAL, STREAMS, TLS_STREAMS = 120_000, 16, 4
BLOCK = bytes(range(251)) * 400
authority, server_file = {files!r}
server_context = server_ssl_context(server_file)
client_context = client_ssl_context(authority)
moved = 0
ticks = []
dice = random.Random({seed})

def pattern(key, at, length):
    begin = (key * 37 + at) % 251
    return BLOCK[begin:begin + length]
def pair(kind=None):
    if kind is None:
        return tuple(map(sk_conn, socket.socketpair()))
    listener = listen(("127.0.0.1", 0))
    accepted = spawn(listener.accept)
    client = connect(listener.getsockname())
    server = accepted.get()[0]
    listener.close()
    return client, server

def write(conn, key):
    at = 0
    conn.buffered = bool(key % 3)
    while at < TOTAL:
        data = pattern(key, at, dice.randrange(1, 60_000))[:TOTAL - at]
        if key % 3 == 2:
            conn.enqueue(data)
            sleep(0)
        else:
            conn.write(data)
        at += len(data)
    conn.flush()
def read(conn, key):
    global moved
    at = 0
    while at < TOTAL:
        data = conn.recv(dice.randrange(1, 30_000))
        assert data == pattern(key, at, len(data)), (key, at, len(data))
        at += len(data)
        moved += len(data)
        if dice.random() < 0.2: sleep(0)
def shake_hands(client, server):
    other = spawn(server.start_tls, server_context, server_side=True)
    client.start_tls(client_context, server_hostname="localhost")
    other.get()
def stream(key, is_tls):
    # In both directions at once.
    a, b = pair("tcp" if is_tls else None)
    if is_tls: shake_hands(a, b)
    with TaskGroup() as group:
        for conn, other, number in ((a, b, 2 * key), (b, a, 2 * key + 1)):
            group.spawn(write, conn, number)
            group.spawn(read, other, number)
    a.close()
    b.close()

def be_a_child(end):
    # A network of its own, with nothing of the parent's in it.
    global moved
    signal.alarm(45)
    ticks.clear()
    moved = 0
    with TaskGroup() as group:
        group.spawn(stream, 1, False)
        group.spawn(stream, 2, True)
        assert to_thread(os.getpid) == os.getpid()
    assert moved == 4 * TOTAL
    get_hub().call_later(0, ticks.append, 1)
    sleep(0.001)
    assert ticks == [1], ticks
    end()
def fail(): raise LookupError
ENDS = {{
    "return": (lambda: None, 0),
    "sys.exit": (lambda: sys.exit(3), 3),
    "os._exit": (lambda: os._exit(4), 4),
    "failure": (fail, 1),
    "SIGTERM": (lambda: os.kill(os.getpid(), signal.SIGTERM), -15),
}}
statuses = {{}}
def buffer_something():
    a, b = pair()
    a.buffered = True
    a.write(b"once")
    return a, b
def note_end(name, pid, ends):
    statuses[name] = os.waitstatus_to_exitcode(to_thread(os.waitpid, pid, 0)[1])
    # What was to be sent when the child was made came from the parent alone.
    a, b = ends
    a.close()
    assert b"".join(iter(lambda: b.recv(100), b"")) == b"once"
def quietly(function, *args):
    # A child that fails reports it: for once that is expected.
    sys.unraisablehook = sys.excepthook = lambda *_: None
    function(*args)

# Imports what it needs: a child that a thread forks waits for ever for a module that another
# thread was just importing.
stream(0, True)
moved = 0
get_hub().call_every(0.001, lambda: ticks.append(1) if os.getpid() == parent else os._exit(99))
spawn(to_thread, threading.Event().wait, 0.5)
traffic = [spawn(stream, key, key < TLS_STREAMS) for key in range(STREAMS)]
whole = 2 * STREAMS * TOTAL
waiters = []
"""

FINISH = """
for task in traffic: task.get()
for waiter in waiters: waiter.get()
assert moved == whole, moved
assert statuses == {name: status for name, (_, status) in ENDS.items()}, statuses
assert ticks
say("done in the", "parent" if os.getpid() == parent else "child")
"""


def run(program: str, certificates: Certificates, seed: int = 1) -> None:
    files = (str(certificates.authority), str(certificates.server))
    setting = SETTING.format(files=files, seed=seed)
    assert lines_of(setting + program + FINISH) == ["done in the parent"]


def test_forks_of_coroutines(certificates: Certificates) -> None:
    run(
        """
def fork(number, name, end):
    while moved < whole * (number + 1) // 8: sleep(0)
    # Somebody is in the middle of a handshake as well.
    a, b = pair("tcp")
    handshake = spawn(shake_hands, a, b)
    for _ in range(number): sleep(0)
    ends = buffer_something()
    pid = os.fork()
    if pid == 0:
        quietly(be_a_child, end)
        return
    waiters.append(spawn(note_end, name, pid, ends))
    handshake.get()
for number, (name, (end, _)) in enumerate(ENDS.items()):
    waiters.append(spawn(fork, number, name, end))
""",
        certificates,
    )


def test_forks_of_callbacks(certificates: Certificates) -> None:
    run(
        """
child = None
def fork(name, end):
    global child
    ends = buffer_something()
    pid = os.fork()
    if pid == 0:
        child = end
    else:
        waiters.append(spawn(note_end, name, pid, ends))
for number, (name, (end, _)) in enumerate(ENDS.items()):
    while moved < whole * (number + 1) // 8 and child is None: sleep(0)
    if child: break
    get_hub().call_soon(fork, name, end)
    sleep(0.001)
    if child: break
if child:
    quietly(be_a_child, child)
    sys.exit(0)
""",
        certificates,
        seed=2,
    )


def test_forks_of_the_main_program_and_of_a_thread(certificates: Certificates) -> None:
    run(
        """
def fork_in_a_thread(name, end):
    pid = os.fork()
    if pid == 0:
        try:
            quietly(be_a_child, end)
        except SystemExit as exit:
            os._exit(exit.code)
        except LookupError:
            os._exit(1)
        os._exit(0)
    return pid
for number, (name, (end, _)) in enumerate(ENDS.items()):
    while moved < whole * (number + 1) // 8: sleep(0)
    ends = buffer_something()
    if number % 2:
        pid = to_thread(fork_in_a_thread, name, end)
    else:
        pid = os.fork()
        if pid == 0:
            quietly(be_a_child, end)
            sys.exit(0)
    waiters.append(spawn(note_end, name, pid, ends))
""",
        certificates,
        seed=3,
    )
