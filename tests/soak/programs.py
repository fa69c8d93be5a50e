"""The processes of a soak: each has a file limit of its own, and is ended with its block.

A program tells what it does by a line of JSON a second; it is told what to do by lines, and
ends when there are no more. So none survives the one that has started it.
"""

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

HERE = pathlib.Path(__file__).parent
END_PATIENCE_SECONDS = 20


class Program:
    """A program of this folder, started as a process."""

    def __init__(self, name, core=None, **settings):
        self.report = {}
        self._news = threading.Condition()
        self._is_over = False
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / name), json.dumps(settings)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for who has started it, who then ends it
        )
        self.pid = self._process.pid
        if core is not None:
            os.sched_setaffinity(self.pid, {core})
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        for line in self._process.stdout:
            with self._news:
                self.report.update(json.loads(line))
                self._news.notify_all()
        with self._news:
            self._is_over = True
            self._news.notify_all()

    def tell(self, word):
        """Give the program a word of what to do."""
        self._process.stdin.write(word.encode() + b"\n")
        self._process.stdin.flush()

    def wait_for(self, key, timeout, value=None):
        """Wait until the program has told a thing, or that it is value; return it.

        Raises RuntimeError if the program ends before that, or after timeout seconds.
        """

        def is_told():
            told = self.report.get(key)
            return told is not None and value in (None, told)

        with self._news:
            self._news.wait_for(lambda: self._is_over or is_told(), timeout)
            if not is_told():
                how = "has ended" if self._is_over else f"took more than {timeout:.0f} seconds"
                raise RuntimeError(f"{self._process.args[1]} {how} without {key}")
            return self.report[key]

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(END_PATIENCE_SECONDS if exception[0] is None else 0.5)
        except subprocess.TimeoutExpired:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
        self._reader.join()
        self._process.stdout.close()


def read_settings():
    """Return the settings of the program that runs, as an object with attributes."""
    return SimpleNamespace(**json.loads(sys.argv[1]))


def say(**report):
    """Tell who has started this program; end it if that one is gone."""
    try:
        os.write(1, json.dumps(report).encode() + b"\n")
    except BrokenPipeError:
        os._exit(1)


def read_orders():
    """Return each word that this program is told, as it comes; for a task of its own."""
    from pycoronet import wait_readable

    rest = b""
    while True:
        wait_readable(0)
        data = os.read(0, 4096)
        if not data:
            return
        *words, rest = (rest + data).split(b"\n")
        for word in words:
            yield word.decode()


class Progress:
    """Says how far a long run is: a line each ten seconds."""

    def __init__(self, part):
        self._part = part
        self._began = self._next = time.monotonic()

    def show(self, text):
        """Print a line, if it is time for one."""
        now = time.monotonic()
        if now >= self._next:
            self._next += 10
            print(f"{self._part} {now - self._began:4.0f} s: {text}", flush=True)
