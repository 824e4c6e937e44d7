"""Counts the ways to split work into shifts.

[corpus]
habit = "recursion thousands of levels deep, with a raised limit and a cache"
inputs = [{hours = 3000}]
check = "output > 0"
runs = 3
"""

import sys
from functools import lru_cache


@lru_cache(maxsize=None)
def ways(hours):
    return 1 if hours < 2 else (ways(hours - 1) + ways(hours - 2)) % 1_000_007


def run(payload, context):
    sys.setrecursionlimit(50_000)
    return ways(payload["hours"])
