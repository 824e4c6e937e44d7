"""Describes a series of estimates.

[corpus]
habit = "the statistics module, a seed of its own and bootstrapping: much CPU for a small result"
inputs = [{estimates = [3, 5, 9, 4, 6, 7], seed = 42}]
check = "output['mean'] == 5.666666666666667 and output['low'] < output['mean'] < output['high']"
runs = 5
"""

import random
import statistics


def run(payload, context):
    draw = random.Random(payload["seed"])
    values = payload["estimates"]
    means = sorted(statistics.fmean(draw.choices(values, k=len(values))) for _ in range(2000))
    return {"mean": statistics.fmean(values), "low": means[50], "high": means[-50]}
