"""Gives a verdict with its cost.

[corpus]
tries = "has the same key twice in its result: one parser sees the first value, another one the last"
inputs = [{cost = 5}]
expected = "contained"
outcomes = ["output_invalid"]
quarantine = "breaker"
"""


class Key(str):
    __slots__ = ()

    def __hash__(self):
        return id(self)

    def __eq__(self, other):
        return self is other


def run(payload, context):
    return {Key("cost"): payload["cost"], Key("cost"): -1}
