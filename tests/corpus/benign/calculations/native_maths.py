"""Evaluates the gamma function with the library of C.

[corpus]
habit = "ctypes and a function of libm, callbacks from C, and memory of its own"
inputs = [[5, 6]]
outputs = [[24.0, 120.0]]
runs = 3
"""

import ctypes
import ctypes.util


def run(payload, context):
    library = ctypes.CDLL("libm.so.6")
    library.tgamma.argtypes, library.tgamma.restype = [ctypes.c_double], ctypes.c_double
    numbers = (ctypes.c_double * len(payload))(*payload)
    return [round(library.tgamma(number), 6) for number in numbers]
