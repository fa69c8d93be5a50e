"""The processes of a benchmark: a server on one core, its load on another.

What is measured is the server's processor time, read from the kernel before and after a
round. The load generator holds its connections open from round to round, so that neither
starting up nor connecting is part of the figure.
"""

import contextlib
import json
import os
import pathlib
import re
import resource
import signal
import socket
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).parent
BUILD = HERE / "build"
START_PATIENCE_SECONDS = 60
# What servers complain of goes there: of clients, mostly, that leave without a word.
COMPLAINTS = BUILD / "complaints.txt"
# How long a server needs, once the last reply is out, to be back in its wait.
SETTLE_SECONDS = 0.005


def choose_cores():
    """Return (server's core, load's core), or (None, None) with fewer than two cores."""
    if not hasattr(os, "sched_getaffinity"):
        return None, None
    cores = sorted(os.sched_getaffinity(0))
    return (cores[0], cores[1]) if len(cores) > 1 else (None, None)


SERVER_CORE, LOAD_CORE = choose_cores()


def start_process(command, core, **options):
    """Start `command` on `core`, or anywhere if that is None."""

    def pin():
        if core is not None:
            os.sched_setaffinity(0, {core})

    command = [str(word) for word in command]
    return subprocess.Popen(command, preexec_fn=pin, text=True, **options)


def run_program(*words):
    """Return what a program prints that runs on the servers' core."""
    with start_process(words, SERVER_CORE, stdout=subprocess.PIPE) as process:
        output = process.communicate()[0]
    if process.returncode != 0:
        raise RuntimeError(f"it failed: {process.args}")
    return output


def raise_file_limit():
    """Take all the file descriptors the system grants; return how many."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def find_free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def read_stat(pid):
    """Return the fields of /proc/PID/stat behind the command's name, which may hold spaces."""
    return pathlib.Path("/proc", str(pid), "stat").read_text().rpartition(")")[2].split()


def read_cpu_seconds(pid):
    try:
        # Nanoseconds, where /proc/PID/stat counts in ticks of 10 ms.
        files = [task / "schedstat" for task in pathlib.Path("/proc", str(pid), "task").iterdir()]
        return sum(int(file.read_text().split()[0]) for file in files) / 1e9
    except FileNotFoundError:
        fields = read_stat(pid)
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def find_children(pid):
    """Return the numbers of the processes that a process has forked."""
    children = []
    for entry in pathlib.Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and read_stat(entry.name)[1] == str(pid):
                children.append(int(entry.name))
    return children


class Server:
    """A server process; `make_command(port)` gives its command line."""

    def __init__(self, make_command, core=SERVER_CORE):
        self.port = find_free_port()
        with COMPLAINTS.open("a") as complaints:
            self.process = start_process(
                make_command(self.port), core, stdout=subprocess.PIPE, stderr=complaints
            )
        try:
            self._wait_until_listening()
        except BaseException:
            self.stop()
            raise

    def _wait_until_listening(self):
        give_up = time.monotonic() + START_PATIENCE_SECONDS
        while self.process.poll() is None and time.monotonic() < give_up:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                time.sleep(0.02)
        raise RuntimeError(f"it did not come up: {self.process.args}; see {COMPLAINTS}")

    def read_cpu_seconds(self):
        """Return the processor time, user and system, of all its threads so far."""
        time.sleep(SETTLE_SECONDS)
        return read_cpu_seconds(self.process.pid)

    def read_resident_bytes(self):
        status = pathlib.Path("/proc", str(self.process.pid), "status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) * 1024

    def read_switch_count(self):
        """Ask pycoronet_server.py how often its hub has switched greenlets."""
        self.process.send_signal(signal.SIGUSR1)
        return int(self.process.stdout.readline())

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(START_PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()


class WorkerServer(Server):
    """A server that forks workers; its processor time is that of all of them."""

    def __init__(self, make_command, worker_count):
        super().__init__(make_command)
        give_up = time.monotonic() + START_PATIENCE_SECONDS
        while len(find_children(self.process.pid)) < worker_count:
            if time.monotonic() > give_up:
                self.stop()
                raise RuntimeError(f"the workers did not come up: {self.process.args}")
            time.sleep(0.02)
        self.workers = find_children(self.process.pid)

    def read_cpu_seconds(self):
        return super().read_cpu_seconds() + sum(self.read_worker_cpu_seconds())

    def read_worker_cpu_seconds(self):
        return [read_cpu_seconds(pid) for pid in self.workers]


class Load:
    """The C load generator, its connections open; see c/load.c for its options."""

    program = "load"

    def __init__(self, port, *options):
        # Without a core of its own it must not spin while the server wants to work.
        if self.program != "file_load" and LOAD_CORE is None:
            options += ("--sleep",)
        self._start([BUILD / self.program, port, *options])

    def _start(self, command):
        self.process = start_process(
            command,
            LOAD_CORE,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._read_answer()

    def _read_answer(self):
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"the load generator failed; see also {COMPLAINTS}")
        return json.loads(line)

    def run(self, command):
        """Run one round, "seconds S" or "requests N"; return its requests and seconds."""
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        return self._read_answer()

    def stop(self):
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


class ConnectLoad(Load):
    """The program that sends one line a connection."""

    program = "connect_load"


class FileLoad(Load):
    """The program that fetches a file and throws it away; any command is one transfer."""

    program = "file_load"


class TlsLoad(Load):
    """The same over TLS, in Python; see python/tls_load.py for its options."""

    def __init__(self, port, *options):
        self._start([sys.executable, HERE / "python" / "tls_load.py", port, *options])


class HttpLoad:
    """The same with wrk, which opens its connections anew in each round."""

    def __init__(self, port, path, connections=64):
        self.url = f"http://127.0.0.1:{port}{path}"
        self.connections = connections

    def run(self, command):
        # wrk takes whole seconds.
        seconds = max(1, round(float(command.split()[1])))
        words = ["wrk", "-t1", f"-c{self.connections}", f"-d{seconds}s", self.url]
        wrk = start_process(words, LOAD_CORE, stdout=subprocess.PIPE)
        text = wrk.communicate()[0]
        found = re.search(r"(\d+) requests in ([\d.]+)(ms|s|m),", text)
        if not found or "Non-2xx" in text or "Socket errors" in text:
            raise RuntimeError(f"wrk met errors at {self.url}:\n{text}")
        unit = {"ms": 0.001, "s": 1, "m": 60}[found[3]]
        return {"requests": int(found[1]), "seconds": float(found[2]) * unit}

    def stop(self):
        pass
