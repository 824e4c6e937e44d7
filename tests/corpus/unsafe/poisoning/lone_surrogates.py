"""Shortens a title to ten characters.

[corpus]
tries = "gives text that is no Unicode, on which a database or a terminal of others fails"
inputs = ["Bridge over the river"]
expected = "contained"
outcomes = ["output_invalid"]
quarantine = "breaker"
"""


def run(payload, context):
    return payload[:9] + "\ud83d"
