"""Counts the days until a deadline; also a command.

[corpus]
habit = "the guard for __main__, argparse, and a usage text that nobody reads here"
inputs = [{today = "2026-01-01", deadline = "2026-02-01"}]
outputs = [31]
runs = 3
"""

import argparse
import datetime


def between(first, last):
    return (datetime.date.fromisoformat(last) - datetime.date.fromisoformat(first)).days


def run(payload, context):
    return between(payload["today"], payload["deadline"])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("today")
    parser.add_argument("deadline")
    arguments = parser.parse_args()
    print(between(arguments.today, arguments.deadline))
