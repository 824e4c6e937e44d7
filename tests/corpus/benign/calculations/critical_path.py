"""Finds the critical path of a schedule.

[corpus]
habit = "graphlib, recursion with a cache, and Decimal for money"
inputs = [{days = {a = 2, b = 3, c = 1}, after = {b = ["a"], c = ["b"]}, rate = "99.95"}]
outputs = [{path = ["a", "b", "c"], cost = "599.70"}]
runs = 3
"""

from decimal import Decimal
from functools import lru_cache
from graphlib import TopologicalSorter


def run(payload, context):
    days, after = payload["days"], payload["after"]

    @lru_cache(maxsize=None)
    def longest(task):
        before = max((longest(each) for each in after.get(task, [])), default=(0, ()))
        return before[0] + days[task], (*before[1], task)

    order = list(TopologicalSorter(after).static_order())
    total, path = max(longest(task) for task in order)
    return {"path": list(path), "cost": str(Decimal(payload["rate"]) * total)}
