"""Makes the table of all combinations of estimates.

[corpus]
habit = "a large but legal result: about two megabytes of JSON"
inputs = [{steps = 150}]
check = "len(output) == 22500 and output[-1]['product'] == 149 * 149"
runs = 3
"""


def run(payload, context):
    steps = range(payload["steps"])
    return [
        {"first": a, "second": b, "product": a * b, "label": f"combination {a} x {b}"} for a in steps for b in steps
    ]
