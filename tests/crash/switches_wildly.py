"""Random raw switches and throws among greenlets that wait in the hub."""

import os
import random
import sys

import greenlet

import pycoronet

sys.unraisablehook = lambda report: None
pycoronet.get_hub().close()
pycoronet.get_hub(backend="fake")
random.seed(7)
known = []


def wait_somehow():
    choice = random.randrange(5)
    if choice == 0:
        pycoronet.sleep(random.random())
    elif choice == 1:
        pycoronet.sleep(0)
    elif choice == 2:
        with pycoronet.timeout(0.1):
            pycoronet.sleep(random.random())
    elif choice == 3:
        pycoronet.spawn(pycoronet.sleep, 0.1).join(0.2)
    else:
        greenlet.greenlet(lambda: pycoronet.sleep(random.random())).switch()


def work():
    known.append(greenlet.getcurrent())
    for _ in range(6):
        try:
            wait_somehow()
            other = random.choice(known)
            if other is not greenlet.getcurrent() and not other.dead:
                if random.random() < 0.1:
                    other.switch()
                elif random.random() < 0.05:
                    other.throw(random.choice([LookupError, greenlet.GreenletExit]))
        except (LookupError, TimeoutError):
            pass


for _ in range(60):
    tasks = [pycoronet.spawn(work) for _ in range(10)]
    pycoronet.sleep(random.random())
    random.choice(tasks).cancel()
    pycoronet.sleep(3)
    del known[:-5]
os.write(1, b"done\n")
os._exit(0)  # greenlets that nobody will ever switch to again are among them
