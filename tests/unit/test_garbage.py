"""In a process of its own: what is frozen there stays frozen."""

from __future__ import annotations

import json
import subprocess
import sys

from plugind.garbage import FULL_AFTER

CODE = """
import gc, json, weakref
from plugind import garbage

class Ring:
    def __init__(self):
        self.self = self

before = gc.get_threshold()
gone, kept = weakref.ref(Ring()), Ring()
garbage.search_seldom()
stays = weakref.ref(kept)
del kept
late = weakref.ref(Ring())
gc.collect()
alive = [ref() is not None for ref in (gone, stays, late)]
print(json.dumps([before, gc.get_threshold(), gc.get_freeze_count(), gc.isenabled(), alive]))
"""


def test_what_was_there_is_left_alone_and_the_rest_is_still_found() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    before, after, frozen, enabled, alive = json.loads(done.stdout)
    assert after == [*before[:2], FULL_AFTER]
    assert before[2] < FULL_AFTER
    assert frozen > 1000
    assert enabled
    assert alive == [False, True, False], "garbage of before, a ring that was frozen, garbage of later"
