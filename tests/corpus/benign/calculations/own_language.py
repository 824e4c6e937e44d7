"""Evaluates formulas that planners write.

[corpus]
habit = "compile and eval of strings, with names of its own and no others"
inputs = [{formula = "rooms * 12.5 + max(2, doors)", values = {rooms = 4, doors = 3}}]
outputs = [53.0]
runs = 3
"""


def run(payload, context):
    code = compile(payload["formula"], "formula", "eval")
    names = {"__builtins__": {}, "max": max, "min": min} | payload["values"]
    scope = {}
    exec("def doubled(x):\n    return x * 2", scope)
    return eval(code, names) if scope["doubled"](1) == 2 else None
