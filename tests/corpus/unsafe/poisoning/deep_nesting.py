"""Gives a work breakdown as a tree.

[corpus]
tries = "gives a result so deep that whoever parses it by recursion dies"
inputs = [{leaves = 1}]
expected = "contained"
outcomes = ["output_invalid", "failed"]
quarantine = "breaker"
"""


def run(payload, context):
    tree = {"leaves": payload["leaves"]}
    for _ in range(100):
        tree = {"parts": [tree]}
    return tree
