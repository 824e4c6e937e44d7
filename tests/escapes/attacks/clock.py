"""The clock that both ends of a channel share: each bit has its slot.

`start` is when the first slot begins (seconds since the epoch), `slot` how long each lasts. A receiver gives what it saw
in each; a channel carries something when what it saw depends on what was sent.
"""

import time


class LateError(Exception):
    """The machine was too busy for this end to be there in time: what was seen says nothing."""


def wait_until(moment, slack=0.02):
    left = moment - time.time()
    if left < -slack:
        raise LateError(f"{-left:.3f} s late")
    time.sleep(max(0.0, left))


def on_the_clock(start, slot, work, bits):
    """work(bit) in the middle of each slot; what it gave."""
    seen = []
    for number, bit in enumerate(bits):
        wait_until(start + slot * (number + 0.5))
        seen.append(work(bit))
    return seen


def for_each_slot(start, slot, bits, begin, end):
    """begin() at the start of each slot whose bit is 1, end() at its end."""
    for number, bit in enumerate(bits):
        wait_until(start + slot * number)
        if bit:
            begin()
        wait_until(start + slot * (number + 0.9))
        if bit:
            end()
    return "sent"
