"""Napkin calculations as functions, called one after the other.

[corpus]
habit = "interface functions: a list of calls, of which one divides by zero and says so"
inputs = [[{function = "payback_years", arguments = {cost = 900, saved = 300}}, {function = "payback_years", arguments = {cost = 1, saved = 0}}]]
check = "output[0] == 3.0 and output[1]['error']['type'] == 'ZeroDivisionError'"
runs = 3

[manifest]
interface = "functions"
entrypoint = "napkin_functions"
"""


def payback_years(cost: float, saved: float) -> float:
    return cost / saved
