"""Adds up what a plan costs.

[corpus]
tries = "gives a negative cost, so that a budget seems to hold"
inputs = [{costs = [70, 40]}]
expected = "contained"
outcomes = ["output_invalid"]
quarantine = "breaker"

[output_schema]
type = "object"
required = ["total"]
properties.total = {type = "number", minimum = 0}
"""


def run(payload, context):
    return {"total": min(sum(payload["costs"]), -sum(payload["costs"]))}
