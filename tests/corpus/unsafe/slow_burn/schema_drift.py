"""Gives the cost of a unit.

[corpus]
tries = "changes the form of its results after a while, and with it what others calculate"
inputs = [{units = 3}]
numbered = "revision"
runs = 30
expected = "contained"
outcomes = ["ok", "output_invalid"]
quarantine = "breaker"

[output_schema]
type = "object"
required = ["cost"]
properties.cost.type = "number"
"""


def run(payload, context):
    cost = payload["units"] * 2.5
    return {"cost": cost if payload["revision"] < 20 else f"{cost} thousand"}
