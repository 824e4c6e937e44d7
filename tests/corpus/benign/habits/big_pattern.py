"""Finds dates, amounts and names in a text.

[corpus]
habit = "one regular expression of a few thousand alternatives, compiled each time"
inputs = ["Pay 1200 EUR to task417 on 2026-05-01."]
outputs = [["1200 EUR", "task417", "2026-05-01"]]
runs = 3
"""

import re


def run(payload, context):
    names = "|".join(f"task{number}" for number in range(2000, 0, -1))
    pattern = re.compile(rf"\d{{4}}-\d\d-\d\d|\d+ (?:EUR|USD)|(?:{names})")
    return pattern.findall(payload)
