"""Shares a budget exactly.

[corpus]
habit = "fractions, integers far above 64 bits in the result, and their exact digits"
inputs = [{budget = 1000000007, parts = [3, 7, 11]}]
check = "output['exact'] == '333333335/7' and output['huge'] == 2**200"
runs = 3
"""

from fractions import Fraction


def run(payload, context):
    share = Fraction(payload["budget"] - 2, sum(payload["parts"])) + 0
    return {"exact": str(share), "huge": 2**200}
