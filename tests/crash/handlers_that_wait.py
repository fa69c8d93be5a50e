"""Signal handlers that wait in the middle of everything, thousands of them."""

import os
import signal

import pycoronet

count = 0


def handle(number, frame):
    global count
    count += 1
    try:
        pycoronet.sleep(0)
        task = pycoronet.spawn(int)
        with pycoronet.timeout(1):
            task.join()
    except (RuntimeError, pycoronet.Cancelled):
        pass


signal.signal(signal.SIGALRM, handle)
signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)


def work():
    for _ in range(50):
        pycoronet.sleep(0)
        try:
            with pycoronet.timeout(0.0001):
                pycoronet.sleep(10)
        except TimeoutError:
            pass


for _ in range(20):
    tasks = [pycoronet.spawn(work) for _ in range(5)]
    pycoronet.sleep(0.0005)
    for task in tasks[::2]:
        task.cancel()
    for task in tasks:
        task.join()
signal.setitimer(signal.ITIMER_REAL, 0)
assert count > 10, count
os.write(1, b"done\n")
