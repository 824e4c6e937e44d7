"""Simulates what a plan may cost, many times over.

[corpus]
habit = "numpy with a generator of its own, and a matrix large enough for the threads of BLAS"
inputs = [{mean = 100.0, spread = 15.0, draws = 20000}]
check = "90 < output['median'] < 110 and output['high'] > output['median']"
runs = 3

[manifest]
environment = "science"
"""

import numpy as np


def run(payload, context):
    draw = np.random.default_rng()
    costs = draw.normal(payload["mean"], payload["spread"], payload["draws"])
    matrix = draw.random((200, 200))
    assert np.allclose(matrix @ np.linalg.inv(matrix), np.eye(200), atol=1e-4)
    return {"median": float(np.median(costs)), "high": float(np.percentile(costs, 95))}
