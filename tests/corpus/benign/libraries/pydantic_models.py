"""Checks tasks against a model, and says what is wrong with each.

[corpus]
habit = "pydantic builds classes and validators at import time, in native code"
inputs = [[{name = "roof", days = 3}, {name = "wall", days = "many"}]]
outputs = [["ok", "days"]]
runs = 3

[manifest]
environment = "tools"
"""

from pydantic import BaseModel, ValidationError


class Task(BaseModel):
    name: str
    days: int


def told(entry):
    try:
        return "ok" if Task.model_validate(entry) else ""
    except ValidationError as error:
        return str(error.errors()[0]["loc"][0])


def run(payload, context):
    return [told(entry) for entry in payload]
