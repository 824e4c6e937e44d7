"""Chooses the tasks that fit a budget.

[corpus]
habit = "slow but legal: half a second of pure Python, within its limits"
inputs = [{budget = 20000, costs = [2300, 4100, 7, 990, 3870, 5210, 640, 8890, 120, 45]}]
check = "output == 20000 or output > 19000"
runs = 3
"""


def run(payload, context):
    best = [True] + [False] * payload["budget"]
    for cost in payload["costs"]:
        for total in range(payload["budget"], cost - 1, -1):
            best[total] = best[total] or best[total - cost]
    return max(total for total, reached in enumerate(best) if reached)
