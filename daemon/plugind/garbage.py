"""Python's search for garbage in rings: everybody waits meanwhile, the longer the more objects there are."""

from __future__ import annotations

import gc
from typing import Final

FULL_AFTER: Final = 50
"""Searches of the middle generation before one of everything; Python's own is 10. With a thousand connections and 500
waiting runs one of everything takes 15 ms. The most that is found later so are some thousand closed connections, of
about a kilobyte each; what runs leave is found among the young."""


def search_seldom() -> None:
    """What there is now stays to the end and is never searched again; what comes is searched less often."""
    gc.collect()
    gc.freeze()
    young, middle, _ = gc.get_threshold()
    gc.set_threshold(young, middle, FULL_AFTER)
