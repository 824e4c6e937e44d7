"""Compiles a pattern, and would keep it beside its code.

[corpus]
habit = "tries to write beside its own code, as caches do, meets a read-only file system, and goes on without"
inputs = ["WP-12"]
outputs = [true]
runs = 3
"""

import pathlib
import pickle
import re


def run(payload, context):
    pattern = re.compile(r"WP-\d+")
    try:
        pathlib.Path(__file__).with_suffix(".cache").write_bytes(pickle.dumps(pattern))
    except OSError:
        pathlib.Path(context.scratch_dir, "pattern.cache").write_bytes(pickle.dumps(pattern))
    return bool(pattern.fullmatch(payload))
