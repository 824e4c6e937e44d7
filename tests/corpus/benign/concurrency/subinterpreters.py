"""Evaluates a formula in an interpreter of its own.

[corpus]
habit = "subinterpreters, where this Python has them, and a plain exec where it has not"
inputs = [{formula = "2 + 3 * 4"}]
outputs = [14]
runs = 3
"""

import os


def run(payload, context):
    read, write = os.pipe()
    code = f"import os; os.write({write}, str({payload['formula']}).encode())"
    try:
        import _xxsubinterpreters as interpreters

        made = interpreters.create()
        interpreters.run_string(made, code)
        interpreters.destroy(made)
    except ImportError:
        exec(code)
    return int(os.read(read, 10))
