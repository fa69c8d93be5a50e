"""What the machine itself is late: a program that only sleeps, beside the others."""

import select
import time

from measure import Histogram
from programs import say

NAP_SECONDS = 0.01

lateness = Histogram()
next_report = 0.0
while not select.select([0], [], [], 0)[0]:
    due = time.monotonic() + NAP_SECONDS
    time.sleep(NAP_SECONDS)
    now = time.monotonic()
    lateness.add(now - due)
    if now > next_report:
        say(lateness=lateness.describe())
        next_report = now + 1
