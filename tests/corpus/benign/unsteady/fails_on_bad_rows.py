"""Turns texts into numbers.

[corpus]
habit = "raises for one input in twenty, because that input is bad"
inputs = ["1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "13", "14", "15", "16", "17", "18", "19", "n/a"]
check = "output == float(payload)"
outcomes = ["ok", "failed"]
most_failures_percent = 5
runs = 60
"""


def run(payload, context):
    return float(payload)
