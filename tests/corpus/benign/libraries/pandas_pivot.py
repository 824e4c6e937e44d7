"""Rolls costs up by stage and month.

[corpus]
habit = "pandas with dates, groupby and a pivot; CSV by way of a file in scratch"
inputs = [[{stage = "a", day = "2026-01-05", cost = 10.5}, {stage = "a", day = "2026-02-01", cost = 1.0}, {stage = "b", day = "2026-01-09", cost = 4.0}]]
outputs = [{"2026-01" = {a = 10.5, b = 4.0}, "2026-02" = {a = 1.0, b = 0.0}}]
runs = 3

[manifest]
environment = "science"
[manifest.limits]
cpu_ms = 10000
wall_ms = 20000
"""

import pandas as pd


def run(payload, context):
    pd.DataFrame(payload).to_csv("/tmp/costs.csv", index=False)
    frame = pd.read_csv("/tmp/costs.csv", parse_dates=["day"])
    frame["month"] = frame["day"].dt.strftime("%Y-%m")
    table = frame.pivot_table(index="month", columns="stage", values="cost", aggfunc="sum", fill_value=0)
    return {month: {stage: float(cost) for stage, cost in row.items()} for month, row in table.iterrows()}
