"""Evaluates scenarios at the same time.

[corpus]
habit = "threads, locks, conditions, and thread-local values"
inputs = [[1, 2, 3, 4]]
outputs = [[1, 4, 9, 16]]
runs = 3
"""

import threading
from concurrent.futures import ThreadPoolExecutor

local = threading.local()
lock = threading.Lock()


def square(number):
    local.value = number
    with lock:
        return local.value**2


def run(payload, context):
    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(square, payload))
