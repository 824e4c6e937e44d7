"""Sums tables of very different sizes.

[corpus]
habit = "time, memory and output go with the size of its input, which varies"
inputs = [{rows = 10}, {rows = 400}, {rows = 3000}, {rows = 100}, {rows = 9000}]
check = "output['sum'] == sum(range(payload['rows']))"
runs = 45
"""


def run(payload, context):
    rows = list(range(payload["rows"]))
    return {"sum": sum(rows), "squares": [row * row for row in rows[:: max(1, len(rows) // 400)]]}
