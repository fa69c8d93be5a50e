"""Leaves tasks, nested greenlets, threads and calls behind, in every state, at exit."""

import os
import threading
import time

import greenlet

import pycoronet


def pending():
    try:
        pycoronet.sleep(60)
    finally:
        os.write(1, b"finally\n")


def nested():
    child = greenlet.greenlet(lambda: pycoronet.sleep(60))
    pycoronet.spawn(greenlet.getcurrent().switch)
    child.switch()


def waits_in_a_thread():
    pycoronet.to_thread(time.sleep, 60)


read_end, write_end = os.pipe()
for _ in range(3):
    pycoronet.spawn(pending)
    pycoronet.spawn(nested)
    pycoronet.spawn(waits_in_a_thread)
    pycoronet.spawn(pycoronet.wait_readable, read_end).name = "reader"
    read_end, write_end = os.pipe()
threading.Thread(target=lambda: pycoronet.spawn(pycoronet.sleep, 60).join(), daemon=True).start()
pycoronet.sleep(0.01)
pycoronet.spawn(pending)  # never begins
