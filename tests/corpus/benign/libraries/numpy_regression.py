"""Fits a line through effort and size.

[corpus]
habit = "numpy.linalg and structured arrays; warnings of division by zero on standard error"
inputs = [{size = [1, 2, 3, 4], effort = [3, 5, 7, 9]}]
outputs = [[2.0, 1.0]]
runs = 3

[manifest]
environment = "science"
"""

import numpy as np


def run(payload, context):
    rows = np.array(list(zip(payload["size"], payload["effort"])), dtype=[("size", "f8"), ("effort", "f8")])
    np.float64(1) / np.float64(0)
    left = np.stack([rows["size"], np.ones(len(rows))], axis=1)
    return np.linalg.lstsq(left, rows["effort"], rcond=None)[0].round(9).tolist()
