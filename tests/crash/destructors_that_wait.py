"""Destructors that wait, spawn and close, wherever the last reference may go."""

import gc
import os
import sys

import greenlet

import pycoronet

sys.unraisablehook = lambda report: None


class Waits:
    def __init__(self):
        self.me = self  # only the collector ends it

    def __del__(self):
        try:
            pycoronet.sleep(0)
        except RuntimeError:
            pass
        pycoronet.spawn(int)


class WaitsAtOnce:
    def __del__(self):
        try:
            pycoronet.sleep(0.0001)
        except RuntimeError:
            pass


def returns_one():
    greenlet.getcurrent().mine = WaitsAtOnce()
    return WaitsAtOnce()


def keeps_one(argument):
    Waits()
    gc.collect()
    pycoronet.sleep(0)
    raise ZeroDivisionError


gc.set_threshold(20, 2, 2)
for _ in range(300):
    pycoronet.spawn(returns_one)
    task = pycoronet.spawn(keeps_one, WaitsAtOnce())
    task.join()
    Waits()
    task = pycoronet.spawn(pycoronet.sleep, WaitsAtOnce and 60)
    pycoronet.sleep(0)
    task.cancel(WaitsAtOnce())
    try:
        task.get()
    except pycoronet.Cancelled:
        pass
    pycoronet.get_hub().call_soon_threadsafe(returns_one)
    if _ % 50 == 0:
        pycoronet.get_hub().waiters()
pycoronet.get_hub().close()
os.write(1, b"done\n")
