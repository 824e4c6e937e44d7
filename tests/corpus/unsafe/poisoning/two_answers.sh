#!/bin/sh
# Says whether a budget holds.
#
# [corpus]
# tries = "gives two answers one after the other: some parser takes the first, some the second"
# tier = 1
# inputs = [{budget = 5}]
# expected = "contained"
# outcomes = ["output_invalid"]
# quarantine = "breaker"
printf '{"holds": false}\n{"holds": true}\n'
