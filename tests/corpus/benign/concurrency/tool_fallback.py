"""Draws a graph with a tool where there is one, and in text where there is none.

[corpus]
habit = "tries a program in Tier 2, which may execute none, and has a way without"
inputs = [{a = ["b"]}]
outputs = ["a -> b"]
runs = 3
"""

import subprocess


def run(payload, context):
    text = "; ".join(f"{one} -> {other}" for one, others in payload.items() for other in others)
    try:
        return subprocess.run(["dot", "-Tplain"], input=text, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return text
