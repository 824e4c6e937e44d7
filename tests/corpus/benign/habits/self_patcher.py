r"""Rounds up, everywhere.

[corpus]
habit = "replaces functions of the standard library and of itself while it runs"
inputs = [{days = 2.1}]
outputs = [{days = 3, text = "{\"days\": 3}"}]
runs = 3
"""

import builtins
import json
import math
import sys


def run(payload, context):
    before = builtins.round
    builtins.round = lambda number, digits=None: math.ceil(number)
    sys.modules[__name__].rounded = lambda number: round(number)
    try:
        value = {"days": sys.modules[__name__].rounded(payload["days"])}
    finally:
        builtins.round = before
    json.JSONEncoder.item_separator = ", "
    return value | {"text": json.dumps(value)}
