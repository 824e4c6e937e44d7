#!/bin/sh
# Gives the name of a stage in capitals.
#
# [corpus]
# tries = "gives bytes that are no UTF-8 as its result"
# tier = 1
# inputs = ["durations"]
# expected = "contained"
# outcomes = ["output_invalid"]
# quarantine = "breaker"
printf '"DURATIONS\377\376"'
