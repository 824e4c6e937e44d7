"""What montecarlo.json says of the columns of a Monte Carlo: distributions, thresholds, and which input drives what.

A value that is missing (the calculation raised, or gave no finite number) is NaN in its column, and counted.
"""

from __future__ import annotations

import math
import operator
from array import array
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sampling import PlanDataError

PERCENTILES = (5, 25, 50, 75, 95)
TOP_INPUTS = 5
FEWEST_PAIRS = 20
"""Of fewer values no correlation is told."""
OPERATORS = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
}


def distribution(column: Sequence[float], unit: str) -> dict[str, Any]:
    """Count, mean, standard deviation and percentiles of what is not missing; null where nothing is there."""
    ordered = sorted(present(column))
    count = len(ordered)
    told: dict[str, Any] = {"unit": unit, "count": count, "missing_count": len(column) - count}
    if not count:
        return told | dict.fromkeys(("mean", "std", "min", *map(_label, PERCENTILES), "max"))
    mean = math.fsum(ordered) / count
    told |= {"mean": mean, "std": math.sqrt(math.fsum([(value - mean) ** 2 for value in ordered]) / count)}
    told["min"] = ordered[0]
    told |= {_label(percent): _percentile(ordered, percent) for percent in PERCENTILES}
    return told | {"max": ordered[-1]}


def threshold(column: Sequence[float], wanted: Mapping[str, Any], name: str) -> dict[str, Any]:
    """In how many trials an output is as it has to be. Raises PlanDataError for an operator that is none."""
    test = OPERATORS.get(wanted.get("operator", ""))
    if test is None:
        known = " ".join(OPERATORS)
        got = wanted.get("operator")
        raise PlanDataError(f"montecarlo_settings.json: {name}: expected an operator of {known}, got {got!r}")
    valid, limit = present(column), wanted["value"]
    passed = sum(test(value, limit) for value in valid)
    return {
        "operator": wanted["operator"],
        "value": limit,
        "success_count": passed,
        "valid_count": len(valid),
        "probability": passed / len(valid) if valid else None,
    }


def top_inputs(column: Sequence[float], inputs: Mapping[str, Sequence[float]]) -> list[dict[str, Any]]:
    """Pearson's correlation of an output with each input that it depends on, the strongest first."""
    found = [(name, correlation(given, column)) for name, given in inputs.items()]
    known = [(name, value) for name, value in found if value is not None]
    known.sort(key=lambda pair: -abs(pair[1]))
    return [{"id": name, "correlation": round(value, 4)} for name, value in known[:TOP_INPUTS]]


def correlation(given: Sequence[float], column: Sequence[float]) -> float | None:
    """Pearson's, over the trials in which the output is there. None: one of them does not vary, or too few are there."""
    if any(map(math.isnan, column)):
        there = [index for index, value in enumerate(column) if value == value]
        given, column = [given[index] for index in there], [column[index] for index in there]
    if len(column) < FEWEST_PAIRS:
        return None
    across, down = _centred(given), _centred(column)
    scale = math.sqrt(_product(across, across)) * math.sqrt(_product(down, down))
    return _product(across, down) / scale if scale else None


def present(column: Iterable[float]) -> array[float]:
    """What is not missing, in order."""
    return array("d", [value for value in column if value == value])  # NaN is not equal to itself


def _label(percent: int) -> str:
    return f"p{percent:02}"


def _percentile(ordered: Sequence[float], percent: int) -> float:
    """Linear between the two nearest ranks, as numpy has it."""
    position = (len(ordered) - 1) * percent / 100
    below = math.floor(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (position - below)


def _centred(column: Sequence[float]) -> list[float]:
    mean = math.fsum(column) / len(column)
    return [value - mean for value in column]


def _product(first: Sequence[float], second: Sequence[float]) -> float:
    return math.fsum(map(operator.mul, first, second))
