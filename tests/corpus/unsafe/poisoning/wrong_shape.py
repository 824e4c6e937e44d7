"""Gives the tasks of a stage.

[corpus]
tries = "gives a text where a list is expected, which a careless caller takes apart letter by letter"
inputs = [{tasks = ["rm -rf", "x"]}]
expected = "contained"
outcomes = ["output_invalid"]
quarantine = "breaker"

[output_schema]
type = "array"
items = {type = "string", minLength = 2}
"""


def run(payload, context):
    return ", ".join(payload["tasks"])
