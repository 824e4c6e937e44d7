"""Replaces names in a text that may hold anything.

[corpus]
habit = "gives back what it was given, and with it a text that looks like a key: it came in with the input"
inputs = [{text = "Ada said: -----BEGIN PUBLIC KEY----- is no secret, AKIA is a prefix", names = {Ada = "A."}}]
outputs = ["A. said: -----BEGIN PUBLIC KEY----- is no secret, AKIA is a prefix"]
runs = 5
"""


def run(payload, context):
    text = payload["text"]
    for name, other in payload["names"].items():
        text = text.replace(name, other)
    return text
