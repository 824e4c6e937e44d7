#!/bin/sh
# Adds numbers, natively.
#
# [corpus]
# tries = "is a program, in a tier that may execute none"
# inputs = [[1, 2]]
# expected = "blocked"
# codes = ["TIER_NOT_ALLOWED"]
# quarantine = false
echo "LOOT it ran" >&2
echo 3
