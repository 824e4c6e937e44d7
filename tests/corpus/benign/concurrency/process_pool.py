"""Evaluates scenarios in processes.

[corpus]
habit = "multiprocessing by fork: pool, queue and semaphores"
inputs = [[5, 6]]
outputs = [[25, 36]]
runs = 3
"""

import multiprocessing


def square(number):
    return number * number


def run(payload, context):
    with multiprocessing.get_context("fork").Pool(2) as pool:
        return pool.map(square, payload)
