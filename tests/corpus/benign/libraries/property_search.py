"""Searches the smallest budget that fits no plan.

[corpus]
habit = "hypothesis in place of an optimiser: random data, a database folder that it cannot have, timing of its own"
inputs = [{limit = 1000}]
outputs = [1001]
runs = 3

[manifest]
environment = "tools"
[manifest.limits]
cpu_ms = 10000
wall_ms = 20000
"""

import hypothesis
from hypothesis import strategies as st


def run(payload, context):
    options = hypothesis.settings(database=None, max_examples=500)
    return hypothesis.find(st.integers(min_value=0), lambda cost: cost > payload["limit"], settings=options)
