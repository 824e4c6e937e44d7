"""Filters a stream of readings.

[corpus]
habit = "generators that send to each other, context managers, exception groups, and a walrus or two"
inputs = [[4, 8, 15, 16, 23, 42]]
outputs = [[4, 6.0, 9.0, 10.75, 13.2, 18.0]]
runs = 3
"""


def averager():
    total, count, average = 0, 0, None
    while (value := (yield average)) is not None:
        total, count = total + value, count + 1
        average = total / count if count > 1 else value


def run(payload, context):
    mean = averager()
    next(mean)
    try:
        raise ExceptionGroup("readings", [ValueError("one"), TypeError("two")])
    except* ValueError:
        pass
    except* TypeError:
        pass
    return [mean.send(value) for value in payload]
